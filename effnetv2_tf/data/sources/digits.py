"""The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from effnetv2_tf.data.sources.arrays import ArraySource
from effnetv2_tf.data.sources.base import check_choice

SPLITS = ("train", "test")
TEST_SHARE = 0.2
SPLIT_SEED = 0  # fixed: everybody's test images are the same
MAX_INK = 16  # the data set counts the set pixels of 4x4 blocks


class DigitsSource(ArraySource):
    """scikit-learn's `load_digits`: uint8 [8, 8, 1], ten classes.

    Args:
        split: "train" (1,437 images) or "test" (360), stratified by class, always the same.
        shard: (index, count) of this worker, see `Source`.

    Raises:
        DataError: if `split` is unknown.
    """

    def __init__(self, split: str, *, shard: tuple[int, int] = (0, 1)) -> None:
        check_choice("split", split, SPLITS, path="digits")
        images, labels = _load()
        chosen = _split_indices(labels)[split]
        super().__init__(
            images[chosen],
            labels[chosen],
            class_names=[str(digit) for digit in range(10)],
            name=f"digits/{split}",
            shard=shard,
        )


def digits_splits() -> tuple[str, ...]:
    """Names of the splits."""
    return SPLITS


def _load() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # only here: importing it takes a second

    data = load_digits()
    return np.rint(data.images * (255 / MAX_INK)).astype(np.uint8), data.target


def _split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED
    )
    return {"train": np.sort(train), "test": np.sort(test)}
