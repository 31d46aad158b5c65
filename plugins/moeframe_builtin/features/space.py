"""Feature spaces: a network that maps an image to a vector, and its documentation.

Every space sees an image as a PNG file would hold it: 8 bits a channel, RGB.
"""

import hashlib
import importlib.util
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from moeframe.errors import UnavailableError
from moeframe.shapes import Levels

Rgb = UInt8[Tensor, "n 3 height width"]
"""Images of 8 bits a channel."""
Features = Float[Tensor, "n features"]
"""A row per image, float32 on the CPU unless said otherwise."""

HIGHEST_LEVEL = 255
TO_RGB = "levels scaled to 0..255 and rounded to 8 bits; grey repeated to RGB"


@dataclass(frozen=True)
class SpaceSettings:
    """Settings of a space beside its name; a space uses some of them (`FeatureSpace.USES`)."""

    weights: Path | None = None
    verify: bool = True
    input_size: int = 64
    module: str | None = None


@dataclass(frozen=True)
class Extracted:
    """Output of a network for n images: features, and class logits where it has them."""

    features: Features
    logits: Float[Tensor, "n classes"] | None = None


class FeatureSpace(ABC):
    """One feature space. Its construction reads nothing; the first `extract` loads the network."""

    KEY: ClassVar[str]
    """Its name in a spec."""
    USES: ClassVar[frozenset[str]]
    """The settings that the space uses; others must keep their default."""
    NEEDS_WEIGHTS: ClassVar[bool] = False

    def __init__(self, settings: SpaceSettings, device: torch.device):
        self.settings = settings
        self.device = device

    @classmethod
    def misused(cls, settings: SpaceSettings) -> Iterator[tuple[str, str]]:
        """Yield (setting, message) for each setting that this space does not use, or lacks."""
        for field in fields(settings):
            if field.name not in cls.USES and getattr(settings, field.name) != field.default:
                yield field.name, f"features '{cls.KEY}' take no {field.name}; leave it out"
        if cls.NEEDS_WEIGHTS and settings.weights is None:
            yield "weights", f"features '{cls.KEY}' need weights: PATH, the file of the network"

    @classmethod
    @abstractmethod
    def unavailable(cls, settings: SpaceSettings) -> str | None:
        """Why the network cannot be loaded here and what to do, or None; answers without loading or downloading."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The space in a unit or a table, such as "Inception"."""

    @property
    @abstractmethod
    def what(self) -> str:
        """Which layer of which network, trained on what."""

    @property
    @abstractmethod
    def preprocessing(self) -> str:
        """What happens to an image of 8 bits, RGB, before the network."""

    @property
    @abstractmethod
    def weights_sha256(self) -> str:
        """SHA-256 of the file that the weights come from."""

    @abstractmethod
    def extract(self, images: Rgb) -> Extracted:
        """Features of 8-bit images, each an image's own, whatever others share the batch (up to rounding).

        Raises UnavailableError when the weights are missing or of another network.
        """


def to_rgb(levels: Levels, n_levels: int) -> Rgb:
    """Images of `n_levels` levels as 8-bit RGB: round(255 level / (L - 1)). Raises UnavailableError for 2 channels."""
    if levels.shape[1] not in (1, 3):
        raise UnavailableError(
            f"feature networks see images of 1 or 3 channels, and these have {levels.shape[1]}; leave the metric out"
        )
    scaled = (levels.double() * HIGHEST_LEVEL / (n_levels - 1)).round().to(torch.uint8)
    return scaled.expand(-1, 3, -1, -1) if levels.shape[1] == 1 else scaled


def why_missing(packages: Iterable[str]) -> str | None:
    """Which of the packages of the extra `quality` are not installed and what to do, or None when all are."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed; pip install 'moeframe[quality]'" if missing else None


def why_no_weights(path: Path, get: str) -> str | None:
    """Why there is no file at `path` and how to `get` it, or None if it exists."""
    return None if path.is_file() else f"no weights at {shown(path)}; {get}; moeframe downloads nothing"


def shown(path: Path) -> str:
    """A path for a message, without the user's home."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, read once."""

    path: Path
    content: bytes
    sha256: str

    @classmethod
    def read(cls, path: Path) -> "WeightsFile":
        """The file. Raises UnavailableError when it cannot be read."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UnavailableError(f"weights {shown(path)} cannot be read: {error.strerror}") from error
        return cls(path, content, hashlib.sha256(content).hexdigest())

    def expect_published(self, name: str) -> None:
        """Raise UnavailableError unless the SHA-256 starts as the published file's `name` says: "...-6726825d.pth"."""
        stem = re.search(r"-([0-9a-f]{8})\.pth$", name)
        assert stem is not None, "torch.hub's way to name files"
        if not self.sha256.startswith(stem[1]):
            raise UnavailableError(
                f"weights {shown(self.path)} are not those of {name}: their SHA-256 is {self.sha256} and should begin "
                f"with {stem[1]}; get that file, or set verify: false to use these under their own hash"
            )

    def tensors(self, network: str) -> dict[str, Tensor]:
        """The weights by name; code that a pickle may hold is not run. Raises UnavailableError for anything else."""
        try:
            found = torch.load(io.BytesIO(self.content), weights_only=True, map_location="cpu")
        except Exception as error:  # a file that is not a pickle raises almost anything
            raise self.not_of(network, error) from error
        if not isinstance(found, dict):
            raise self.not_of(network, TypeError(f"it holds a {type(found).__name__}, not weights by name"))
        return found

    def not_of(self, network: str, reason: Exception) -> UnavailableError:
        """The error that these are not the weights of `network`."""
        first = str(reason).strip().split("\n")[0][:200]
        return UnavailableError(
            f"weights {shown(self.path)} (SHA-256 {self.sha256}) do not load as {network}: "
            f"{type(reason).__name__}: {first}; give the file of that network"
        )


class FileSpace(FeatureSpace):
    """A space whose network is read from one file."""

    @property
    @abstractmethod
    def _file(self) -> WeightsFile:
        """The file, read once. Raises UnavailableError when it cannot be read."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the file."""
        return self._file.sha256
