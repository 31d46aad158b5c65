"""CelebA-HQ: 30,000 aligned faces with 40 attributes each, in the layout of CelebAMask-HQ."""

import hashlib
import io
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from moeframe.errors import DataError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.dataset import Split
from moeframe_builtin.datasets.formats.archive import FolderReader, Reader, open_reader
from moeframe_builtin.datasets.formats.celeba_lists import (
    PARTS,
    AttributeList,
    CelebAMapping,
    CelebAPartition,
    Part,
    join,
    parse_attributes,
    parse_mapping,
    parse_partition,
)
from moeframe_builtin.datasets.formats.decoding import ImageDecoder
from moeframe_builtin.datasets.formats.encoded import EncodedDataset, EncodedExamples

ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
PARTITION = "list_eval_partition.txt"
CELEBAMASK_HQ = "https://github.com/switchablenorms/CelebAMask-HQ"
CELEBA = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
HOW_TO_GET = f"get CelebAMask-HQ ({CELEBAMASK_HQ}) and put it there, or set dataset.root"
WHERE_TO_GET = {
    ATTRIBUTES: f"it comes with CelebAMask-HQ ({CELEBAMASK_HQ}): put it there",
    MAPPING: f"it comes with CelebAMask-HQ ({CELEBAMASK_HQ}): put it there",
    PARTITION: f"it belongs to CelebA ({CELEBA}): put it there, or set dataset.partition to where it is",
}

EXTENSIONS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
NUMBER = re.compile("[0-9]{1,9}")
OFFICIAL_SIZES: dict[Part, int] = {"train": 24_183, "validation": 2_993, "test": 2_824}


@dataclass(frozen=True)
class TextFile:
    """One of the three text files."""

    place: str
    content: bytes

    def text(self) -> str:
        """The text of the file. Raises DataError if it is not UTF-8 (these files are ASCII)."""
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError as cause:
            raise DataError(f"{self.place} is not a text file ({cause}); download it again") from cause


@dataclass(frozen=True)
class Lists:
    """What the text files say."""

    attributes: AttributeList
    mapping: CelebAMapping
    partition: CelebAPartition


def size_in_header(content: bytes, place: str) -> tuple[int, int]:
    """(width, height) in pixels as the header says; nothing is decoded. Raises DataError naming the place."""
    from PIL import Image

    if not content:
        raise DataError(f"image {place} is empty (0 bytes); download it again")
    try:
        with Image.open(io.BytesIO(content)) as file:
            return file.size
    except Exception as cause:  # Pillow raises nearly anything on corrupt bytes
        raise DataError(
            f"image {place} has no header that Pillow can read ({type(cause).__name__}); download it again"
        ) from (cause)


class CelebAHq(EncodedDataset):
    """CelebA-HQ, aligned faces of 1024x1024 or 256x256 pixels with 40 attributes, split as CelebA is."""

    class Config(EncodedDataset.Config):
        type: Literal["celeba_hq"] = "celeba_hq"
        root: Path = Field(
            description="CelebAMask-HQ as a folder, or its .zip: faces named by number, and anywhere in it (or beside "
            f"the .zip) {ATTRIBUTES}, {MAPPING} and {PARTITION}"
        )
        partition: Path | None = Field(
            default=None, description=f"{PARTITION} of CelebA, if it is outside root; CelebAMask-HQ lacks it"
        )
        size: int = Field(default=256, ge=8, le=1024, description="pixels a side that faces are shrunk to")
        verify: bool = Field(default=True, description="refuse other than 30,000 faces in the official split")

    config: Config

    @property
    def decoder(self) -> ImageDecoder:
        """RGB, shrunk from the common size of all faces. Raises DataError when no face can be read."""
        return ImageDecoder(self.config.size, 3, (self._source_size, self._source_size), self.config.other_modes)

    @property
    def image(self) -> ImageShape:
        """Three channels, square, 8 bits; known without reading a face."""
        return ImageShape(channels=3, height=self.config.size, width=self.config.size, levels=256)

    def provenance(self) -> dict[str, Any]:
        """Where the faces come from, on which terms, and how they are split."""
        validation = self._sizes["validation"]
        return {
            "source": "CelebA-HQ (T. Karras, T. Aila, S. Laine, J. Lehtinen: Progressive growing of GANs, 2018), made "
            "from CelebA (Z. Liu, P. Luo, X. Wang, X. Tang: Deep learning face attributes in the wild, 2015), "
            f"{CELEBA}; files as CelebAMask-HQ has them (C.-H. Lee, Z. Liu, L. Wu, P. Luo: MaskGAN, 2020), "
            f"{CELEBAMASK_HQ}; photographs of well-known persons, collected from the web",
            "licence": "non-commercial research only, as the authors of CelebA, CelebA-HQ and CelebAMask-HQ state; "
            "they do not own the photographs",
            "split_rule": f"CelebA's own, by {PARTITION} through {MAPPING}; its validation part, {validation} images, "
            "is left out"
            + ("" if self.config.verify else "; sizes not compared with the official ones (verify: false)"),
            "validation_images_left_out": validation,
            "labels": "none (all 'face')",
            "attributes": f"{ATTRIBUTES}, 1 present, -1 absent: {', '.join(self._lists.attributes.names)}",
        }

    def source_transformations(self) -> list[str]:
        """What CelebA-HQ's authors did, and the resulting files."""
        formats = sorted({EXTENSIONS[Path(name).suffix.lower()] for name in self._faces.values()})
        size = f"{self._source_size}x{self._source_size}"
        return [
            "by the source: aligned, cropped and super-resolved by Karras et al. 2018 (Progressive Growing of GANs); "
            "moeframe aligns nothing",
            f"{' and '.join(formats)} of {size}",
        ]

    def files(self) -> dict[str, str]:
        """The hash over the faces of each split, and that of each text file."""
        texts = {
            f"{name}: SHA-256": hashlib.sha256(file.content).hexdigest() for name, file in self._text_files.items()
        }
        return {**super().files(), **texts}

    def listed(self) -> dict[Split, EncodedExamples]:
        """The train and the test faces in order of their number.

        Raises DataError for files that are missing, do not fit each other, or with `verify` are not the official ones.
        """
        faces = self._faces
        parts = self._parts
        if self.config.verify and self._sizes != OFFICIAL_SIZES:
            found, official = (
                f"{sum(sizes.values())} images ({', '.join(f'{n} {part}' for part, n in sizes.items())})"
                for sizes in (self._sizes, OFFICIAL_SIZES)
            )
            raise DataError(
                f"celeba_hq: {self._root} has {found}, not the official {official}; complete it, "
                "or set dataset.verify: false if it differs on purpose"
            )
        members: dict[Split, list[int]] = {
            "train": [index for index in faces if parts[index] == "train"],
            "test": [index for index in faces if parts[index] == "test"],
        }
        return {split: self._examples(indices) for split, indices in members.items()}

    def _examples(self, indices: list[int]) -> EncodedExamples:
        names = self._lists.attributes.names
        rows = [self._lists.attributes.values[index] for index in indices]
        table = torch.tensor(rows, dtype=torch.float64).reshape(len(indices), len(names))
        return EncodedExamples(
            self._reader,
            [self._faces[index] for index in indices],
            self.decoder,
            label_names=("face",),
            attributes={name: table[:, column] for column, name in enumerate(names)},
        )

    @property
    def _root(self) -> Path:
        return self.config.root.expanduser()

    @cached_property
    def _reader(self) -> Reader:
        if not self._root.exists():
            raise DataError(f"celeba_hq: root {self._root} does not exist; {HOW_TO_GET}")
        return open_reader(self._root, self.name())

    @cached_property
    def _file_names(self) -> list[str]:
        return list(self._reader.names())

    @cached_property
    def _faces(self) -> dict[int, str]:
        """File of each CelebA-HQ index, in order of the index."""
        faces: dict[int, str] = {}
        for name in self._file_names:
            path = Path(name)
            if path.suffix.lower() not in EXTENSIONS or not NUMBER.fullmatch(path.stem):
                continue
            index = int(path.stem)
            if index in faces:
                places = " and ".join(self._reader.place(face) for face in (faces[index], name))
                raise DataError(f"celeba_hq: two images have the number {index}: {places}; keep one of them below root")
            faces[index] = name
        if not faces:
            raise DataError(
                f"celeba_hq: {self._root} holds no images named by number, such as 0.jpg or 00000.png; {HOW_TO_GET}"
            )
        return dict(sorted(faces.items()))

    @cached_property
    def _source_size(self) -> int:
        """Pixels a side of the first face; with on_corrupt: skip, of the first whose header can be read."""
        for name in self._faces.values():
            place = self._reader.place(name)
            try:
                width, height = size_in_header(self._reader.read(name), place)
            except DataError:
                if self.config.on_corrupt == "error":
                    raise
                continue
            if width != height:
                raise DataError(
                    f"image {place} has {width}x{height} pixels; the faces of CelebA-HQ are square: download it again"
                )
            if width < self.config.size:
                raise DataError(
                    f"image {place} has {width}x{height} pixels, fewer than dataset.size: {self.config.size}; nothing "
                    f"is enlarged: set dataset.size to {width} or less, or get the faces of 1024x1024"
                )
            return width
        raise DataError(
            f"celeba_hq: none of the {len(self._faces)} images of {self._root} can be read; download them again"
        )

    @cached_property
    def _text_files(self) -> dict[str, TextFile]:
        return {name: self._text_file(name) for name in WHERE_TO_GET}

    def _text_file(self, name: str) -> TextFile:
        given = self.config.partition
        if name == PARTITION and given is not None:
            given = given.expanduser()
            if not given.is_file():
                raise DataError(
                    f"celeba_hq: dataset.partition {given} is not a file; it is {PARTITION} of CelebA ({CELEBA})"
                )
            found: list[tuple[Reader, str]] = [(FolderReader(given.parent), given.name)]
        else:
            found = [(self._reader, path) for path in self._file_names if path.split("/")[-1] == name]
            if self._root.is_file() and (self._root.parent / name).is_file():
                found.append((FolderReader(self._root.parent), name))
        if not found:
            where = f"in {self._root} or beside it" if self._root.is_file() else f"in {self._root}"
            raise DataError(f"celeba_hq: there is no {name} {where}; {WHERE_TO_GET[name]}")
        if len(found) > 1:
            places = " and ".join(reader.place(path) for reader, path in found)
            raise DataError(f"celeba_hq: there are {len(found)} files {name}: {places}; keep one of them")
        reader, path = found[0]
        return TextFile(reader.place(path), reader.read(path))

    @cached_property
    def _lists(self) -> Lists:
        attributes, mapping, partition = (self._text_files[name] for name in (ATTRIBUTES, MAPPING, PARTITION))
        return Lists(
            parse_attributes(attributes.text(), attributes.place),
            parse_mapping(mapping.text(), mapping.place),
            parse_partition(partition.text(), partition.place),
        )

    @cached_property
    def _parts(self) -> dict[int, Part]:
        """The part of each face. Raises DataError where faces and lists do not match."""
        faces, (attributes, mapping) = self._faces, (self._lists.attributes, self._lists.mapping)
        for index, line in attributes.lines.items():
            if index not in faces:
                raise DataError(
                    f"{attributes.place}:{line}: there is no image of number {index} in {self._root}, which has "
                    f"{len(faces)} images for {len(attributes.lines)} lines; add the image, or remove the line and "
                    "fix the count"
                )
        for listing in (attributes, mapping):
            lacking = [index for index in faces if index not in listing.lines]
            if lacking:
                raise DataError(
                    f"{listing.place} has no line for {len(lacking)} of the {len(faces)} images, the first is "
                    f"{self._reader.place(faces[lacking[0]])}; download the file again, or remove "
                    "images that are not CelebA-HQ's"
                )
        parts = join(mapping, self._lists.partition)
        return {index: parts[index] for index in faces}

    @cached_property
    def _sizes(self) -> dict[Part, int]:
        """Number of faces in each part."""
        counts = Counter(self._parts.values())
        return {part: counts[part] for part in PARTS}
