"""Exact duplicates: images whose pixels are all equal, within a split and across the two."""

import hashlib

from moeframe.interfaces.dataset import Examples, in_batches


def pixel_digests(examples: Examples) -> list[bytes]:
    """A hash of the levels of each image, in order; labels play no part."""
    return [
        hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        for _, images in in_batches(examples, batch_size=1024)
        for image in images.short().numpy()
    ]


def exact_duplicates(train: Examples, test: Examples) -> dict[str, int]:
    """How many images repeat an earlier one of their split, and how many test images also stand in train."""
    of_train, of_test = pixel_digests(train), pixel_digests(test)
    in_train = set(of_train)
    return {
        "within_train": len(of_train) - len(in_train),
        "within_test": len(of_test) - len(set(of_test)),
        "test_images_in_train": sum(digest in in_train for digest in of_test),
    }
