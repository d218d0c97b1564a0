"""Fashion-MNIST: 60,000 + 10,000 grayscale images of clothes, 28x28 (Xiao et al. 2017)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from effnetv2_tf.data.sources.arrays import ArraySource
from effnetv2_tf.data.sources.base import DataError, check_choice
from effnetv2_tf.data.sources.idx import read_idx

DEFAULT_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")  # where Debian puts it
CLASS_NAMES = (
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
FILES = {  # split -> (images, labels); each may also end in .gz
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SPLITS = ("train", "validation", "test")


class FashionMnistSource(ArraySource):
    """Fashion-MNIST from its four IDX files: uint8 [28, 28, 1], ten classes.

    Args:
        split: "train", "test", or "validation" for the images that `validation_examples` set apart.
        directory: folder of the IDX files, gzipped or not; by default the one of Debian's package
            dataset-fashion-mnist.
        validation_examples: how many images, the last of the training files, to take out of
            "train" and to give to "validation".
        train_examples: how many of the remaining images, the first ones, "train" has; None for all.
        shard: (index, count) of this worker, see `Source`.

    Raises:
        DataError: if a file is missing, truncated or not IDX, or an argument is impossible.
    """

    def __init__(
        self,
        split: str,
        directory: str | Path | None = None,
        *,
        validation_examples: int = 0,
        train_examples: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        check_choice("split", split, SPLITS, path="fashion_mnist")
        folder = DEFAULT_DIRECTORY if directory is None else Path(directory)
        images, labels = _load(folder, "test" if split == "test" else "train")
        if split != "test":
            chosen = _training_part(split, len(images), validation_examples)
            images, labels = images[chosen], labels[chosen]
        if split == "train" and train_examples is not None:
            if not 1 <= train_examples <= len(images):
                raise DataError(
                    "impossible train_examples",
                    expected=f"1 .. {len(images)}",
                    received=str(train_examples),
                    path="fashion_mnist",
                )
            images, labels = images[:train_examples], labels[:train_examples]
        super().__init__(images, labels, CLASS_NAMES, f"fashion_mnist/{split}", shard=shard)


def fashion_mnist_splits(validation_examples: int = 0, **others: Any) -> tuple[str, ...]:
    """Names of the splits for these options of `FashionMnistSource`."""
    return SPLITS if validation_examples else ("train", "test")


def _training_part(split: str, num_images: int, validation_examples: int) -> slice:
    least = 1 if split == "validation" else 0
    if not least <= validation_examples < num_images:
        raise DataError(
            "impossible validation_examples",
            expected=f"{least} .. {num_images - 1} for split {split!r}",
            received=str(validation_examples),
            path="fashion_mnist",
            suggestion="validation images are taken from the end of the training images",
        )
    boundary = num_images - validation_examples
    return slice(None, boundary) if split == "train" else slice(boundary, None)


def _load(directory: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    image_path, label_path = (_find(directory, name) for name in FILES[split])
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if len(images) != len(labels):
        raise DataError(
            "numbers of images and labels differ",
            expected=f"{len(images)} labels, as in {image_path.name}",
            received=str(len(labels)),
            path=label_path,
        )
    return images, labels


def _find(directory: Path, name: str) -> Path:
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    wanted = ", ".join(name for pair in FILES.values() for name in pair)
    raise DataError(
        "Fashion-MNIST is not here",
        expected=f"the files {wanted} (each may end in .gz)",
        received=f"no {name}" if directory.is_dir() else "no such folder",
        path=directory,
        suggestion="apt install dataset-fashion-mnist, or set directory to the folder of the files",
    )
