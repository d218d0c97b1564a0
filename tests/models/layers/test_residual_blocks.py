"""MBConv and Fused-MBConv: their forms, their skip, their variables."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.keras_compat import tf_variable, variable_path
from effnetv2_tf.models.layers import FusedMBConv, InputNormalization, MBConv

BOTH = pytest.mark.parametrize("block_class", [MBConv, FusedMBConv])


def _images(channels=8, size=7):
    return tf.random.stateless_normal((2, size, size, channels), (1, 2))


def _zero_last_norm(block):
    """Makes the branch 0: only what skips it is left."""
    norm = block.project_norm or block.fused_norm
    norm.gamma.assign(tf.zeros_like(norm.gamma))
    norm.beta.assign(tf.zeros_like(norm.beta))


@BOTH
@pytest.mark.parametrize("expansion", [1, 4])
@pytest.mark.parametrize(
    ("filters", "stride", "skips"), [(8, 1, True), (16, 1, False), (8, 2, False), (16, 2, False)]
)
def test_the_skip_is_there_exactly_where_shapes_allow(
    block_class, expansion, filters, stride, skips
):
    block = block_class(8, filters, stride=stride, expansion=expansion, se_ratio=0.25)
    images = _images()
    outputs = block(images)
    assert outputs.shape == (2, 7 if stride == 1 else 4, 7 if stride == 1 else 4, filters)
    assert tuple(block.compute_output_shape(images.shape)) == tuple(outputs.shape)
    _zero_last_norm(block)
    expected = images if skips else tf.zeros_like(outputs)
    np.testing.assert_allclose(block(images), expected, atol=1e-6)


def _names(block):
    return sorted(layer.name for layer in block.branch())


@pytest.mark.parametrize(
    ("block_class", "expansion", "se_ratio", "expected"),
    [
        (MBConv, 1, 0, "depthwise depthwise_norm project project_norm"),
        (
            MBConv,
            4,
            0.25,
            "depthwise depthwise_norm expand expand_norm project project_norm squeeze_excite",
        ),
        (FusedMBConv, 1, 0.25, "fused fused_norm"),
        (FusedMBConv, 4, 0, "fused fused_norm project project_norm"),
        (FusedMBConv, 4, 0.25, "fused fused_norm project project_norm squeeze_excite"),
    ],
)
def test_the_forms_of_the_blocks(block_class, expansion, se_ratio, expected):
    block = block_class(8, 8, expansion=expansion, se_ratio=se_ratio)
    assert _names(block) == expected.split()


def test_parameters_by_hand():
    block = MBConv(8, 16, kernel_size=5, expansion=4, se_ratio=0.25)
    block(_images())
    expand, depthwise, project = 8 * 32, 25 * 32, 32 * 16
    squeeze_excite = (32 * 2 + 2) + (2 * 32 + 32)  # its width follows the block's input
    norms = 4 * (32 + 32 + 16)
    assert block.count_params() == expand + depthwise + project + squeeze_excite + norms
    fused = FusedMBConv(8, 16, expansion=4)
    fused(_images())
    assert fused.count_params() == 9 * 8 * 32 + 32 * 16 + 4 * (32 + 16)
    single = FusedMBConv(8, 16, expansion=1)
    single(_images())
    assert single.count_params() == 9 * 8 * 16 + 4 * 16


def test_the_only_convolution_of_a_fused_block_is_activated():
    block = FusedMBConv(8, 16, expansion=1, activation="relu")
    assert float(tf.reduce_min(block(_images()))) == 0
    projected = FusedMBConv(8, 16, expansion=4, activation="relu")
    assert float(tf.reduce_min(projected(_images()))) < 0  # a projection is not


def test_a_fused_block_with_a_1x1_kernel():
    block = FusedMBConv(8, 16, kernel_size=1, expansion=4)
    assert block(_images()).shape == (2, 7, 7, 16)


@BOTH
@pytest.mark.parametrize("expansion", [1, 4])
def test_every_variable_gets_a_gradient(block_class, expansion):
    block = block_class(8, 8, expansion=expansion, se_ratio=0.25)
    factors = tf.random.stateless_normal((2, 7, 7, 8), (5, 6))
    block(_images())
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(block(_images(), training=True) * factors)
    gradients = tape.gradient(loss, [tf_variable(w) for w in block.trainable_weights])
    for weight, gradient in zip(block.trainable_weights, gradients, strict=True):
        assert gradient is not None, variable_path(weight)
        assert float(tf.reduce_max(tf.abs(gradient))) > 0, variable_path(weight)


@BOTH
def test_training_moves_the_statistics_and_inference_does_not(block_class):
    block = block_class(8, 8)
    block(_images())
    before = [w.numpy() for w in block.non_trainable_weights]
    block(_images(), training=False)
    for weight, old in zip(block.non_trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)
    block(_images(), training=True)
    assert all(
        not np.array_equal(w.numpy(), old)
        for w, old in zip(block.non_trainable_weights, before, strict=True)
    )


@BOTH
def test_drop_path_acts_on_the_branch_per_sample(block_class):
    block = block_class(8, 8, drop_path_rate=0.5)
    images = tf.repeat(_images()[:1], 64, axis=0)
    outputs = block(images, training=True).numpy()
    skipped = np.all(outputs == images.numpy(), axis=(1, 2, 3))
    assert 16 <= skipped.sum() <= 48
    block.set_drop_path_rate(0.0)
    outputs = block(images, training=True).numpy()
    assert not np.any(np.all(outputs == images.numpy(), axis=(1, 2, 3)))
    assert block.get_config()["drop_path_rate"] == 0.0


@BOTH
def test_config_round_trip(block_class):
    block = block_class(
        8,
        16,
        kernel_size=5,
        stride=2,
        expansion=3,
        se_ratio=0.5,
        drop_path_rate=0.1,
        activation="relu6",
        batch_norm_momentum=0.8,
        batch_norm_epsilon=1e-5,
        synchronized=True,
        name="block",
    )
    again = block_class.from_config(block.get_config())
    assert again.get_config() == block.get_config()
    assert [w.shape for w in _built(again).weights] == [w.shape for w in _built(block).weights]
    assert (again.depthwise if block_class is MBConv else again.fused).strides == (2, 2)


def _built(block):
    block(_images())
    return block


@BOTH
def test_low_precision_keeps_variables_float32(block_class):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    block = block_class(8, 8, se_ratio=0.25)
    assert block(_images(), training=True).dtype == tf.bfloat16
    assert {w.numpy().dtype for w in block.weights} == {np.dtype("float32")}


@BOTH
def test_another_number_of_channels_is_refused(block_class):
    with pytest.raises(ValueError, match=r"expected 8 input channels.*received 3"):
        block_class(8, 8)(_images(3))


def test_input_normalization_by_hand():
    pixels = tf.constant([[[[0, 128, 255]]]], tf.uint8)
    layer = InputNormalization((128.0,), (128.0,))
    np.testing.assert_allclose(layer(pixels)[0, 0, 0], [-1, 0, 127 / 128], rtol=1e-6)
    per_channel = InputNormalization((1, 2, 3), (4, 5, 6))
    np.testing.assert_allclose(per_channel(pixels)[0, 0, 0], [-1 / 4, 126 / 5, 252 / 6], rtol=1e-5)
    again = InputNormalization.from_config(per_channel.get_config())
    assert again.get_config() == per_channel.get_config()


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (0, 4, 4, 3), (2, 4, 0, 3)], ids=str)
def test_input_normalization_is_the_same_in_training(shape):
    layer = InputNormalization((1, 2, 3), (4, 5, 6))
    pixels = tf.random.stateless_uniform(shape, (1, 2), maxval=255.0)
    signature = [tf.TensorSpec((None, None, None, 3))]
    run = tf.function(lambda x: layer(x, training=True), input_signature=signature)
    np.testing.assert_allclose(run(pixels), layer(pixels, training=False), rtol=1e-6, atol=1e-6)
    assert run.get_concrete_function().output_shapes.as_list() == [None, None, None, 3]


def test_input_normalization_computes_in_float32_under_low_precision():
    layer = InputNormalization((128.0,), (128.0,), dtype="mixed_bfloat16")
    pixels = tf.constant([[[[129.0]]]])
    outputs = layer(pixels)
    assert outputs.dtype == tf.bfloat16
    # bfloat16 has no 129, but it has 1/128.
    np.testing.assert_array_equal(tf.cast(outputs, tf.float32).numpy().ravel(), [1 / 128])


@BOTH
def test_what_no_block_has_is_refused(block_class):
    with pytest.raises(ValueError, match=r"`normalization` must be one of .*'batchnorm'; did you"):
        block_class(8, 8, normalization="batchnorm")
    with pytest.raises(ValueError, match=r"`se_ratio` must lie in \[0, 1\]. Received: -1"):
        block_class(8, 8, se_ratio=-1)


@BOTH
@pytest.mark.parametrize("filters", [8, 16], ids=["skip", "no skip"])
def test_the_configuration_tells_the_rate_that_holds(block_class, filters):
    block = block_class(8, filters, drop_path_rate=0.1)
    block.set_drop_path_rate(0.3)
    assert block.get_config()["drop_path_rate"] == pytest.approx(0.3)
    if block.has_skip:
        block.drop_path.rate = 0.4
        assert block.get_config()["drop_path_rate"] == pytest.approx(0.4)


@BOTH
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_all_layers_within_are_built_with_the_block(block_class, padding):
    """Keras looks at all of them before it quantises a model."""
    block = block_class(8, 8, se_ratio=0.25, drop_path_rate=0.1, padding=padding)
    block.build((None, None, None, 8))
    assert [layer.name for layer in block._flatten_layers() if not layer.built] == []
