"""Accuracy of a network on a data set, and which classes it takes for which."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Evaluation:
    """The result of one pass over a data set.

    Attributes:
      images: number evaluated.
      top_1: share whose likeliest class is a true one.
      top_5: share with a true class among the five likeliest.
      confusion: int64 (classes, classes): rows true, columns predicted; of multi-label
        data the first true class counts, and images without any are left out.
      seconds: of the pass, the first batch (tracing) left out.
      images_per_second: likewise; None if there was but one batch.
    """

    images: int
    top_1: float
    top_5: float
    confusion: np.ndarray
    seconds: float
    images_per_second: float | None


Infer = Callable[[tf.Tensor], tf.Tensor]


def evaluate(
    model: keras.Model, dataset: tf.data.Dataset, infer: Infer | None = None
) -> Evaluation:
    """Runs a network over batches (images, one-hot labels).

    Args:
      model: the network.
      dataset: of batches.
      infer: a faster form of the network, see `prediction.inference`; None for the network.

    Raises:
      ValueError: if the data set is empty.
    """
    predict = infer or tf.function(
        lambda images: model(images, training=False), reduce_retracing=True
    )
    classes = model.output_shape[-1]
    confusion = np.zeros((classes, classes), np.int64)
    top_1 = top_5 = images = timed = 0
    began = time.perf_counter()
    for number, (batch, labels) in enumerate(dataset):
        scores, truth = predict(batch).numpy(), labels.numpy()
        if number == 0:
            began = time.perf_counter()
        else:
            timed += len(scores)
        ranked = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        hits = np.take_along_axis(truth, ranked, axis=1) > 0
        top_1 += int(hits[:, 0].sum())
        top_5 += int(hits.any(axis=1).sum())
        labelled = truth.any(axis=1)
        np.add.at(confusion, (truth.argmax(axis=1)[labelled], ranked[labelled, 0]), 1)
        images += len(scores)
    if not images:
        raise ValueError("the evaluation split has no usable image")
    seconds = time.perf_counter() - began
    speed = timed / max(seconds, 1e-9) if timed else None
    return Evaluation(images, top_1 / images, top_5 / images, confusion, seconds, speed)
