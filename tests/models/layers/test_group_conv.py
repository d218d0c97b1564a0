"""Group convolutions: every way to compute them against a block-diagonal dense kernel."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.keras_compat import tf_variable
from effnetv2_tf.models.layers import GroupConv2D, group_conv

WAYS = {"native": group_conv.convolve_natively, "split": group_conv.convolve_split}


def _values(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def _block_diagonal(kernel, groups):
    """The dense kernel (h, w, in, out) whose blocks off the diagonal are zero."""
    height, width, group_inputs, filters = kernel.shape
    outputs = filters // groups
    dense = np.zeros((height, width, group_inputs * groups, filters), np.float32)
    for g in range(groups):
        rows, columns = slice(g * group_inputs, None), slice(g * outputs, (g + 1) * outputs)
        dense[:, :, rows, columns][:, :, :group_inputs] = kernel[..., columns]
    return dense


def _diagonal_blocks(dense, groups):
    """The grouped kernel in a dense one: what `_block_diagonal` put there."""
    inputs, outputs = dense.shape[2] // groups, dense.shape[3] // groups
    blocks = [
        dense[:, :, g * inputs : (g + 1) * inputs, g * outputs : (g + 1) * outputs]
        for g in range(groups)
    ]
    return np.concatenate(blocks, axis=-1)


def _outputs_and_gradients(convolve, images, kernel):
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        outputs = convolve(images, kernel)
        loss = tf.reduce_sum(outputs * _values(*outputs.shape, seed=2))
    return outputs.numpy(), *(g.numpy() for g in tape.gradient(loss, [images, kernel]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("size", "channels", "filters", "groups", "stride", "padding"),
    [
        (3, 12, 12, 3, 1, "SAME"),
        (5, 8, 16, 2, 2, "SAME"),
        (3, 12, 6, 6, 2, "VALID"),
        (3, 40, 40, 2, 1, "SAME"),
    ],
)
def test_every_way_is_the_block_diagonal_convolution(
    way, size, channels, filters, groups, stride, padding
):
    best = group_conv.choose_convolution(groups, tf.float32)
    if way == "native" and best is not group_conv.convolve_natively:
        pytest.skip("no gradient of the native operation here: oneDNN is off")
    images = _values(2, 9, 10, channels)
    kernel = _values(size, size, channels // groups, filters, seed=1)
    found = _outputs_and_gradients(
        lambda x, k: WAYS[way](x, k, (stride, stride), padding), images, kernel
    )
    dense = tf.constant(_block_diagonal(kernel.numpy(), groups))
    expected = _outputs_and_gradients(
        lambda x, k: tf.nn.conv2d(x, k, stride, padding), images, dense
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-4)
    blocks = _diagonal_blocks(expected[2], groups)
    np.testing.assert_allclose(found[2], blocks, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_layer_is_keras_grouped_convolution(padding):
    options = {"strides": 2, "padding": padding, "use_bias": True, "activation": "relu"}
    ours = GroupConv2D(24, (3, 5), groups=4, **options)
    theirs = keras.layers.Conv2D(24, (3, 5), groups=4, **options)
    images = _values(2, 11, 12, 16)
    ours.build(images.shape)
    theirs.build(images.shape)
    weights = [_values(*weight.shape, seed=3).numpy() for weight in theirs.weights]
    assert [tuple(w.shape) for w in ours.weights] == [(3, 5, 4, 24), (24,)]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    np.testing.assert_allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    assert ours.compute_output_shape((None, 11, None, 16)) == (
        None,
        *ours(images).shape[1:2],
        None,
        24,
    )


def test_one_graph_for_images_of_any_size():
    layer = GroupConv2D(32, 3, group_size=16)
    layer.build((None, None, None, 32))
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 32))])
    def gradient(images):
        traces.append(images)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(images) ** 2)
        return tape.gradient(loss, tf_variable(layer.kernel))

    for size in (6, 9):
        assert np.abs(gradient(_values(2, size, size, 32))).max() > 0
    assert len(traces) == 1


def test_cpus_without_a_native_gradient_split(monkeypatch):
    """float64 has none, oneDNN or not; other types have it with oneDNN, see conftest."""
    monkeypatch.setattr(group_conv.keras_compat, "xla_is_worthwhile", lambda: False)
    assert group_conv.choose_convolution(2, tf.float64) is group_conv.convolve_split
    assert group_conv.choose_convolution(1, tf.float64) is group_conv.convolve_natively
    monkeypatch.setattr(group_conv, "_has_native_gradient", lambda dtype: dtype == "float32")
    assert group_conv.choose_convolution(2, tf.float32) is group_conv.convolve_natively
    assert group_conv.choose_convolution(2, tf.bfloat16) is group_conv.convolve_split
    monkeypatch.setattr(group_conv.keras_compat, "xla_is_worthwhile", lambda: True)
    assert group_conv.choose_convolution(2, tf.bfloat16) is group_conv.convolve_natively


def test_the_choice_has_a_gradient():
    images, kernel = _values(1, 4, 4, 8), _values(3, 3, 4, 8, seed=1)
    for dtype in (tf.float32, tf.bfloat16, tf.float64):
        convolve = group_conv.choose_convolution(2, dtype)
        x, k = tf.cast(images, dtype), tf.cast(kernel, dtype)
        with tf.GradientTape() as tape:
            tape.watch([x, k])
            loss = tf.reduce_sum(convolve(x, k, (1, 1), "SAME"))
        assert all(np.isfinite(g).all() for g in tape.gradient(loss, [x, k])), dtype


@pytest.mark.parametrize(
    ("channels", "filters", "group_size", "groups"),
    [
        (96, 96, 16, 6),
        (40, 40, 16, 2),
        (24, 24, 16, 1),
        (8, 8, 16, 1),
        (56, 56, 16, 2),
        (32, 16, 16, 2),
        (48, 64, 16, 2),
        (5, 5, 1, 5),
    ],
)
def test_groups_for_a_group_size(channels, filters, group_size, groups):
    layer = GroupConv2D(filters, 3, group_size=group_size)
    layer.build((None, None, None, channels))
    assert layer.group_count(channels) == groups
    assert layer.kernel.shape == (3, 3, channels // groups, filters)


def test_initial_standard_deviation():
    """As dense and depthwise kernels: sqrt(2 / (k * k * outputs that an input meets))."""
    layer = GroupConv2D(512, 3, group_size=16)
    layer.build((None, None, None, 512))
    assert np.std(layer.kernel) == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.02)


def test_the_configuration_round_trips():
    initializer = keras.initializers.RandomNormal(stddev=0.1)
    options = {"strides": 2, "padding": "valid", "use_bias": True, "activation": "silu"}
    layer = GroupConv2D(24, 5, group_size=8, kernel_initializer=initializer, **options)
    again = GroupConv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.kernel_size == (5, 5) and again.group_size == 8 and again.groups is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of `group_size` .* and `groups`.*group_size=None, groups=None"),
        ({"group_size": 8, "groups": 2}, "one of `group_size`.*groups=2"),
        ({"group_size": 0}, "`group_size` must be a positive integer. Received: 0"),
        ({"groups": -1}, "`groups` must be a positive integer. Received: -1"),
        ({"groups": 2, "padding": "symmetric"}, "`padding` must be 'same' or 'valid'"),
        ({"groups": 2, "strides": 0}, "`strides` must be a positive integer or a pair"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        GroupConv2D(16, 3, **options)


@pytest.mark.parametrize(("channels", "filters"), [(10, 12), (12, 10)])
def test_groups_that_do_not_divide(channels, filters):
    layer = GroupConv2D(filters, 3, groups=4, name="spatial")
    message = f"'spatial': `groups` must divide .*groups=4, {channels} channels, filters={filters}"
    with pytest.raises(ValueError, match=message):
        layer.build((None, None, None, channels))


def test_other_channels_than_it_was_built_for_are_refused():
    layer = GroupConv2D(16, 3, group_size=4)
    layer(tf.zeros((1, 8, 8, 8)))
    with pytest.raises(ValueError, match="axis -1 .*8"):
        layer(tf.zeros((1, 8, 8, 16)))
