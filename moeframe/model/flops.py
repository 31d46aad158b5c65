"""FLOPs of a network on one image, counted without computing anything."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from moeframe.errors import UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.shapes import Images, LogSnr

Module = TypeVar("Module", bound=nn.Module)


def count_flops(
    run: Callable[[Images, LogSnr], object], name: str, image: ImageShape, device: torch.device | str = "meta"
) -> int:
    """Operations of `run` on one image of zeros at log-SNR 0. Raises UnavailableError where meta lacks the values.

    The meta device spares the arithmetic. Attention is split into products that are counted; those of torch's fused
    attention on a CPU are not.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    z = torch.zeros(1, *image.tensor_shape, device=device)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            run(z, torch.zeros(1, device=device))
    except RuntimeError as error:
        raise UnavailableError(
            f"the operations of '{name}' cannot be counted without values ({str(error).splitlines()[0]}); "
            "leave the metric out"
        ) from error
    return int(counter.get_total_flops())


def on_meta(module: Module) -> Module:
    """A copy with the shapes of all parameters and buffers and none of their values: it takes no memory."""
    shapes: dict[int, Any] = {
        id(each): nn.Parameter(torch.empty_like(each, device="meta"), requires_grad=False)
        for each in module.parameters()
    }
    shapes |= {id(each): torch.empty_like(each, device="meta") for each in module.buffers()}
    return copy.deepcopy(module, shapes)
