"""Fashion-MNIST: 70,000 grey images of clothes, 28x28 pixels, in the idx files of its authors."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from moeframe.errors import DataError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Dataset, InMemoryExamples, Split
from moeframe_builtin.datasets.formats.idx_file import IdxFile, read_idx

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SIZE = 28
SPLITS: tuple[Split, ...] = ("train", "test")

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
KNOWN_PLACES = (Path("data"), DEBIAN_FOLDER)
"""Where the files are searched when no root is given."""

HOW_TO_GET = (
    "apt-get install dataset-fashion-mnist (Debian, Ubuntu), or put the four files of "
    "https://github.com/zalandoresearch/fashion-mnist (gzipped or not) into a folder and set dataset.root to it"
)


@dataclass(frozen=True)
class OfficialFile:
    """One of the four files: its name, its number of dimensions and, of the official one, the unzipped SHA-256."""

    name: str
    n_dims: int
    sha256_unzipped: str

    def find(self, folder: Path) -> Path | None:
        """The file in this folder, unzipped rather than gzipped (torchvision keeps both), or None."""
        places = (folder / self.name, folder / f"{self.name}.gz")
        return next((path for path in places if path.is_file()), None)


# Unzipped, so that every copy can be compared: Debian compresses the same content again, so its .gz hashes differ.
IMAGES: dict[str, OfficialFile] = {
    "train": OfficialFile(
        "train-images-idx3-ubyte", 3, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "test": OfficialFile(
        "t10k-images-idx3-ubyte", 3, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
}
LABELS: dict[str, OfficialFile] = {
    "train": OfficialFile(
        "train-labels-idx1-ubyte", 1, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "test": OfficialFile(
        "t10k-labels-idx1-ubyte", 1, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}
FILES = (*IMAGES.values(), *LABELS.values())


def folder_with_files(places: tuple[Path, ...]) -> Path:
    """The first of these places, or torchvision's folder below one, that holds a file of the data set."""
    for place in places:
        for folder in (place, place / "FashionMNIST" / "raw"):
            if any(file.find(folder) for file in FILES):
                return folder
    looked_in = ", ".join(str(place) for place in places)
    raise DataError(f"fashion_mnist: no idx files in {looked_in} (nor in FashionMNIST/raw below); {HOW_TO_GET}")


class FashionMnist(Dataset):
    """Fashion-MNIST, 28x28 grey, ten classes of clothes, from the official idx files."""

    class Config(Dataset.Config):
        type: Literal["fashion_mnist"] = "fashion_mnist"
        root: Path | None = Field(
            default=None,
            description="folder of the four idx files, or torchvision's root above FashionMNIST/raw; left out, data/ "
            f"and Debian's {DEBIAN_FOLDER} are looked into",
        )
        verify: bool = Field(default=True, description="refuse files that are not the official ones, by SHA-256")

    config: Config

    @property
    def image(self) -> ImageShape:
        """One channel of 28x28 pixels, 8 bits."""
        return ImageShape(channels=1, height=SIZE, width=SIZE, levels=256)

    def split(self, name: Split) -> InMemoryExamples:
        """The official train or test images, in the order of the files."""
        return self._splits[name]

    def card(self) -> dict[str, Any]:
        """Provenance of the images and the hash of each file."""
        return {
            "source": "Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf, 2017), https://github.com/zalandoresearch/"
            "fashion-mnist; photographs from the catalogue of Zalando",
            "licence": "MIT (Zalando SE, 2017)",
            "splits": {name: len(examples) for name, examples in self._splits.items()},
            "split_rule": "the official one, file by file"
            if self.config.verify
            else "as the files have it; not compared with the official ones (verify: false)",
            "levels": 256,
            "labels": "the kind of article",
            "transformations": [
                "by the source: trimmed, longer side subsampled to 28 pixels, sharpened, centred, inverted, 8-bit grey",
                "none by moeframe",
            ],
            "files": {
                file.path.name: {"sha256": file.sha256, "sha256_unzipped": file.sha256_unzipped}
                for file in self._files.values()
            },
        }

    @cached_property
    def _files(self) -> dict[str, IdxFile]:
        root = self.config.root
        folder = folder_with_files(KNOWN_PLACES if root is None else (root.expanduser(),))
        found = {file: file.find(folder) for file in FILES}
        if lacking := [file.name for file, path in found.items() if path is None]:
            raise DataError(f"fashion_mnist: {folder} lacks {', '.join(lacking)} (.gz or not); {HOW_TO_GET}")
        files = {file.name: read_idx(path, file.n_dims) for file, path in found.items() if path}
        if self.config.verify:
            for official in FILES:
                self._expect_official(official, files[official.name])
        return files

    @staticmethod
    def _expect_official(official: OfficialFile, file: IdxFile) -> None:
        if file.sha256_unzipped != official.sha256_unzipped:
            n = len(file.values)
            raise DataError(
                f"{file.path} ({n} examples) is not the official file: unzipped SHA-256 {file.sha256_unzipped}, "
                f"not {official.sha256_unzipped}; download it again, or set dataset.verify: false if "
                "it differs on purpose"
            )

    @cached_property
    def _splits(self) -> dict[Split, InMemoryExamples]:
        return {name: self._split(name) for name in SPLITS}

    def _split(self, name: Split) -> InMemoryExamples:
        images, labels = self._files[IMAGES[name].name], self._files[LABELS[name].name]
        height, width = images.values.shape[1:]
        if (height, width) != (SIZE, SIZE):
            raise DataError(
                f"{images.path} holds images of {height}x{width} pixels, not {SIZE}x{SIZE}; download it again"
            )
        if len(images.values) != len(labels.values):
            raise DataError(
                f"{labels.path} holds {len(labels.values)} labels for the {len(images.values)} images of "
                f"{images.path.name}; download both files again"
            )
        if len(labels.values) == 0:
            raise DataError(f"{images.path} holds no images; download it again")
        if (top := int(labels.values.max())) >= len(CLASSES):
            raise DataError(f"{labels.path} holds the label {top}; labels are 0..{len(CLASSES) - 1}: download it again")
        return InMemoryExamples(images.values.unsqueeze(1), labels.values.long(), CLASSES)
