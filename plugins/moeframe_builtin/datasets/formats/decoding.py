"""From the bytes of an image file to integer levels, with one stated way of cropping and resizing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from moeframe.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 0x0112
"""EXIF tag."""
PLAIN_MODES = ("1", "L", "RGB")
"""Of Pillow: bilevel, grey, colour. Other modes need a conversion that the user must choose."""
OtherModes = Literal["error", "convert"]
EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Of files that are taken for images; not .gif, whose palette of 256 colours has lost what a photograph had."""


@dataclass(frozen=True)
class ImageDecoder:
    """Decodes to a square of `size` pixels: central square, then PIL's LANCZOS (antialiased)."""

    size: int
    channels: Literal[1, 3] = 3
    source_size: tuple[int, int] | None = None
    """(width, height) that every image must have; any if None."""
    other_modes: OtherModes = "error"
    """What to do with an image that has a palette or transparency, or is in CMYK or the like."""

    def __call__(self, content: bytes, place: str) -> torch.Tensor:
        """Levels, (channels, size, size), uint8.

        Raises DataError naming the place of an image that is empty, damaged, deeper than 8 bits, of another size, or of
        another mode where those are not to be converted.
        """
        import numpy as np
        from PIL import Image

        image = _opened(content, place)
        self._expect_kind(image, place)
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # a palette goes to colours first: its transparency has no other conversion
        mode, size = "L" if self.channels == 1 else "RGB", (self.size, self.size)
        if image.mode != mode:
            image = image.convert(mode)
        width, height = image.size
        if width != height:  # at integer pixels: an image of the right size is cut and not blurred
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(image)).reshape(self.size, self.size, self.channels).permute(2, 0, 1)

    def _expect_kind(self, image: "Image.Image", place: str) -> None:
        if image.mode == "F" or image.mode.startswith("I"):
            raise _too_deep(place, image.mode)
        transparent = image.mode in PLAIN_MODES and "transparency" in image.info  # a colour that marks transparency
        if self.other_modes == "error" and (image.mode not in PLAIN_MODES or transparent):
            mode = f"{image.mode} with transparency" if transparent else image.mode
            raise DataError(
                f"image {place} is neither grey nor RGB (mode {mode}); convert it, or set "
                "dataset.other_modes: convert to drop transparency and convert colours as Pillow does"
            )
        if self.source_size is not None and image.size != self.source_size:
            found, wanted = (f"{width}x{height}" for width, height in (image.size, self.source_size))
            raise DataError(f"image {place} has {found} pixels, not {wanted} like the first one; replace it")

    def transformations(self) -> list[str]:
        """What is done to an image, in order, for a card."""
        untouched = self.source_size == (self.size, self.size)
        shrunk = "" if self.source_size else "; smaller images are enlarged"
        return [
            "of an animation or several pages the first; turned as the EXIF orientation says",
            "images that are neither grey nor RGB are an error"
            if self.other_modes == "error"
            else "transparency dropped, palettes and other colour spaces converted by Pillow",
            f"converted to 8-bit {'grey (PIL L, ITU-R 601)' if self.channels == 1 else 'RGB'}",
            *(
                ["neither cropped nor resized"]
                if untouched
                else [
                    "cropped to the central square",
                    f"resized to {self.size}x{self.size} with PIL LANCZOS (antialiased){shrunk}",
                ]
            ),
        ]


def _too_deep(place: str, mode: str) -> DataError:
    return DataError(f"image {place} has more than 8 bits per channel (mode {mode}); convert it to 8 bits")


def _opened(content: bytes, place: str) -> "Image.Image":
    """The first frame, turned as its EXIF orientation says. Raises DataError naming the place."""
    import io

    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise DataError(f"image {place} is empty (0 bytes); replace or delete it")
    try:
        with Image.open(io.BytesIO(content)) as file:
            stored = [str(tile[3]) for tile in getattr(file, "tile", [])]  # Pillow shortens RGB of 16 bits silently
            deep = next((mode for mode in stored if ";16" in mode), None)
            if deep and not file.mode.startswith("I"):
                raise _too_deep(place, deep)
            file.load()
            turned = file.getexif().get(ORIENTATION, 1) != 1
            return ImageOps.exif_transpose(file) if turned else file
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"image {place} is not in an image format that Pillow reads; replace or delete it") from None
    except Exception as cause:  # decoders raise nearly anything on corrupt bytes
        raise DataError(
            f"image {place} cannot be decoded ({type(cause).__name__}: {cause}); replace or delete it"
        ) from cause
