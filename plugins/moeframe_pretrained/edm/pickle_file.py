"""The pickled networks of NVlabs' EDM: constructor arguments and tensors, read without executing the pickle.

Such a pickle carries the source code of its classes, for a reader to execute; it is dropped unread.
"""

import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moeframe.errors import CheckpointError
from moeframe.storage.safe_pickle import AllowList, RefusedPickleError, UnreadablePickleError, read_pickle


class PickledModule:
    """One module or other object in a pickle: the name of its class and its attributes."""

    __slots__ = ("attributes", "class_name")

    class_name: str
    attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise RefusedPickleError(f"a state of {type(self).__name__} that is not a dict")
        self.class_name, self.attributes = type(self).__name__, state

    @property
    def constructor_arguments(self) -> dict[str, Any]:
        """The keyword arguments of the constructor; EDM gives no others."""
        if self.attributes.get("_init_args"):
            raise ValueError(f"{self.class_name} was built with unnamed arguments")
        return dict(self.attributes["_init_kwargs"])

    def child(self, name: str) -> "PickledModule":
        """The module registered under this name."""
        child = self.attributes["_modules"][name]
        if not isinstance(child, PickledModule):
            raise TypeError(f"{name!r} is not a module")
        return child

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by their dotted names, as in a state dict."""
        return dict(self._named_tensors(""))

    def _named_tensors(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        passing = self.attributes.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, tensor in self.attributes[kind].items():
                if isinstance(tensor, Tensor) and name not in passing:
                    yield f"{prefix}{name}", tensor
        for name in self.attributes["_modules"]:
            yield from self.child(name)._named_tensors(f"{prefix}{name}.")


def _described_object(description: Any) -> PickledModule:
    """An object of a class whose source the pickle carries; the source is dropped unread."""
    match description:
        case {"type": "class", "class_name": str() as class_name, "state": dict() as state}:
            described = PickledModule()
            described.class_name, described.attributes = class_name, state
            return described
    raise RefusedPickleError("an object that is described by no class name and state")


def _storage_values(raw: Any) -> Tensor:
    """The values of a storage as a flat tensor."""
    try:
        storage = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as cause:  # torch raises almost anything on bytes that are not a storage
        raise RefusedPickleError("a storage that torch's reading of weights alone refuses or cannot read") from cause
    if not isinstance(storage, torch.storage.TypedStorage):
        raise RefusedPickleError(f"a storage that is a {type(storage).__name__}")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)


def _tensor(values: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor of the values of its storage; the arguments that are left concern gradients."""
    if not isinstance(values, Tensor) or math.prod(size) > values.numel():
        raise RefusedPickleError("a tensor larger than its storage")
    return values.as_strided(size, stride, offset)


def _parameter(values: Any, *_: Any) -> Tensor:
    if not isinstance(values, Tensor):
        raise RefusedPickleError("a parameter that is not a tensor")
    return values


PARTS_OF_A_NETWORK = AllowList(
    functions={
        "torch_utils.persistence._reconstruct_persistent_obj": _described_object,
        "torch.storage._load_from_bytes": _storage_values,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
    },
    containers={
        "collections.OrderedDict": dict,
        "dnnlib.util.EasyDict": dict,
        "builtins.set": set,
        "__builtin__.set": set,
    },
    classes=re.compile(r"torch\.nn\.modules\.[a-z_]+\.[A-Za-z0-9_]+"),
    record=PickledModule,
)


def read_pickled_network(path: Path, key: str = "ema") -> PickledModule:
    """The network under `key` in the file. Raises CheckpointError naming file and fault; executes nothing of it."""
    try:
        with path.open("rb") as file:
            value = read_pickle(file, PARTS_OF_A_NETWORK)
    except OSError as cause:
        raise CheckpointError(f"{path} cannot be read ({cause.strerror}); set path to EDM's network-….pkl") from cause
    except RefusedPickleError as refused:
        raise CheckpointError(
            f"{path} is refused: its pickle uses {refused}, which no EDM network needs and which could run code; "
            "do not trust its source, and download it again from the official one"
        ) from None
    except UnreadablePickleError as cause:
        raise CheckpointError(f"{path} is truncated or not a pickle of EDM ({cause}); download it again") from cause
    network = value.get(key) if isinstance(value, dict) else None
    if not isinstance(network, PickledModule):
        raise CheckpointError(f"{path} is not a snapshot of EDM: it holds no network under {key!r}")
    return network
