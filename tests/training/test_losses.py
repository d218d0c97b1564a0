"""Losses and metrics of one label and of several."""

import keras
import numpy as np
import pytest

from effnetv2_tf.training.losses import SharedLabelsCrossentropy, loss_and_metrics

PROBABILITIES = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25] * 4], "f")


def test_labels_share_the_cross_entropy():
    labels = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], "f")
    losses = SharedLabelsCrossentropy(reduction="none")(labels, PROBABILITIES)
    expected = [-(np.log(0.2) + np.log(0.4)) / 2, -np.log(0.7), 0]
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


def test_smoothing_comes_after_the_sharing():
    labels = np.array([[1, 1, 0, 0]], "f")
    loss, _ = loss_and_metrics("softmax", 0.2, 4, multi_label=True)
    expected = -(np.log(PROBABILITIES[0]) * [0.45, 0.45, 0.05, 0.05]).sum()
    np.testing.assert_allclose(loss(labels, PROBABILITIES[:1]), expected, rtol=1e-5)


def test_one_label_each_is_keras_own():
    labels = np.eye(4, dtype="f")[[3, 0, 1]]
    expected = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)(labels, PROBABILITIES)
    for multi_label in (False, True):
        loss, _ = loss_and_metrics("softmax", 0.1, 4, multi_label)
        np.testing.assert_allclose(loss(labels, PROBABILITIES), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_the_likeliest_class_of_several_labels_counts(name):
    _, (accuracy,) = loss_and_metrics(name, 0.0, 4, multi_label=True)
    accuracy.update_state(np.array([[0, 1, 0, 1], [0, 1, 1, 1]], "f"), PROBABILITIES[:2])
    assert accuracy.name == "accuracy"
    assert float(accuracy.result()) == 0.5


def test_five_likeliest_only_of_more_classes():
    names = [[m.name for m in loss_and_metrics("softmax", 0.1, n, False)[1]] for n in (5, 6)]
    assert names == [["accuracy"], ["accuracy", "top_5_accuracy"]]
