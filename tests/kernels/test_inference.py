"""The compiled operations of networks for inference against TensorFlow's."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf import kernels
from effnetv2_tf.errors import UsageError
from effnetv2_tf.kernels import compiler, operations

pytestmark = pytest.mark.usefixtures("compiled")

ACTIVATIONS = {"linear": tf.identity, "relu6": tf.nn.relu6, "silu": tf.nn.silu}
# Channels for a part of a vector, whole ones, and some more; images for several threads, smaller
# than a tile, and of no whole number of tiles or rows.
SHAPES = [(1, 1, 1, 1), (2, 5, 7, 3), (3, 2, 15, 16), (16, 8, 8, 96), (5, 13, 14, 70)]


@pytest.fixture(scope="module")
def library():
    return operations.load()


def weights(*shape, seed=1):
    return np.random.default_rng(seed).normal(0.0, 1.0, shape).astype("f")


def kernel_of(*shape, seed=1):
    return weights(*shape, seed=seed) / np.sqrt(np.prod(shape[:3])).astype("f")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("filters", [1, 24, 50])
@pytest.mark.parametrize("shape", [*SHAPES, (2, 23, 34, 7), (2, 9, 11, 8)], ids=str)
def test_conv3x3(assert_near, images_of, library, shape, filters, stride, activation):
    x, kernel, bias = images_of(shape), kernel_of(3, 3, shape[-1], filters), weights(filters)
    expected = tf.nn.conv2d(x, kernel, stride, "SAME") + bias
    expected = ACTIVATIONS[activation](expected).numpy()
    skip = images_of(expected.shape, seed=3)
    for skips in ([], [skip]):
        y = library.effnetv2_inference_conv3x3(
            x=x, kernel=kernel, bias=bias, skip=skips, stride=stride, activation=activation
        )
        assert_near(["y"], [y.numpy()], [expected + skip if skips else expected], 1e-5)


def test_rounding_of_conv3x3(images_of, library):
    """Tiles of 6x6 pixels, which these images are convolved in, are rounded four times as much."""
    x, kernel = images_of((2, 48, 48, 64)), kernel_of(3, 3, 64, 64)
    y = library.effnetv2_inference_conv3x3(
        x=x, kernel=kernel, bias=np.zeros(64, "f"), skip=[], stride=1, activation="linear"
    )
    truth = tf.nn.conv2d(tf.cast(x, "float64"), tf.cast(kernel, "float64"), 1, "SAME")
    truth = truth.numpy()
    error = np.sqrt(np.mean((y.numpy() - truth) ** 2) / np.mean(truth**2))
    assert error < 5e-6, f"{error:.2g} of the values, by the root mean square"


def test_silu_far_from_zero(library):
    """Through a convolution that leaves pixels what they are, vectors' and single ones'."""
    values = np.float32([-1e30, -200, -100, -88, -50, -1e-30, 0, 1e-30, 50, 88, 100, 200, 1e30])
    x = np.broadcast_to(values[None, :, None, None], (1, len(values), 1, 20)).astype("f")
    y = library.effnetv2_inference_pointwise_conv(
        x=x,
        kernel=np.eye(20, dtype="f")[None, None],
        bias=np.zeros(20, "f"),
        gates=[],
        skip=[],
        activation="silu",
    )
    expected = np.where(values < -88, 0.0, values / (1 + np.exp(-np.float64(values).clip(-88))))
    found = np.where(values[:, None] < -88, np.clip(y[0, :, 0], -1e-5, 0), y[0, :, 0])
    np.testing.assert_allclose(found, np.tile(expected[:, None], 20), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [1, 24, 96])
@pytest.mark.parametrize("filters", [1, 50])
# The last one's tiles are 4x4 and 6x6 pixels large, in bands of several rows.
@pytest.mark.parametrize("shape", [*SHAPES, (2, 23, 34, 7), (3, 70, 61, 4)], ids=str)
def test_projected_conv3x3(
    assert_near, images_of, library, shape, filters, channels, stride, activation
):
    x, kernel, bias = images_of(shape), kernel_of(3, 3, shape[-1], channels), weights(channels)
    project, project_bias = kernel_of(1, 1, channels, filters, seed=2), weights(filters, seed=2)
    between = ACTIVATIONS[activation](tf.nn.conv2d(x, kernel, stride, "SAME") + bias)
    expected = (tf.nn.conv2d(between, project, 1, "SAME") + project_bias).numpy()
    skip = images_of(expected.shape, seed=3)
    for skips in ([], [skip]):
        y = library.effnetv2_inference_projected_conv3x3(
            x=x,
            kernel=kernel,
            bias=bias,
            project_kernel=project,
            project_bias=project_bias,
            skip=skips,
            stride=stride,
            activation=activation,
        )
        assert_near(["y"], [y.numpy()], [expected + skip if skips else expected], 1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_depthwise(assert_near, images_of, library, shape, side, stride, activation):
    x, kernel, bias = images_of(shape), weights(side, side, shape[-1], 1), weights(shape[-1])
    y, means = library.effnetv2_inference_depthwise_conv(
        x=x, kernel=kernel, bias=bias, stride=stride, activation=activation
    )
    expected = tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), "SAME") + bias
    expected = ACTIVATIONS[activation](expected)
    found = [y.numpy(), means.numpy().sum(axis=1)]
    assert_near(["y", "means"], found, [expected, expected.numpy().mean((1, 2))], 1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("channels", [1, 24, 50, 96])
# The last one's images between have more rows than stay in a cache.
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 5, 7, 3), (3, 2, 15, 16), (5, 13, 14, 70), (2, 70, 61, 4)], ids=str
)
def test_expanded_depthwise(
    assert_near, images_of, library, shape, channels, side, stride, activation
):
    x, expand, expand_bias = (
        images_of(shape),
        kernel_of(1, 1, shape[-1], channels),
        weights(channels),
    )
    kernel, bias = weights(side, side, channels, 1, seed=2), weights(channels, seed=2)
    y, means = library.effnetv2_inference_expanded_depthwise_conv(
        x=x,
        expand_kernel=expand,
        expand_bias=expand_bias,
        kernel=kernel,
        bias=bias,
        stride=stride,
        activation=activation,
    )
    between = ACTIVATIONS[activation](tf.nn.conv2d(x, expand, 1, "SAME") + expand_bias)
    expected = tf.nn.depthwise_conv2d(between, kernel, (1, stride, stride, 1), "SAME") + bias
    expected = ACTIVATIONS[activation](expected)
    found = [y.numpy(), means.numpy().sum(axis=1)]
    assert_near(["y", "means"], found, [expected, expected.numpy().mean((1, 2))], 1e-5)


@settings(max_examples=40)
@given(
    batch=st.integers(1, 5),
    side=st.integers(1, 20),
    channels=st.integers(1, 70),
    filters=st.integers(1, 120),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    has_gates=st.booleans(),
    has_skip=st.booleans(),
)
def test_pointwise(
    assert_near, images_of, library, batch, side, channels, filters, activation, has_gates, has_skip
):
    x, kernel = images_of((batch, side, side, channels)), kernel_of(1, 1, channels, filters)
    bias, gates = weights(filters), np.abs(weights(batch, channels, seed=2))
    skip = images_of((batch, side, side, filters), seed=3)
    y = library.effnetv2_inference_pointwise_conv(
        x=x,
        kernel=kernel,
        bias=bias,
        gates=[gates] if has_gates else [],
        skip=[skip] if has_skip else [],
        activation=activation,
    )
    expected = tf.nn.conv2d(x * gates[:, None, None] if has_gates else x, kernel, 1, "SAME")
    expected = ACTIVATIONS[activation](expected + bias) + (skip if has_skip else 0)
    assert_near(["y"], [y.numpy()], [expected.numpy()], 1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (2, 100, 99, 3)], ids=str)
def test_normalize(assert_near, images_of, library, shape):
    x, scale, offset = images_of(shape), weights(shape[-1]), weights(shape[-1], seed=2)
    y = library.effnetv2_inference_normalize(x=x, scale=scale, offset=offset)
    assert_near(["y"], [y.numpy()], [x * scale + offset], 1e-6)


@pytest.mark.parametrize("parts", [1, 3])
def test_gates(assert_near, library, parts):
    means, reduce, expand = weights(2, parts, 20), kernel_of(1, 1, 20, 5), kernel_of(1, 1, 5, 20)
    reduce_bias, expand_bias = weights(5), weights(20)
    gates = library.effnetv2_inference_gates(
        means=means,
        reduce_kernel=reduce,
        reduce_bias=reduce_bias,
        expand_kernel=expand,
        expand_bias=expand_bias,
    )
    hidden = tf.nn.silu(means.sum(axis=1) @ reduce[0, 0] + reduce_bias)
    expected = tf.sigmoid(hidden @ expand[0, 0] + expand_bias)
    assert_near(["gates"], [gates.numpy()], [expected.numpy()], 1e-6)


def test_a_kernel_that_changes_is_prepared_again(assert_near, images_of, library):
    x, bias = images_of((1, 8, 8, 16)), np.zeros(16, "f")
    wide, narrow = tf.Variable(kernel_of(3, 3, 16, 16)), tf.Variable(kernel_of(1, 1, 16, 16))

    @tf.function
    def convolve():
        y = library.effnetv2_inference_conv3x3(
            x=x, kernel=wide, bias=bias, skip=[], stride=1, activation="linear"
        )
        return library.effnetv2_inference_pointwise_conv(
            x=y, kernel=narrow, bias=bias, gates=[], skip=[], activation="linear"
        )

    for step in range(3):
        expected = tf.nn.conv2d(tf.nn.conv2d(x, wide, 1, "SAME"), narrow, 1, "SAME")
        assert_near([f"step {step}"], [convolve().numpy()], [expected.numpy()], 1e-5)
        wide.assign_add(tf.ones_like(wide))
        narrow.assign(narrow * 2.0)


def test_calls_side_by_side_give_what_one_gives(images_of, library):
    kernel, bias = kernel_of(1, 1, 64, 96), weights(96)
    depthwise, reduce, expand = weights(3, 3, 96, 1), kernel_of(1, 1, 96, 8), kernel_of(1, 1, 8, 96)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 64))])
    def network(x):
        y, means = library.effnetv2_inference_expanded_depthwise_conv(
            x=x,
            expand_kernel=kernel,
            expand_bias=bias,
            kernel=depthwise,
            bias=bias,
            stride=1,
            activation="silu",
        )
        gates = library.effnetv2_inference_gates(
            means=means,
            reduce_kernel=reduce,
            reduce_bias=weights(8),
            expand_kernel=expand,
            expand_bias=bias,
        )
        project = {"kernel": kernel_of(1, 1, 96, 64), "bias": weights(64), "activation": "linear"}
        return library.effnetv2_inference_pointwise_conv(x=y, gates=[gates], skip=[x], **project)

    images = [images_of((1, 40, 33, 64), seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda x: network(x).numpy(), images * 4))
    alone = [network(x).numpy() for x in images]
    for found, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_does_not_fit_is_refused(images_of, library):
    x, kernel, bias = images_of((2, 4, 4, 8)), weights(1, 1, 8, 12), weights(12)

    def convolve(message, **changed):
        arguments = {"x": x, "kernel": kernel, "bias": bias, "gates": [], "skip": [], **changed}
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            library.effnetv2_inference_pointwise_conv(activation="linear", **arguments)

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"expected a tensor shaped \[8\]"):
        library.effnetv2_inference_normalize(x=x, scale=weights(8), offset=weights(1))
    convolve("expected a bias for 12 channels", bias=weights(3))
    convolve("expected a kernel of 1x1", kernel=weights(3, 3, 8, 12))
    convolve("expected 8 channels", x=images_of((2, 4, 4, 9)))
    convolve(r"expected a tensor shaped \[2,8\]", gates=[weights(2, 12)])
    convolve(r"expected a tensor shaped \[2,4,4,12\]", skip=[x])
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a bias for 8 channels"):
        library.effnetv2_inference_depthwise_conv(
            x=x, kernel=weights(3, 3, 8, 1), bias=bias, stride=1, activation="linear"
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a tensor shaped \[1,1,8,12"):
        library.effnetv2_inference_projected_conv3x3(
            x=x,
            kernel=weights(3, 3, 8, 8),
            bias=weights(8),
            project_kernel=weights(1, 1, 12, 12),
            project_bias=bias,
            skip=[],
            stride=1,
            activation="linear",
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="of 12 channels and 5 squeezed ones"):
        library.effnetv2_inference_gates(
            means=weights(2, 1, 8),
            reduce_kernel=weights(1, 1, 8, 5),
            reduce_bias=weights(5),
            expand_kernel=weights(1, 1, 5, 12),
            expand_bias=bias,
        )


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("side", [0, 4])
def test_no_images(images_of, library, batch, side):
    x, kernel, bias = images_of((batch, side, side, 8)), weights(1, 1, 8, 12), weights(12)
    y = library.effnetv2_inference_pointwise_conv(
        x=x, kernel=kernel, bias=bias, gates=[weights(batch, 8)], skip=[], activation="silu"
    )
    assert y.shape == (batch, side, side, 12)
    y, means = library.effnetv2_inference_depthwise_conv(
        x=x, kernel=weights(3, 3, 8, 1), bias=weights(8), stride=2, activation="silu"
    )
    assert y.shape == (batch, side // 2, side // 2, 8)
    assert np.isfinite(means).all()
    y = library.effnetv2_inference_projected_conv3x3(
        x=x,
        kernel=weights(3, 3, 8, 8),
        bias=weights(8),
        project_kernel=kernel,
        project_bias=bias,
        skip=[],
        stride=1,
        activation="silu",
    )
    assert y.shape == (batch, side, side, 12)


def test_loading_without_a_library_tells_how_to_make_one(monkeypatch, tmp_path):
    looks = []
    monkeypatch.setattr(operations, "_library", functools.cache(lambda: looks.append(1)))
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path))
    for times in (1, 2):  # it may have been made meanwhile
        with pytest.raises(UsageError, match=r"not there; `python -m effnetv2_tf\.kernels` makes"):
            kernels.load()
        assert len(looks) == times


def test_loading_what_is_to_be_left_alone(monkeypatch):
    monkeypatch.setenv(compiler.SWITCH, "0")
    with pytest.raises(UsageError, match="EFFNETV2_TF_KERNELS: expected anything but 0"):
        kernels.load()
