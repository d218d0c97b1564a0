"""Losses of classifiers by name, and the metrics that go with them."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat


@keras_compat.register_serializable("effnetv2_tf")
class SharedLabelsCrossentropy(keras.losses.CategoricalCrossentropy):  # type: ignore[misc]
    """Softmax cross-entropy for any number of labels: they share a sum of 1 equally.

    As EfficientNetV2 is trained on ImageNet-21k (arXiv 2104.00298, section 5.2). An image
    without any label adds nothing but what label smoothing makes of it.

    `y_true` is multi-hot, of shape (batch, classes), `y_pred` probabilities likewise.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = tf.cast(y_true, y_pred.dtype)
        total = tf.reduce_sum(y_true, axis=-1, keepdims=True)
        return super().call(tf.math.divide_no_nan(y_true, total), y_pred)


def loss_and_metrics(
    name: Literal["softmax", "sigmoid"], label_smoothing: float, classes: int, multi_label: bool
) -> tuple[keras.losses.Loss, list[keras.metrics.Metric]]:
    """What to compile a classifier with.

    Args:
      name: `"softmax"`: cross-entropy of a distribution over the classes, see
        `SharedLabelsCrossentropy` for several labels; `"sigmoid"`: binary cross-entropy, the
        mean over the classes.
      label_smoothing: share of the labels that is spread evenly.
      classes: their number.
      multi_label: whether an image may have any number of labels.

    Returns:
      The loss, of probabilities, and the metrics; the first is `accuracy`, the share of images
      whose likeliest class is a true one.
    """
    if name == "sigmoid" or multi_label:
        metrics = [keras.metrics.Precision(top_k=1, thresholds=0.0, name="accuracy")]
    else:
        metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
        if classes > 5:
            metrics.append(keras.metrics.TopKCategoricalAccuracy(5, name="top_5_accuracy"))
    if name == "sigmoid":
        loss = keras.losses.BinaryCrossentropy(label_smoothing=label_smoothing)
    elif multi_label:
        loss = SharedLabelsCrossentropy(label_smoothing=label_smoothing)
    else:
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)
    return loss, metrics
