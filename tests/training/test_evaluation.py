"""What a network is evaluated at, and what an evaluation tells."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.search.step_time import measured_batch
from effnetv2_tf.training.build import build_schedule, evaluation_size
from effnetv2_tf.training.evaluation import evaluate
from effnetv2_tf.training.resolution_sweep import training_size


@pytest.mark.parametrize(
    ("progressive", "eval_size", "expected"),
    [
        ({"image_size": [16, 36], "size_multiple": 8}, None, 40),
        ({"image_size": [16, 36], "size_multiple": 8}, 36, 36),
        ({"image_size": [16, 36]}, None, 36),
        ({"image_size": [16, 36], "image_sizes": [16, 27], "size_multiple": 8}, None, 24),
    ],
)
def test_the_default_size_is_the_one_of_the_last_stage(
    make_recipe, progressive, eval_size, expected
):
    recipe = make_recipe(
        {"source": "digits", "eval_size": eval_size},
        progressive={"stages": 2, **progressive},
        training={"epochs": 2},
    )
    assert evaluation_size(recipe) == expected
    trained = build_schedule(recipe, 1437).stages[-1].image_size
    assert training_size(recipe) == trained
    assert measured_batch(recipe) == (4, trained)


def test_images_without_a_label_are_of_no_class():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
    scores = np.eye(3, dtype="float32")
    labels = np.array([[0, 1, 1], [0, 0, 0], [0, 0, 1]], "float32")
    found = evaluate(model, tf.data.Dataset.from_tensor_slices((scores, labels)).batch(2))
    np.testing.assert_array_equal(found.confusion, [[0, 0, 0], [1, 0, 0], [0, 0, 1]])
    assert (found.images, found.top_1) == (3, pytest.approx(1 / 3))


@pytest.mark.parametrize(("batch_size", "timed"), [(8, False), (5, True)])
def test_a_single_batch_tells_no_speed(batch_size, timed):
    """The first is not timed: it includes tracing."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
    rows = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 1]]
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 1, 0]]
    dataset = tf.data.Dataset.from_tensor_slices((rows, labels)).batch(batch_size)
    result = evaluate(model, dataset)
    assert (result.images, result.top_1, result.top_5) == (8, 0.75, 1.0)
    assert result.confusion.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 2]]
    assert (result.images_per_second is not None) == timed
    assert result.images_per_second is None or result.images_per_second > 0
