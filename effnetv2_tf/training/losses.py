"""Losses of classifiers by name, and the metrics that go with them."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf


def top_label_accuracy(y_true: Any, y_pred: Any) -> tf.Tensor:
    """1 where the likeliest class has the largest label of all, else 0; 0 without any label.

    Args:
      y_true: labels (batch, classes), of one class or several, mixed or not.
      y_pred: scores (batch, classes).
    """
    y_true = tf.convert_to_tensor(y_true)
    largest = tf.reduce_max(y_true, axis=-1)
    found = tf.gather(y_true, tf.argmax(y_pred, axis=-1), batch_dims=1)
    return tf.cast((found == largest) & (largest > 0), tf.float32)


def loss_and_metrics(
    name: Literal["softmax", "sigmoid"], label_smoothing: float, classes: int, multi_label: bool
) -> tuple[keras.losses.Loss, list[keras.metrics.Metric]]:
    """What to compile a classifier with.

    Args:
      name: `"softmax"`: cross-entropy of a distribution over the classes, which several labels
        must share (arXiv 2104.00298, section 5.2; see `TrainingPipeline.share_labels`);
        `"sigmoid"`: binary cross-entropy, the mean over the classes.
      label_smoothing: share of the labels that is spread evenly.
      classes: their number.
      multi_label: whether an image may have any number of labels.

    Returns:
      The loss, of probabilities, and the metrics; the first is `accuracy`, the share of images
      whose likeliest class is a true one.
    """
    if name == "sigmoid":
        loss = keras.losses.BinaryCrossentropy(label_smoothing=label_smoothing)
    else:
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)
    if multi_label:
        return loss, [keras.metrics.MeanMetricWrapper(top_label_accuracy, name="accuracy")]
    metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    if name == "softmax" and classes > 5:
        metrics.append(keras.metrics.TopKCategoricalAccuracy(5, name="top_5_accuracy"))
    return loss, metrics
