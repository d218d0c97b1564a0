"""Losses and metrics of one label and of several."""

import keras
import numpy as np
import pytest

from effnetv2_tf.training.losses import loss_and_metrics

PROBABILITIES = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25] * 4], "f")


def _accuracy(name, multi_label, labels, scores):
    accuracy = loss_and_metrics(name, 0.0, 4, multi_label)[1][0]
    assert accuracy.name == "accuracy"
    accuracy.update_state(np.array(labels, "f"), np.array(scores, "f"))
    return float(accuracy.result())


def test_labels_share_the_cross_entropy():
    labels = np.array([[0, 0.5, 0, 0.5], [1, 0, 0, 0], [0, 0, 0, 0]], "f")
    loss, _ = loss_and_metrics("softmax", 0.0, 4, multi_label=True)
    expected = -((np.log(0.2) + np.log(0.4)) / 2 + np.log(0.7)) / 3
    np.testing.assert_allclose(loss(labels, PROBABILITIES), expected, rtol=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_one_label_each_is_keras_own(multi_label):
    labels = np.eye(4, dtype="f")[[3, 0, 1]]
    expected = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)(labels, PROBABILITIES)
    loss, _ = loss_and_metrics("softmax", 0.1, 4, multi_label)
    np.testing.assert_allclose(loss(labels, PROBABILITIES), expected, rtol=1e-6)
    assert _accuracy("softmax", multi_label, labels[:2], PROBABILITIES[:2]) == 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_every_class_by_itself(multi_label):
    labels = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], "f")
    loss, _ = loss_and_metrics("sigmoid", 0.1, 4, multi_label)
    smooth = 0.9 * labels + 0.05
    each = smooth * np.log(PROBABILITIES) + (1 - smooth) * np.log(1 - PROBABILITIES)
    np.testing.assert_allclose(loss(labels, PROBABILITIES), -each.mean(), rtol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_the_likeliest_class_of_several_labels_counts(name):
    labels = [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert _accuracy(name, True, labels, PROBABILITIES) == pytest.approx(1 / 3)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_of_a_mixture_the_larger_part_counts(name, multi_label):
    labels = [[0.9, 0.1, 0, 0], [0.3, 0.7, 0, 0]]
    scores = [[0.1, 0.8, 0, 0.1], [0.1, 0.8, 0, 0.1]]
    assert _accuracy(name, multi_label, labels, scores) == 0.5


def test_five_likeliest_only_of_more_classes():
    names = [[m.name for m in loss_and_metrics("softmax", 0.1, n, False)[1]] for n in (5, 6)]
    assert names == [["accuracy"], ["accuracy", "top_5_accuracy"]]
