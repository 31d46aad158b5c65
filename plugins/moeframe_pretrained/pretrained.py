"""Shared by experts that load a checkpoint."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from moeframe.interfaces.expert import Expert


class PretrainedExpert(Expert):
    """An expert whose weights come from a file; a final class reads one family of checkpoints."""

    class Config(Expert.Config):
        path: Path = Field(description="the checkpoint; nothing is downloaded")
        licence: str | None = Field(default=None, description="of the weights, overrides what the family states")
        source: str | None = Field(default=None, description="where the weights come from, for the report")

    config: Config
    weights_sha256: str = ""
    """Set by the final class when it has read the file or files."""

    def family_licence(self) -> str:
        """The licence that the family's authors state for their checkpoints; 'not stated' where they do not."""
        return "not stated"

    def levels_at(self) -> str:
        """The pixel grid of the checkpoint's training data, in words."""
        return "bin centres, (2 i + 1) / L - 1"

    def architecture(self) -> Mapping[str, Any]:
        """The settings without those that name the file."""
        return {
            key: value
            for key, value in super().architecture().items()
            if key not in PretrainedExpert.Config.model_fields or key == "type"
        }

    def provenance(self) -> Mapping[str, str]:
        """Source, licence, path and hash of the weights."""
        licence = self.config.licence or self.family_licence()
        return {
            "source": self.config.source or "not stated",
            "licence": licence,
            "path": str(self.config.path),
            "pixel_grid": self.levels_at(),
            "weights_sha256": self.weights_sha256,
        }


def sha256_of(paths: list[Path]) -> str:
    """One hash over the contents of files, in the order given; of one file its plain SHA-256."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    return digest.hexdigest()
