"""Small folders of CelebA-HQ and what the dataset says of them."""

from pathlib import Path

from moeframe_builtin.datasets.celeba_hq import CelebAHq

IMAGES = "CelebAMask-HQ/CelebA-HQ-img"


ATTRIBUTES = "CelebAMask-HQ/CelebAMask-HQ-attribute-anno.txt"


MAPPING = "CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt"


PARTITION = "list_eval_partition.txt"


def celeba_hq(root: Path, **settings) -> CelebAHq:
    return CelebAHq(CelebAHq.Config(root=root, **{"size": 16, "verify": False, **settings}))


def problem(root: Path, **settings) -> str:
    found = celeba_hq(root, **settings).missing()
    assert found is not None
    return found
