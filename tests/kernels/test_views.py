"""Compiled changes of shape, in the layer that has them."""

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers import PointwiseConv2D

pytestmark = pytest.mark.usefixtures("compiled")


def step(layer, images, training):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=training)
        loss = tf.reduce_sum(outputs**2)
    weights = map(keras_compat.tf_variable, layer.trainable_weights)
    return [outputs, *tape.gradient(loss, [images, *weights])]


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (7, 4), (0, 3, 5, 4), (1, 1, 1, 4)], ids=str)
def test_numbers_are_tensorflows(shape, in_graph):
    layer = PointwiseConv2D(6, use_bias=True, activation="silu")
    images = tf.random.stateless_normal(shape, (1, 2))
    layer(images)
    run = tf.function(step) if in_graph else step
    for a, b in zip(run(layer, images, True), run(layer, images, False), strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def graph_of(training, shape=(None, None, None, 4)):
    layer = PointwiseConv2D(6)
    layer.build(shape)
    call = tf.function(lambda x: layer(x, training=training))
    return call.get_concrete_function(tf.TensorSpec(shape)).graph


def test_shapes_are_known_as_far_as_they_are():
    assert graph_of(True).outputs[0].shape.as_list() == [None, None, None, 6]
    assert graph_of(True, (2, None, 5, 4)).outputs[0].shape.as_list() == [2, None, 5, 6]


def test_where_they_are_used():
    def uses(training):
        types = {operation.type for operation in graph_of(training).get_operations()}
        return {"Effnetv2AsRows", "Effnetv2ShapedAs"} <= types

    assert uses(True)
    assert not uses(False)  # an exported network must run without the library
    assert not uses(None)
