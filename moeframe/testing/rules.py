"""Rules that the contracts of several kinds share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from moeframe.interfaces.component import Component, ImageShape
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.randomness import Streams
from moeframe.shapes import LogSnr, Times

STREAMS = Streams(0)
IMAGE = ImageShape(channels=1, height=8, width=8, levels=256)
SHAPES = (IMAGE, ImageShape(channels=3, height=7, width=9, levels=17), ImageShape(3, 16, 16, 256))
SLICED_IMAGE = ImageShape(channels=3, height=6, width=6, levels=256)
M = TypeVar("M", bound=nn.Module)


class Line(NoiseSchedule):
    """A plain schedule for checks of kinds that need one."""

    class Config(NoiseSchedule.Config):
        type: Literal["line"] = "line"

    def log_snr(self, times: Times) -> LogSnr:
        """From 10 to -10."""
        return 10 - 20 * times


def expect(holds: bool, component: type[Component], rule: str) -> None:
    """Raise AssertionError when a rule does not hold."""
    if not holds:
        raise AssertionError(f"{component.__name__} ('{component.name()}', {component.KIND}) breaks the rule: {rule}")


@contextmanager
def trying(component: type[Component], image: ImageShape, n_experts: int | None = None) -> Iterator[None]:
    """Turn any other error than a broken rule into an AssertionError that says on which shapes it occurred."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        shapes = f"images of {image.channels}x{image.height}x{image.width} with {image.levels} levels"
        needs = "image=ImageShape(channels=..., height=..., width=..., levels=...)"
        if n_experts is not None:
            shapes += f" and {n_experts} experts"
            needs += " or n_experts=..."
        raise AssertionError(
            f"{component.__name__} ('{component.name()}', {component.KIND}) fails on {shapes} with "
            f"{type(error).__name__}: {error}; if it is made for other shapes, pass the check {needs}"
        ) from error


def checked_config(component: type[Component], config: Any) -> Any:
    """The config, or the default one, after the rules for configs."""
    if config is None:
        try:
            config = component.Config.model_validate({"type": component.name()})
        except ValidationError as error:
            raise AssertionError(
                f"{component.__name__} has settings without default; pass a config:\n{error}"
            ) from None
    expect(bool(component.summary()), component, "it has a docstring, whose first line is its summary")
    expect(_read_back(config) == config, component, "its config survives JSON")
    rules = type(config).model_config
    expect(rules.get("extra") == "forbid" and bool(rules.get("frozen")), component, "its config is strict and frozen")
    return config


def _read_back(config: Component.Config) -> Component.Config:
    """What the engine reads from a dump of the config: parts by their own Configs."""
    settings = config.model_dump(mode="json")
    for field in config.component.PARTS:
        parts = getattr(config, field)
        one = isinstance(parts, Component.Config)
        settings[field] = _read_back(parts) if one else parts and [_read_back(part) for part in parts]
    return type(config).model_validate(settings)


def stirred(build: Callable[[], M], seed: int = 0) -> M:
    """A new module, every parameter moved a little: a gate or network that starts at zero would pass anything."""
    streams = Streams(seed)
    with torch.no_grad(), streams.governing_torch("weights"):
        module = build()
        for name, parameter in module.named_parameters():
            parameter.add_(streams.normal(parameter.shape, "stir", name).to(parameter), alpha=0.2)
    return module


def close(first: Tensor, second: Tensor) -> bool:
    """Equal up to float32 rounding in another order of summation."""
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def expect_each_item_on_its_own(component: type[Component], compute: Callable[[Tensor], Tensor], n: int) -> None:
    """Each result of `compute(items)` is a function of the item and the seed, not of the batch or torch's own seed."""
    together = compute(torch.arange(n))
    order = STREAMS.permutation(n, "order")
    expect(close(compute(order), together[order]), component, "the order of the batch does not matter")
    alone = torch.cat([compute(torch.tensor([i])) for i in range(n)])
    expect(close(alone, together), component, "an item does not depend on the others in its batch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(STREAMS.permutation(1000, "other global seed")[0]))
        expect(torch.equal(compute(torch.arange(n)), together), component, "the same seed gives the same result")
