"""The photographs of scikit-image that small data sets are cropped from, decoded once per process."""

import functools

from PIL import Image
from skimage import data


@functools.cache
def photographs() -> tuple[Image.Image, ...]:
    """Four colour photographs; crop or resize them, which leaves them as they are."""
    return tuple(Image.fromarray(photo()) for photo in (data.astronaut, data.coffee, data.chelsea, data.rocket))
