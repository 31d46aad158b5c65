"""A feature network of the user's own: a TorchScript module in a file."""

import io
import warnings
from functools import cached_property
from typing import Any, ClassVar

import torch

from moeframe_builtin.features.space import (
    TO_RGB,
    Extracted,
    FileSpace,
    Rgb,
    SpaceSettings,
    WeightsFile,
    why_no_weights,
)
from moeframe_builtin.features.users_own import rows_of


class TorchScript(FileSpace):
    """A TorchScript module by path, named by its file and hash: it takes RGB in [0, 1] and returns (n, features)."""

    KEY: ClassVar[str] = "torchscript"
    USES: ClassVar[frozenset[str]] = frozenset({"weights"})
    NEEDS_WEIGHTS: ClassVar[bool] = True

    @classmethod
    def unavailable(cls, settings: SpaceSettings) -> str | None:
        """The file."""
        if settings.weights is None:
            return "features 'torchscript' need weights: PATH, the file of the network"
        return why_no_weights(settings.weights, "save the module there with torch.jit.save")

    @property
    def name(self) -> str:
        """The file's name and the first digits of its hash."""
        return f"{self._file.path.stem} ({self.weights_sha256[:8]})"

    @property
    def what(self) -> str:
        """The user's module."""
        return f"TorchScript module {self._file.path.name}"

    @property
    def preprocessing(self) -> str:
        """The module does anything else itself."""
        return f"{TO_RGB}; divided by 255; the module resizes and normalises by itself if at all"

    def extract(self, images: Rgb) -> Extracted:
        """Features only. Raises UnavailableError when the module does not take or return what it should."""
        return rows_of(self._network, images, self.what, self.device)

    @cached_property
    def _file(self) -> WeightsFile:
        assert self.settings.weights is not None, "Config.conflicts and unavailable report this"
        return WeightsFile.read(self.settings.weights)

    @cached_property
    def _network(self) -> Any:
        # Any: a module may do anything
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch discourages TorchScript in some versions
                network = torch.jit.load(  # type: ignore[no-untyped-call]
                    io.BytesIO(self._file.content), map_location=self.device
                )
        except (RuntimeError, ValueError) as error:
            raise self._file.not_of("a TorchScript module", error) from error
        return network.eval()
