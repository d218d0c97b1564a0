"""The compiled operations against TensorFlow's, and where they are not used."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf import keras_compat, set_recompute
from effnetv2_tf.kernels import compiler, operations
from effnetv2_tf.models.layers import BatchNorm, SqueezeExcite

pytestmark = pytest.mark.usefixtures("compiled")


def make_norm(channels, activation, **options):
    norm = BatchNorm(momentum=0.75, activation=activation, **options)
    norm.build((None, None, None, channels))
    random = np.random.default_rng(channels)
    norm.set_weights([random.uniform(0.5, 1.5, channels).astype("float32") for _ in range(4)])
    return norm


def images_of(shape, mean=0.5, spread=1.5, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(mean, spread, shape).astype("float32")


def step(norm, images, in_graph=True):
    """Outputs, gradients of the image, gamma and beta, then the moving statistics."""
    factors = images_of(images.shape, seed=1)

    def run(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = norm(images, training=True)
            loss = tf.reduce_sum(outputs * factors)
        variables = map(keras_compat.tf_variable, (norm.gamma, norm.beta))
        return [outputs, *tape.gradient(loss, [images, *variables])]

    found = (tf.function(run) if in_graph else run)(tf.constant(images))
    return [np.array(x) for x in (*found, norm.moving_mean, norm.moving_variance)]


NAMES = ("y", "dx", "dgamma", "dbeta", "moving mean", "moving variance")


def compare(found, expected, tolerance=2e-5):
    """Within a part of each array's largest value: sums of thousands are rounded differently."""
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert a.shape == b.shape
        worst = np.abs(a - b).max(initial=0.0) / max(np.abs(b).max(initial=0.0), 1e-3)
        assert worst < tolerance, f"{name}: {worst:.2g} of the largest value apart"


def in_double_precision(norm, images):
    """What `step` returns, by hand."""
    x, dy = images.astype("float64"), images_of(images.shape, seed=1).astype("float64")
    gamma, beta, moving_mean, moving_variance = (w.astype("float64") for w in norm.get_weights())
    count = x[..., 0].size
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    normal = (x - mean) / np.sqrt(variance + norm.epsilon)
    z = gamma * normal + beta
    gate = 1 / (1 + np.exp(-z))
    silu = norm.activation == "silu"
    dz = dy * gate * (1 + z * (1 - gate)) if silu else dy
    dgamma, dbeta = (dz * normal).sum((0, 1, 2)), dz.sum((0, 1, 2))
    dx = gamma / np.sqrt(variance + norm.epsilon) * (dz - (dbeta + normal * dgamma) / count)
    unbiased = variance * count / (count - 1)
    return [
        z * gate if silu else z,
        dx,
        dgamma,
        dbeta,
        0.75 * moving_mean + 0.25 * mean,
        0.75 * moving_variance + 0.25 * unbiased,
    ]


# Fewer and more channels than a strip has elements, images of several runs, blocks and remainders.
SHAPES = [(2, 3, 5, 1), (9, 33, 31, 16), (3, 16, 16, 48), (2, 8, 8, 130), (16, 4, 4, 300)]


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numbers(shape, activation):
    norm, images = make_norm(shape[-1], activation), images_of(shape)
    expected = in_double_precision(norm, images)
    compare(step(norm, images), expected)


@pytest.mark.parametrize("activation", [None, "silu", "swish"])
def test_numbers_are_tensorflows(activation, monkeypatch):
    images = images_of((4, 12, 12, 24))
    found = step(make_norm(24, activation), images)
    monkeypatch.setattr(operations, "in_use", lambda: False)
    compare(found, step(make_norm(24, activation), images))


def test_without_a_graph():
    norm, images = make_norm(8, "silu"), images_of((2, 6, 6, 8))
    expected = in_double_precision(norm, images)
    compare(step(norm, images, in_graph=False), expected)


def test_means_far_from_0_cost_no_accuracy():
    """A sum of squares less the square of the mean would have lost all of the variance."""
    norm, images = make_norm(16, "silu"), images_of((4, 32, 32, 16), mean=1000.0, spread=0.5)
    expected = in_double_precision(norm, images)
    compare(step(norm, images), expected, tolerance=2e-3)  # of which the input's float32 is most


@settings(max_examples=25)
@given(
    batch=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(2, 40),
    channels=st.integers(1, 300),
    activation=st.sampled_from([None, "silu"]),
    mean=st.floats(-10, 10),
    spread=st.floats(0.1, 20),
)
def test_any_shape(batch, height, width, channels, activation, mean, spread):
    shape = (batch, height, width, channels)
    norm, images = make_norm(channels, activation), images_of(shape, mean, spread)
    expected = in_double_precision(norm, images)
    compare(step(norm, images, in_graph=False), expected, tolerance=5e-4)


def test_activations_beyond_the_exponentials_range():
    norm = make_norm(1, "silu")
    norm.set_weights([np.array([x], "float32") for x in (300.0, 0.0, 0.0, 1.0)])
    images = np.array([-1, 1], "float32").reshape(2, 1, 1, 1)
    y, *gradients = step(norm, images)
    np.testing.assert_allclose(y.ravel(), [0, 299.85], atol=1e-2)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_does_not_vanish(value):
    """Training that diverges must be noticed."""
    images = images_of((2, 4, 4, 8))
    images[1, 2, 3, 5] = value
    y, dx, *_ = step(make_norm(8, "silu"), images)
    assert np.isnan(y[..., 5]).all() and np.isnan(dx[..., 5]).all()
    assert np.isfinite(np.delete(y, 5, -1)).all()


def test_no_images():
    """As a replica may get in an epoch's last batch; the layer then keeps its statistics."""
    norm = make_norm(8, "silu")
    found = step(norm, np.zeros((0, 4, 4, 8), "float32"))
    assert found[0].shape == found[1].shape == (0, 4, 4, 8)
    np.testing.assert_array_equal(found[2:4], 0)


def test_a_run_is_the_same_again():
    norm, images = make_norm(32, "silu"), images_of((8, 32, 32, 32))
    weights = norm.get_weights()
    first = step(norm, images)
    norm.set_weights(weights)
    for a, b in zip(first, step(norm, images), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layer", [BatchNorm(), SqueezeExcite(8, 2)], ids=lambda x: x.name)
def test_another_number_of_channels(layer):
    layer.build((None, None, None, 8))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"of 8 channels, .*\[2,4,4,16\]"):
        layer(np.zeros((2, 4, 4, 16), "float32"), training=True)


def operation_types(function, *arguments):
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return {operation.type for operation in graph.get_operations()}


def training_types(norm, dtype="float32"):
    return operation_types(
        lambda x: norm(x, training=True), tf.TensorSpec((2, 4, 4, 8), tf.as_dtype(dtype))
    )


COMPILED = {"Effnetv2BatchNorm", "Effnetv2BatchNormSilu"}


@pytest.mark.parametrize(
    ("activation", "options"),
    [("relu6", {}), ("hard_silu", {}), ("silu", {"dtype": "mixed_bfloat16"})],
)
def test_others_are_tensorflows(activation, options):
    assert not training_types(make_norm(8, activation, **options)) & COMPILED


def test_a_training_step_is_one_operation():
    """The norm's, which moves the statistics, too, and the reading of gamma and beta."""
    norm = make_norm(8, "silu")
    graph = (
        tf.function(lambda x: norm(x, training=True))
        .get_concrete_function(tf.TensorSpec((None, 4, 4, 8)))
        .graph
    )
    types = [operation.type for operation in graph.get_operations()]
    assert types.count("ReadVariableOp") == 2
    usual = {"Placeholder", "ReadVariableOp", "Identity", "NoOp"}
    assert [name for name in types if name not in usual] == ["Effnetv2BatchNormSilu"]


def test_what_was_read_before_stays():
    """The moving statistics change in place, but not in others' hands."""
    norm = make_norm(8, "silu")
    before = [tf.identity(keras_compat.tf_variable(v)) for v in (norm.moving_mean, norm.gamma)]
    read = keras_compat.tf_variable(norm.moving_mean).read_value()
    norm(images_of((2, 4, 4, 8)), training=True)
    np.testing.assert_array_equal(read, before[0])
    assert np.abs(norm.moving_mean - before[0]).min() > 0
    np.testing.assert_array_equal(norm.gamma, before[1])


def test_where_they_are_used():
    assert "Effnetv2BatchNormSilu" in training_types(make_norm(8, "silu"))
    assert "Effnetv2BatchNorm" in training_types(make_norm(8, None))
    norm = make_norm(8, "silu")
    norm.recompute = True  # they keep nothing that could be computed again
    assert "Effnetv2BatchNormSilu" in training_types(norm)


def test_accelerators_have_their_own(monkeypatch):
    monkeypatch.setattr(keras_compat, "has_accelerator", lambda: True)
    assert not operations.in_use()
    assert not training_types(make_norm(8, "silu")) & COMPILED


@pytest.mark.parametrize("inner", [False, True])
def test_xla_compiles_tensorflows(inner):
    norm = make_norm(8, "silu")

    def call(images):
        return norm(images, training=True)

    compiled = tf.function(tf.function(call) if inner else call, jit_compile=True)
    images = images_of((2, 4, 4, 8))
    np.testing.assert_allclose(compiled(images), call(images), atol=1e-5)


def test_whoever_trains_without_them_is_told(monkeypatch):
    assert operations.advice() is None
    monkeypatch.setattr(operations, "_library", lambda: None)
    assert "`python -m effnetv2_tf.kernels`" in operations.advice()
    monkeypatch.setenv(compiler.SWITCH, "0")
    assert operations.advice() is None
    monkeypatch.delenv(compiler.SWITCH)
    monkeypatch.setattr(keras_compat, "has_accelerator", lambda: True)
    assert operations.advice() is None


def test_no_saved_network_needs_them(tiny_network, tmp_path):
    """Whoever serves it does not have them."""
    model = tiny_network()
    model.compile("sgd", "mse")
    model.fit(np.zeros((2, 16, 16, 3)), np.zeros((2, 4)), verbose=0)
    for name, save in (
        ("exported", lambda folder: model.export(folder, verbose=False)),
        ("saved", lambda folder: tf.saved_model.save(model, folder)),
    ):
        save(str(tmp_path / name))
        assert b"Effnetv2" not in (tmp_path / name / "saved_model.pb").read_bytes(), name


@pytest.mark.parametrize("parts", ["norms", "blocks"])
def test_recomputing(parts, tiny_network):
    images, factors = images_of((2, 16, 16, 3), 128, 50), images_of((2, 4), seed=2)

    def gradients(recomputing):
        keras.utils.set_random_seed(0)
        model = tiny_network(dropout_rate=0, drop_path_rate=0)
        if recomputing:
            set_recompute(model, parts)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True) * factors)
        variables = [keras_compat.tf_variable(w) for w in model.trainable_weights]
        return [np.array(x) for x in (*tape.gradient(loss, variables), *model.get_weights())]

    for a, b in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_replicas(two_cpus):
    """Each normalises with its own half of the batch; the moving statistics are the means."""
    two_cpus("""
        from effnetv2_tf.kernels import operations
        from effnetv2_tf.models.layers import BatchNorm, SqueezeExcite
        assert operations.in_use()
        images = np.random.default_rng(0).normal(size=(4, 8, 8, 16)).astype("float32")
        with strategy.scope():
            norm = BatchNorm(activation="silu")
            norm.build((None, None, None, 16))
        halves = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                images[context.replica_id_in_sync_group * 2:][:2]))
        expected = np.array([norm.moving_mean, norm.moving_variance])
        expected[0] = 0.9 * expected[0] + 0.1 * np.mean(
            [half.mean((0, 1, 2)) for half in (images[:2], images[2:])], 0)
        expected[1] = 0.9 * expected[1] + 0.1 * np.mean(
            [half.var((0, 1, 2), ddof=1) for half in (images[:2], images[2:])], 0)
        outputs = tf.function(lambda x: strategy.run(norm, (x,), {"training": True}))(halves)
        found = [norm.moving_mean, norm.moving_variance]
        np.testing.assert_allclose(np.array(found), expected, atol=1e-5)
        outputs = strategy.experimental_local_results(outputs)
        for half, output in zip((images[:2], images[2:]), outputs):
            alone = BatchNorm(activation="silu")
            alone.build((None, None, None, 16))
            np.testing.assert_allclose(output, alone(half, training=True), atol=1e-5)
    """)


def test_the_switch():
    program = """
        from effnetv2_tf.kernels import operations
        assert not operations.in_use()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    environment = {**os.environ, compiler.SWITCH: "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
