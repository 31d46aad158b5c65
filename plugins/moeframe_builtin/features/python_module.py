"""A feature network of the user's own: a torch module that a function of an importable package builds."""

import hashlib
import importlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import ClassVar

import torch
from torch import nn

from moeframe.errors import UnavailableError
from moeframe_builtin.features.space import TO_RGB, Extracted, FeatureSpace, Rgb, SpaceSettings
from moeframe_builtin.features.users_own import TAKES, rows_of


class PythonModule(FeatureSpace):
    """`module: package.module:function`, which returns a torch module; named by the function and its weights' hash."""

    KEY: ClassVar[str] = "module"
    USES: ClassVar[frozenset[str]] = frozenset({"module"})

    @classmethod
    def misused(cls, settings: SpaceSettings) -> Iterator[tuple[str, str]]:
        """Conflicts of every space, and a missing function."""
        yield from super().misused(settings)
        if settings.module is None:
            yield "module", "features 'module' need module: PACKAGE.MODULE:FUNCTION, which builds the network"

    @classmethod
    def unavailable(cls, settings: SpaceSettings) -> str | None:
        """The function."""
        try:
            _function(settings)
        except UnavailableError as error:
            return str(error)
        return None

    @property
    def name(self) -> str:
        """The function's name and the first digits of the hash."""
        return f"{self.settings.module} ({self.weights_sha256[:8]})"

    @property
    def what(self) -> str:
        """The user's module."""
        return f"torch module built by {self.settings.module}"

    @property
    def preprocessing(self) -> str:
        """The module does anything else itself."""
        return f"{TO_RGB}; divided by 255; the module resizes and normalises by itself if at all"

    @cached_property
    def weights_sha256(self) -> str:
        """Over names and values of the module's state, since there is no file."""
        whole = hashlib.sha256()
        for name, tensor in self._network.state_dict().items():
            content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            whole.update(name.encode() + content.numpy().tobytes())
        return whole.hexdigest()

    def extract(self, images: Rgb) -> Extracted:
        """Features only. Raises UnavailableError when the module does not take or return what it should."""
        return rows_of(self._network, images, self.what, self.device)

    @cached_property
    def _network(self) -> nn.Module:
        build = _function(self.settings)
        try:
            network = build()
        except Exception as error:  # third-party code may raise anything
            raise UnavailableError(f"{self.settings.module}: fails with {type(error).__name__}: {error}") from error
        if not isinstance(network, nn.Module):
            words = f"returns {type(network).__name__}, not a torch module; it is given {TAKES}"
            raise UnavailableError(f"{self.settings.module}: {words}")
        return network.to(self.device).eval().requires_grad_(False)


def _function(settings: SpaceSettings) -> Callable[[], object]:
    """The named function. Raises UnavailableError saying what is missing."""
    path = settings.module or ""
    place, _, name = path.partition(":")
    if not place or not name:
        raise UnavailableError(f"module: '{path}' is not of the form PACKAGE.MODULE:FUNCTION")
    try:
        found = getattr(importlib.import_module(place), name, None)
    except Exception as error:  # third-party code may raise anything
        raise UnavailableError(f"module: '{place}' cannot be imported ({error}); install its package") from error
    if not callable(found):
        raise UnavailableError(f"module: '{place}' has no function '{name}'")
    build: Callable[[], object] = found
    return build
