"""A cell computes what its blocks say, at every size, and drops whole operations."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.genotypes import NASNET_A, OPERATIONS, Block, Cell
from effnetv2_tf.models.layers import NASNetCell
from effnetv2_tf.models.layers.cell_operations import CellOperations
from effnetv2_tf.models.layers.layer_chain import LayerChain

# Kernels' taps with their channels in and out, for 6 channels in and 4 out.
_POINTWISE = 6 * 4
_WEIGHTS = {
    "conv_1x1": _POINTWISE,
    "conv_3x3": 9 * 6 * 4,
    "dilated_conv_3x3": 9 * 6 * 4,
    "conv_1x3_3x1": 3 * 6 * 4 + 3 * 4 * 4,
    "conv_1x7_7x1": 7 * 6 * 4 + 7 * 4 * 4,
    "sep_conv_3x3": 9 * 6 + 6 * 4 + 9 * 4 + 4 * 4,
    "sep_conv_5x5": 25 * 6 + 6 * 4 + 25 * 4 + 4 * 4,
    "sep_conv_7x7": 49 * 6 + 6 * 4 + 49 * 4 + 4 * 4,
}


def cell(*blocks, outputs=None):
    return Cell(tuple(Block(*block) for block in blocks), outputs)


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


def chain(operation, filters=4, input_filters=6, stride=1):
    factory = CellOperations(filters, 0.9, 1e-3, False, "float32")
    return LayerChain(factory.layers(operation, input_filters, stride), name="chain")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations(operation, stride):
    """Shape, weights, and equality of the eager and the size-free graph."""
    layer = chain(operation, stride=stride)
    x = data(2, 9, 6, 6)
    y = layer(x)
    assert y.shape == (2, -(-9 // stride), -(-6 // stride), 4)
    assert tuple(layer.compute_output_shape(x.shape)) == tuple(y.shape)
    kernels = [w for w in layer.trainable_weights if "kernel" in keras_compat.variable_path(w)]
    # Pools and the identity keep channels, so here a projection follows.
    assert sum(int(np.prod(w.shape)) for w in kernels) == _WEIGHTS.get(operation, _POINTWISE)
    free = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 6))])
    np.testing.assert_allclose(free(x), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o not in _WEIGHTS])
def test_pools_and_the_identity_hold_no_weights(operation):
    factory = CellOperations(6, 0.9, 1e-3, False, "float32")
    layers = factory.layers(operation, 6, 1)
    assert len(layers) == (0 if operation == "identity" else 1)


@pytest.mark.parametrize("sides", [(6, 9), (7, 8), (1, 2), (12, 12)])
@pytest.mark.parametrize("operation", [o for o in OPERATIONS if "pool" in o])
def test_pools_with_a_stride_count_zeros(operation, sides):
    """As many as TensorFlow's "same" puts around a convolution."""
    x = data(2, *sides, 4) - 1
    window = int(operation[-1])
    padding = [(0, 0), *(((window - 2 + side % 2) // 2, window // 2) for side in sides), (0, 0)]
    padded = np.pad(x, padding)
    pool = tf.nn.avg_pool2d if operation.startswith("avg") else tf.nn.max_pool2d
    expected = pool(padded, window, 2, "VALID")
    actual = chain(operation, input_filters=4, stride=2)(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    ones = np.ones((window, window, 4, 1), "f")
    convolved = tf.nn.depthwise_conv2d(x, ones, [1, 2, 2, 1], "SAME")
    same = tf.nn.depthwise_conv2d(padded, ones, [1, 2, 2, 1], "VALID")
    np.testing.assert_allclose(same, convolved, rtol=1e-4, atol=1e-4)


def test_pools_without_a_stride_do_not():
    x = -np.ones((1, 4, 4, 4), "f")
    for operation in ("avg_pool_3x3", "max_pool_5x5"):
        assert (np.asarray(chain(operation, input_filters=4)(x)) == -1).all()


def test_blocks_add_and_unused_states_are_concatenated():
    layer = NASNetCell(
        cell(
            (0, "identity", 1, "max_pool_3x3"),
            (2, "identity", 2, "identity"),
            (1, "identity", 2, "identity"),
        ),
        filters=4,
        stride=1,
        input_filters=6,
        previous_filters=4,
    )
    x, previous = data(2, 5, 6, 6), data(2, 5, 6, 4, seed=1)
    actual = layer([x, previous])
    first = np.asarray(layer.project(x))
    pooled = keras.layers.MaxPooling2D(3, 1, padding="same")(previous)
    second = first + pooled
    expected = np.concatenate([second + second, previous + second], axis=-1)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert layer.align is None  # the second input fits as it is
    assert layer.output_filters == 8


@pytest.mark.parametrize("sides", [(8, 8), (7, 10)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("previous_size", ["same", "double", "unaligned"])
def test_every_way_to_align(previous_size, stride, sides):
    """Also where inputs are outputs and operations keep channels."""
    layer = NASNetCell(
        cell((0, "avg_pool_3x3", 1, "identity"), outputs=(0, 1, 2)),
        filters=4,
        stride=stride,
        input_filters=6,
        previous_filters=3,
        previous_size=previous_size,
    )
    factor = 2 if previous_size == "double" else 1
    older = [2 * side - side % 2 for side in sides] if factor == 2 else sides
    inputs = [data(2, *sides, 6), data(2, *older, 3)]
    outputs = layer(inputs)
    assert outputs.shape == (2, *(-(-side // stride) for side in sides), 12)
    assert tuple(layer.compute_output_shape([i.shape for i in inputs])) == tuple(outputs.shape)


def drop_rate_cell(rate):
    return NASNetCell(
        cell((0, "max_pool_3x3", 1, "max_pool_3x3"), (0, "identity", 1, "identity")),
        filters=2,
        stride=1,
        input_filters=2,
        previous_filters=2,
        drop_path_rate=rate,
    )


def test_drop_path_drops_each_operation_of_each_sample_on_its_own():
    layer = drop_rate_cell(0.25)
    count = 4000
    inputs = [np.ones((count, 1, 1, 2), "f"), np.ones((count, 1, 1, 2), "f")]
    layer.build([i.shape for i in inputs])
    layer.project.chain[1].kernel.assign(np.eye(2, dtype="f").reshape(1, 1, 2, 2))
    layer.project.chain[2].set_weights(
        [np.full(2, np.sqrt(1.001), "f"), *np.zeros((2, 2), "f"), np.ones(2, "f")]
    )
    layer.trainable = False  # the norms keep their statistics; operations are dropped all the same
    pools, identities = np.split(np.asarray(layer(inputs, training=True))[:, 0, 0], 2, axis=-1)
    np.testing.assert_allclose(identities, 2, rtol=1e-5)  # never dropped
    kept = np.round(pools[:, 0] * 0.75).astype(int)  # kept ones are scaled by 1 / 0.75
    np.testing.assert_allclose(kept / 0.75, pools[:, 0], rtol=1e-5)
    shares = np.bincount(kept, minlength=3) / count
    np.testing.assert_allclose(shares, [1 / 16, 6 / 16, 9 / 16], atol=0.03)
    np.testing.assert_allclose(layer(inputs, training=False)[:, 0, 0, 0], 2, rtol=1e-5)


def test_an_identity_that_changes_the_size_is_not_dropped():
    layer = NASNetCell(
        cell((0, "identity", 1, "identity")),
        filters=2,
        stride=2,
        input_filters=2,
        previous_filters=2,
        drop_path_rate=0.9,
    )
    inputs = [data(8, 4, 4, 2), data(8, 4, 4, 2)]
    layer(inputs)
    layer.trainable = False  # the norms keep their statistics
    np.testing.assert_allclose(layer(inputs, training=True), layer(inputs), rtol=1e-5, atol=1e-6)


def test_drop_path_rate_moves_without_a_new_trace():
    layer = drop_rate_cell(0.0)
    inputs = [tf.ones((64, 1, 1, 2)), tf.ones((64, 1, 1, 2))]
    layer(inputs)  # makes the variables
    layer.trainable = False  # or the norm would make zeros of equal inputs
    traces = []

    @tf.function
    def run():
        traces.append(1)
        return layer(inputs, training=True)[:, 0, 0, 0]

    assert np.ptp(run().numpy()) < 1e-6
    layer.set_drop_path_rate(0.5)
    assert np.ptp(run().numpy()) > 0.5
    assert len(traces) == 1 and layer.get_config()["drop_path_rate"] == 0.5


def test_config_round_trip():
    layer = NASNetCell(NASNET_A.reduction, 6, 2, 8, 12, "double", 0.1, 0.8, 1e-4, True, name="c")
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.cell == NASNET_A.reduction
    assert copy.get_config() == layer.get_config()


def test_variables_have_different_names():
    layer = NASNetCell(NASNET_A.normal, 4, 1, 6, 6, name="cell")
    keras_compat.build_within(layer, [(None, 8, 8, 6), (None, 8, 8, 6)])
    paths = [keras_compat.variable_path(weight) for weight in layer.weights]
    duplicates = [path for path, group in itertools.groupby(sorted(paths)) if len([*group]) > 1]
    assert not duplicates
    assert all(path.startswith("cell/") for path in paths)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 3}, "`stride` must be 1 or 2"),
        ({"previous_size": "half"}, "`previous_size` must be one of"),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    defaults = {"filters": 4, "stride": 1, "input_filters": 4, "previous_filters": 4}
    with pytest.raises(ValueError, match=message):
        NASNetCell(NASNET_A.normal, **{**defaults, **arguments})


def test_other_channels_than_said():
    layer = NASNetCell(NASNET_A.normal, 4, 1, 6, 6)
    with pytest.raises(ValueError, match=r"expected inputs with \(6, 6\) channels.*\(6, 5\)"):
        layer([data(1, 4, 4, 6), data(1, 4, 4, 5)])
