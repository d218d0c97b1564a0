"""The form in which a predictor computes: another computation, the same outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.kernels import operations
from effnetv2_tf.prediction.inference import inference_of


def _pixels(count: int = 3, side: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def _operations_of(infer) -> set[str]:
    """The kinds of operations of a traced function of pixels."""
    traced = tf.function(infer).get_concrete_function(tf.TensorSpec((None, 24, 24, 3), tf.uint8))
    functions = traced.graph.as_graph_def().library.function
    return {node.op for function in functions for node in function.node_def}


@pytest.mark.parametrize("count", [1, 3])
def test_a_network_of_this_package(tiny_network, count):
    model = tiny_network()
    np.testing.assert_allclose(
        inference_of(model)(_pixels(count)), model(_pixels(count)), rtol=1e-4, atol=1e-6
    )


def test_the_same_by_tensorflows_operations(tiny_network, without_kernels):
    model = tiny_network()
    infer = inference_of(model)
    np.testing.assert_allclose(infer(_pixels()), model(_pixels()), rtol=1e-4, atol=1e-6)
    assert not any(name.startswith("Effnetv2") for name in _operations_of(infer))


@pytest.mark.skipif(not operations.in_use(), reason="there are no compiled operations")
def test_compiled_operations_are_used(tiny_network):
    assert "Effnetv2InferenceConv3x3" in _operations_of(inference_of(tiny_network()))


def test_the_weights_are_those_that_the_model_had(tiny_network):
    model = tiny_network()
    expected = model(_pixels()).numpy()
    infer = inference_of(model)
    model.set_weights([2 * weight for weight in model.get_weights()])
    np.testing.assert_allclose(infer(_pixels()), expected, rtol=1e-4, atol=1e-6)


def test_mixed_precision_is_computed_in_float32(tiny_network):
    expected = inference_of(model := tiny_network())(_pixels())
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        mixed = tiny_network()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    mixed.set_weights(model.get_weights())
    np.testing.assert_allclose(inference_of(mixed)(_pixels()), expected, rtol=1e-5)


def test_any_other_model_is_called_as_it_is(classifier):
    np.testing.assert_array_equal(inference_of(classifier)(_pixels()), classifier(_pixels()))


def test_a_model_for_one_batch_size(classifier):
    image = keras.Input(batch_shape=(2, 24, 24, 3))
    model = keras.Model(image, classifier(image))
    np.testing.assert_array_equal(inference_of(model)(_pixels(2)), model(_pixels(2)))
