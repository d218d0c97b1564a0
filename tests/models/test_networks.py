"""Whole networks: exact sizes of the family, any input, initial values, gradients, errors."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import effnetv2_tf
from effnetv2_tf import build_network
from effnetv2_tf.keras_compat import tf_variable, variable_path
from effnetv2_tf.models import families, specs
from effnetv2_tf.models.layers import MBConv

PARAMETERS = {
    "EfficientNetV2B0": 7_200_312,
    "EfficientNetV2B1": 8_212_124,
    "EfficientNetV2B2": 10_178_374,
    "EfficientNetV2B3": 14_467_622,
    "EfficientNetV2S": 21_612_360,
    "EfficientNetV2M": 54_431_388,
    "EfficientNetV2L": 119_027_848,
    "EfficientNetV2XL": 208_896_832,
    "EfficientNetB0": 5_330_564,
    "EfficientNetB1": 7_856_232,
    "EfficientNetB2": 9_177_562,
    "EfficientNetB3": 12_320_528,
    "EfficientNetB4": 19_466_816,
    "EfficientNetB5": 30_562_520,
    "EfficientNetB6": 43_265_136,
    "EfficientNetB7": 66_658_680,
}
QUICK = ("EfficientNetV2B0", "EfficientNetV2S", "EfficientNetB0", "EfficientNetB3")
# Trainable parameters in millions as published with the networks, to two decimals.
PUBLISHED_MILLIONS = {
    "EfficientNetB8": 87.41,
    "EfficientNetL2": 480.31,
    "EfficientNetLite0": 4.65,
    "EfficientNetLite1": 5.42,
    "EfficientNetLite2": 6.09,
    "EfficientNetLite3": 8.20,
    "EfficientNetLite4": 13.01,
}


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in PARAMETERS]
)
def test_exact_parameter_counts(name):
    assert getattr(effnetv2_tf, name)().count_params() == PARAMETERS[name]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n == "EfficientNetLite0" else pytest.mark.slow)
        for n in PUBLISHED_MILLIONS
    ],
)
def test_trainable_parameters(name):
    model = getattr(effnetv2_tf, name)()
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert round(count / 1e6, 2) == PUBLISHED_MILLIONS[name]


@pytest.mark.parametrize("size", [(24, 24), (25, 41)])
def test_symmetric_padding_is_pytorchs(tiny_spec, size):
    """K // 2 zeros on every side; with odd sides TensorFlow's "same" does that too."""
    spec = dataclasses.replace(tiny_spec, padding="symmetric")
    ours, same = build_network(spec, classes=4), build_network(tiny_spec, classes=4)
    same.set_weights(ours.get_weights())
    images = _pixels(2, *size, 3)
    assert ours.get_layer("stem_pad") is not None
    stem = keras.Model(ours.input, ours.get_layer("stem").output)
    normalised = np.pad((images.numpy() - 128) / 128, [(0, 0), (1, 1), (1, 1), (0, 0)])
    kernel = ours.get_layer("stem").kernel
    expected = tf.nn.conv2d(normalised, tf.convert_to_tensor(kernel), 2, "VALID")
    np.testing.assert_allclose(stem(images), expected, rtol=1e-4, atol=1e-5)
    assert np.allclose(ours(images), same(images), atol=1e-6) == (size == (25, 41))


def test_an_unknown_padding(tiny_spec):
    with pytest.raises(ValueError, match=r"`padding` must be one of .*'valid'"):
        build_network(dataclasses.replace(tiny_spec, padding="valid"))


def _pixels(*shape):
    return tf.constant(np.random.default_rng(0).uniform(0, 255, shape), tf.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(97, 131), (32, 32), (1, 1)])
def test_any_size_with_the_classifier(tiny_network, channels, size):
    model = tiny_network(input_shape=(None, None, channels))
    outputs = model(_pixels(2, *size, channels)).numpy()
    assert outputs.shape == (2, 4)
    assert model.output_shape == (None, 4)
    np.testing.assert_allclose(outputs.sum(1), 1, rtol=1e-5)
    assert not np.allclose(outputs[0], outputs[1])


def test_an_image_does_not_depend_on_its_batch(tiny_network):
    model, images = tiny_network(), _pixels(3, 20, 24, 3)
    alone = np.concatenate([model(images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(model(images), alone, rtol=1e-4, atol=1e-6)


def test_without_the_top(tiny_network):
    images = _pixels(2, 20, 24, 3)
    features = tiny_network(include_top=False)
    vectors = {p: tiny_network(include_top=False, pooling=p) for p in ("avg", "max")}
    for model in vectors.values():
        model.set_weights(features.get_weights())
    outputs = features(images).numpy()
    assert outputs.shape == (2, 3, 3, 24)  # three halvings, rounded up
    np.testing.assert_allclose(vectors["avg"](images), outputs.mean((1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(vectors["max"](images), outputs.max((1, 2)), rtol=1e-6)


def test_preprocessing_inside_or_outside(tiny_network, tiny_spec):
    inside, outside = tiny_network(), tiny_network(include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    images = _pixels(2, 20, 24, 3)
    np.testing.assert_allclose(inside(images), outside((images - 128) / 128), rtol=1e-4)
    statistics = dataclasses.replace(tiny_spec, preprocessing=specs.IMAGENET_STATISTICS)
    imagenet = build_network(statistics, classes=4)
    imagenet.set_weights(inside.get_weights())
    mean, std = (np.array(x) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = outside(tf.cast((images / 255 - mean) / std, tf.float32))
    np.testing.assert_allclose(imagenet(images), expected, rtol=1e-4)


def test_uint8_images(tiny_network):
    model = tiny_network()
    images = tf.cast(_pixels(2, 16, 16, 3), tf.uint8)
    np.testing.assert_allclose(model(images), model(tf.cast(images, tf.float32)), rtol=1e-5)


def test_custom_width_depth_and_stages(tiny_spec):
    wide = dataclasses.replace(tiny_spec, width=2.0, depth=1.5, scale_head=True)
    model = build_network(wide, classes=4)
    assert model.get_layer("stem").filters == 16
    assert model.get_layer("head").filters == 48
    blocks = [layer for layer in model.layers if layer.name.startswith("stage")]
    assert [(b.filters, b.stride) for b in blocks] == [
        *[(16, 1)] * 2, (16, 2), *[(16, 1)] * 2, (32, 2), *[(32, 1)] * 2
    ]  # fmt: skip
    assert isinstance(blocks[-1], MBConv)
    assert model(_pixels(1, 16, 16, 3)).shape == (1, 4)


def test_drop_rates_are_the_specs_or_the_given_ones(tiny_network):
    def rates(model):
        return [layer.drop_path_rate for layer in model.layers if hasattr(layer, "drop_path_rate")]

    assert rates(tiny_network()) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert tiny_network().get_layer("dropout").rate == 0.2
    changed = tiny_network(drop_path_rate=0.4, dropout_rate=0.0)
    assert rates(changed) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert changed.get_layer("dropout").rate == 0.0


def test_initial_values():
    model = build_network(families.EFFICIENTNETV2_B0, classes=100)
    checked = 0
    for weight in model.weights:
        value, path = weight.numpy(), variable_path(weight)
        if value.ndim == 4 and value.size > 2000 and "depthwise" not in path:
            fan_out = value.shape[0] * value.shape[1] * value.shape[3]
            std = np.sqrt(2 / fan_out)
            assert value.std() == pytest.approx(std, rel=0.06), path
            assert abs(value.mean()) < 4 * std / np.sqrt(value.size), path
            assert np.abs(value).max() > 2.5 * std, path  # not truncated at 2
            checked += 1
        elif path.endswith(("gamma", "moving_variance")):
            assert (value == 1).all(), path
        elif path.endswith(("beta", "moving_mean", "bias")):
            assert (value == 0).all(), path
    assert checked > 50
    kernel = model.get_layer("classifier").kernel.numpy()
    assert np.abs(kernel).max() <= 0.1  # 1 / sqrt(100)
    assert np.abs(kernel).max() > 0.0995
    assert kernel.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.02)


def test_a_depthwise_kernel_starts_as_the_references():
    """Its fan-out is k * k * channels multiplied by 1: std sqrt(2 / (k * k))."""
    layer = MBConv(128, 128, kernel_size=5, expansion=4)
    layer(tf.zeros((1, 4, 4, 128)))
    kernel = layer.depthwise.weights[0].numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / 25), rel=0.05)


def test_a_classifier_of_zeros(tiny_network):
    outputs = tiny_network(classifier_initializer="zeros")(_pixels(2, 16, 16, 3))
    np.testing.assert_allclose(outputs, 0.25)


def test_every_variable_gets_a_gradient(tiny_network):
    model = tiny_network()
    factors = tf.constant(np.random.default_rng(1).normal(size=(8, 4)), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(_pixels(8, 32, 32, 3), training=True) * factors)
    gradients = tape.gradient(loss, [tf_variable(w) for w in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, variable_path(weight)
        assert float(tf.reduce_max(tf.abs(gradient))) > 0, variable_path(weight)


def test_low_precision(tiny_network):
    full = tiny_network()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    low = tiny_network()
    low.set_weights(full.get_weights())
    assert {w.numpy().dtype for w in low.weights} == {np.dtype("float32")}
    images = _pixels(2, 32, 32, 3)
    outputs = low(images)
    assert outputs.dtype == tf.float32
    assert low.get_layer("head").compute_dtype == "bfloat16"
    np.testing.assert_allclose(outputs, full(images), atol=0.02)
    assert tiny_network(include_top=False, pooling="avg")(images).dtype == tf.float32
    assert tiny_network(include_top=False)(images).dtype == tf.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "`classes` must be a positive integer. Received: classes=0"),
        ({"classes": 2.5}, "`classes` must be a positive integer. Received: classes=2.5"),
        ({"input_shape": (32, 32)}, r"`input_shape` must be .*input_shape=\(32, 32\)"),
        ({"input_shape": (None, None, None)}, "`input_shape` must be"),
        ({"input_shape": (0, 32, 3)}, "`input_shape` must have positive sides"),
        ({"include_top": False, "pooling": "mean"}, r"`pooling` must be.*pooling='mean'"),
        ({"input_shape": 224}, "`input_shape` must be .*input_shape=224"),
        ({"input_shape": (3, 224, 224)}, r"3 pixels high with 224 .*mean \(224, 224, 3\)"),
        ({"dropout_rate": 1.0}, r"`dropout_rate` must lie in \[0, 1\). Received: dropout_rate=1"),
        ({"drop_path_rate": -0.1}, r"`drop_path_rate` must lie in \[0, 1\). Received"),
    ],
)
def test_errors_name_the_argument(tiny_network, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_network(**arguments)


def test_integers_of_numpy_are_integers(tiny_network):
    model = tiny_network(classes=np.int64(5), input_shape=tuple(np.array([64, 32, 3])))
    assert (model.input_shape, model.output_shape) == ((None, 64, 32, 3), (None, 5))


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnetv2-s"])
def test_grey_images_for_a_network_of_colours_are_refused(tiny_spec, name):
    """Three means would make three channels of one."""
    preprocessing = families.SPECS[name].preprocessing
    model = build_network(dataclasses.replace(tiny_spec, preprocessing=preprocessing), classes=2)
    with pytest.raises(
        ValueError, match=r"takes images of 3 channels.*input_shape=\(None, None, 1"
    ):
        model(tf.zeros((2, 32, 32, 1)))


def test_weights_that_are_no_file():
    with pytest.raises(ValueError, match=r"weights='no/such/file.weights.h5', which is no file"):
        effnetv2_tf.EfficientNetV2B0(weights="no/such/file.weights.h5", classes=2)


def test_keras_applications_order_of_arguments():
    with pytest.raises(ValueError, match="weights: expected None.*received False.*other way round"):
        effnetv2_tf.EfficientNetV2B0(False, None)


def test_no_input_shape_is_any_size_in_colour(tiny_network):
    assert tiny_network(input_shape=None).input_shape == (None, None, None, 3)


def test_public_names():
    for name in effnetv2_tf.__all__:
        assert getattr(effnetv2_tf, name) is not None
    assert dir(effnetv2_tf) == sorted(effnetv2_tf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'EfficientNetV2Z'"):
        _ = effnetv2_tf.EfficientNetV2Z


def test_channels_first_is_refused():
    keras.backend.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="must be 'channels_last'. Received: 'channels_first'"):
            effnetv2_tf.EfficientNetV2B0()
    finally:
        keras.backend.set_image_data_format("channels_last")
