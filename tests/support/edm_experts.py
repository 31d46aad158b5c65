"""Experts read from small pickles in the format of EDM."""

import pytest

from moeframe.errors import CheckpointError
from moeframe.interfaces.component import ImageShape
from moeframe_pretrained.edm.expert import EdmExpert

IMAGE = ImageShape(channels=3, height=8, width=8, levels=256)


def expert(path, image=IMAGE, **settings) -> EdmExpert:
    return EdmExpert(EdmExpert.Config(path=path, **settings), image=image)


def problem(path, image=IMAGE, **settings) -> str:
    with pytest.raises(CheckpointError) as error:
        expert(path, image, **settings)
    return str(error.value)
