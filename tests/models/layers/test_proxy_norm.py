"""Proxy-normalised activations: formula, the proxy's moments, gradients, independence."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.keras_compat import tf_variable
from effnetv2_tf.models.layers import GroupNorm, ProxyNorm
from effnetv2_tf.models.layers.proxy_norm import gaussian_quantiles

SHAPE = (2, 4, 5, 6)
PARAMETERS = ("gamma", "beta", "proxy_gamma", "proxy_beta")


def images(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape).astype("float32")


def made(groups=1, seed=7, **options):
    """A layer with parameters off their initial values, and these by name."""
    layer = ProxyNorm("silu", groups, **options)
    layer.build(SHAPE)
    rng = np.random.default_rng(seed)
    parameters = {name: rng.normal(name == "gamma", 0.4, 6).astype("f") for name in PARAMETERS}
    for name, value in parameters.items():
        getattr(layer, name).assign(value)
    return layer, parameters


def silu(x):
    return x / (1 + np.exp(-x))


def formula(x, groups, parameters, epsilon=1e-3):
    """The equations of arXiv 2106.03743, in float64."""
    gamma, beta, proxy_gamma, proxy_beta = (
        np.asarray(parameters[name], np.float64) for name in PARAMETERS
    )
    parts = x.astype(np.float64).reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean, variance = parts.mean((1, 3), keepdims=True), parts.var((1, 3), keepdims=True)
    y = ((parts - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
    proxies = silu(gamma * ((1 + proxy_gamma) * gaussian_quantiles()[:, None] + proxy_beta) + beta)
    return (silu(gamma * y + beta) - proxies.mean(0)) / np.sqrt(proxies.var(0) + 0.03)


def test_quantiles():
    """Symmetric, equally likely intervals: values from a table of the normal distribution."""
    quantiles = gaussian_quantiles()
    assert quantiles.shape == (200,)
    np.testing.assert_allclose(quantiles, -quantiles[::-1], atol=1e-12)
    np.testing.assert_allclose(quantiles[-1], 2.8070338, atol=1e-6)  # 99.75 %
    np.testing.assert_allclose(quantiles[100], 0.0062666, atol=1e-6)  # 50.25 %
    np.testing.assert_allclose(gaussian_quantiles(2), [-0.6744898, 0.6744898], atol=1e-6)


def test_initial_values():
    layer = ProxyNorm("silu")
    layer.build(SHAPE)
    found = {w.name.split("/")[-1].split(":")[0]: w.numpy() for w in layer.trainable_weights}
    assert found.keys() == set(PARAMETERS)
    for name, value in found.items():
        np.testing.assert_array_equal(value, np.full(6, float(name == "gamma")), err_msg=name)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_formula(groups):
    layer, parameters = made(groups)
    for training in (True, False):
        found = layer(images(), training=training)
        np.testing.assert_allclose(found, formula(images(), groups, parameters), atol=1e-5)


def test_the_proxy_has_mean_0_and_variance_1():
    """Up to the 0.03 that is added to its variance."""
    layer, parameters = made()
    gamma, beta, proxy_gamma, proxy_beta = (parameters[name] for name in PARAMETERS)
    proxies = silu(gamma * ((1 + proxy_gamma) * gaussian_quantiles()[:, None] + proxy_beta) + beta)
    scale, offset = (value.numpy() for value in layer.proxy_scale_and_offset())
    outputs = proxies * scale + offset
    np.testing.assert_allclose(outputs.mean(0), 0, atol=1e-5)
    expected = proxies.var(0) / (proxies.var(0) + 0.03)
    np.testing.assert_allclose(outputs.var(0), expected, rtol=1e-4)
    np.testing.assert_allclose((proxies * scale).var(0) * (1 + 0.03 / proxies.var(0)), 1, rtol=1e-4)


def test_gaussian_images_come_out_with_mean_0_and_variance_1():
    """What the proxy is for: channels that are Gaussian are normalised without a batch."""
    x = np.random.default_rng(3).normal(5.0, 3.0, (1, 200, 200, 2)).astype("f")
    outputs = ProxyNorm("silu")(x).numpy()
    variance = silu(gaussian_quantiles()).var()
    np.testing.assert_allclose(outputs.mean((0, 1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(outputs.var((0, 1, 2)), variance / (variance + 0.03), rtol=0.03)


@pytest.mark.parametrize("name", PARAMETERS)
def test_gradients_against_differences(name):
    """The derivative of a weighted sum of outputs, through images and proxies alike."""
    layer, parameters = made(2)
    factors = images(1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(images(), training=True) * factors)
    found = tape.gradient(loss, tf_variable(getattr(layer, name))).numpy()
    step = 1e-5
    for channel in range(6):
        ends = []
        for sign in (1, -1):
            moved = {key: value.astype(np.float64) for key, value in parameters.items()}
            moved[name][channel] += sign * step
            ends.append((formula(images(), 2, moved) * factors).sum())
        expected = (ends[0] - ends[1]) / (2 * step)
        assert found[channel] == pytest.approx(expected, rel=1e-3, abs=1e-3), channel
    assert np.abs(found).min() > 1e-3


def test_an_image_does_not_depend_on_its_batch():
    layer, _ = made(3)
    first, other = images(), images(5)
    other[1] = first[1]
    found = [layer(x, training=True).numpy()[1] for x in (first, other)]
    np.testing.assert_array_equal(*found)


def test_everything_is_float32_under_mixed_precision():
    plain, _ = made()
    mixed, _ = made(dtype="mixed_bfloat16")
    x = tf.cast(images(), tf.bfloat16)
    outputs = mixed(x, training=True)
    assert outputs.dtype == tf.bfloat16
    assert {tf_variable(w).dtype for w in mixed.weights} == {tf.float32}
    expected = tf.cast(plain(tf.cast(x, tf.float32)), tf.bfloat16)
    np.testing.assert_array_equal(tf.cast(outputs, tf.float32), tf.cast(expected, tf.float32))


def test_the_configuration_round_trips(tmp_path):
    layer = ProxyNorm("relu", 3, epsilon=0.01, name="norm")
    again = ProxyNorm.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    inputs = keras.Input(SHAPE[1:])
    layer, _ = made(3)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images()), model(images()))


@pytest.mark.parametrize("activation", [None, "linear"])
def test_without_an_activation(activation):
    with pytest.raises(ValueError, match="ProxyNorm: expected an activation.*Use GroupNorm"):
        ProxyNorm(activation)


def test_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="ProxyNorm 'norm': `groups` must divide"):
        ProxyNorm("silu", 4, name="norm").build(SHAPE)
    assert issubclass(ProxyNorm, GroupNorm)
