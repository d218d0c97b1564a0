"""What the tests of compiled operations share."""

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import keras_compat


@pytest.fixture(scope="session")
def assert_near():
    """Compares named arrays, each within a part of its largest value: roundings differ."""

    def compare(names, found, expected, tolerance):
        for name, a, b in zip(names, found, expected, strict=True):
            assert a.shape == b.shape
            worst = np.abs(a - b).max(initial=0.0) / max(np.abs(b).max(initial=0.0), 1e-3)
            assert worst < tolerance, f"{name}: {worst:.2g} of the largest value apart"

    return compare


def _images_of(shape, seed=0):
    return np.random.default_rng(seed).normal(0.3, 1.0, shape).astype("float32")


def _operations_of(function, *inputs):
    graph = function.get_concrete_function(*inputs).graph
    return [operation.type for operation in graph.get_operations()]


@pytest.fixture(scope="session")
def images_of():
    """Random images, by shape and seed."""
    return _images_of


@pytest.fixture(scope="session")
def operations_of():
    """The types of the operations of a function's graph, by function and inputs."""
    return _operations_of


@pytest.fixture(scope="session")
def fill():
    """Builds a layer for some channels and gives it random weights."""

    def build(layer, channels):
        layer.build((None, None, None, channels))
        random = np.random.default_rng(channels)
        layer.set_weights([random.normal(size=w.shape).astype("float32") for w in layer.weights])
        return layer

    return build


@pytest.fixture(scope="module")
def step(request):
    """Outputs, then gradients of the images and weights; without training by TensorFlow's.

    With training the module's OPERATION must be in the graph, without it must not.
    """

    def compute(layer, images, training):
        factors = _images_of(layer.compute_output_shape(images.shape), seed=1)

        @tf.function
        def run(images):
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = tf.reduce_sum((outputs := layer(images, training=training)) * factors)
            weights = map(keras_compat.tf_variable, layer.trainable_weights)
            return [outputs, *tape.gradient(loss, [images, *weights])]

        assert (request.module.OPERATION in _operations_of(run, images)) == training
        return [np.array(x) for x in run(tf.constant(images))]

    return compute


@pytest.fixture(scope="module")
def assert_same_bits(request, step):
    """Steps again and again: whoever works on which part, the sums' order does not change."""

    def compare(layer, images):
        first = step(layer, images, True)
        for _ in range(5):
            again = step(layer, images, True)
            for name, a, b in zip(request.module.NAMES, first, again, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=name)

    return compare


@pytest.fixture(scope="module")
def assert_is_keras_own(request):
    """Trains with TensorFlow's operation, whose numbers are those of Keras's layer."""

    def compare(layer, keras_layer):
        keras_layer.build((None, None, None, 4))
        keras_layer.set_weights(layer.get_weights())
        images = _images_of((2, 9, 9, 4))
        function = tf.function(lambda x: layer(x, training=True))
        assert request.module.OPERATION not in _operations_of(function, images)
        np.testing.assert_array_equal(function(images), keras_layer(images))

    return compare


@pytest.fixture(scope="module")
def assert_block_trains_with_it(request):
    """A block's step has gradients of the module's OPERATION, and nothing of what it replaces."""

    def check(block, recompute, replaced, count=1):
        block.build((None, None, None, 8))
        block.recompute = recompute

        @tf.function
        def run(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(block(images, training=True))
            return tape.gradient(loss, [keras_compat.tf_variable(block.trainable_weights[0])])

        types = _operations_of(run, _images_of((2, 8, 8, 8)))
        assert types.count(f"{request.module.OPERATION}Grad") == count
        assert replaced not in types

    return check
