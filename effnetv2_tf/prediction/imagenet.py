"""ImageNet-1k's classes, and the likeliest of them in a network's outputs."""

from __future__ import annotations

import importlib.resources
from typing import Any

import numpy as np

_COUNT = 1000


def imagenet_class_names() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1k by index, each name once.

    A class is a synset of WordNet 3.0 (Princeton University), and classes are counted in the
    order of the synsets' numbers. The name is the synset's first word, or a longer one of its
    words where that is clearer (`tabby cat` for `tabby`). Where two synsets share their word,
    parentheses tell them apart (`crane (bird)`, `crane (machine)`).
    """
    return tuple(name for _, name in _classes())


def decode_predictions(predictions: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """The likeliest ImageNet-1k classes of each image, likeliest first.

    As keras.applications', but with this package's class names, see `imagenet_class_names`, and
    nothing is downloaded.

    Args:
      predictions: (batch, 1000), probabilities or logits.
      top: how many classes of each image.

    Returns:
      For each image a list of (synset, class name, what `predictions` says of it).

    Raises:
      ValueError: for another shape, or a `top` that is not from 1 to 1000.
    """
    scores = np.asarray(predictions)
    if scores.ndim != 2 or scores.shape[1] != _COUNT:
        raise ValueError(
            f"`predictions` must be of ImageNet-1k's classes, (batch, {_COUNT}). Received: shape "
            f"{scores.shape}."
        )
    if not 1 <= top <= _COUNT:
        raise ValueError(f"`top` must lie in 1 to {_COUNT}. Received: top={top}.")
    classes = _classes()
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(*classes[index], float(image[index])) for index in indices]
        for image, indices in zip(scores, ranked, strict=True)
    ]


def _classes() -> tuple[tuple[str, str], ...]:
    """The synset and the name of every class, by index."""
    path = importlib.resources.files("effnetv2_tf") / "weights" / "imagenet_classes.txt"
    rows = (line.partition("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return tuple((synset, name) for synset, _, name in rows)
