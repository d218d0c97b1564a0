"""Inputs that do not fit together are refused: reading on would be reading elsewhere.

Layers and optimizers never give such; a graph that somebody else has written may.
"""

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.kernels import operations

pytestmark = pytest.mark.usefixtures("compiled")

X, VECTOR = (2, 4, 4, 8), (8,)
NORM = {"x": X, "gamma": VECTOR, "beta": VECTOR, "moving": [], "epsilon": 1e-3, "share": 0.1}
NORM_GRAD = {
    **{"dy": X, "x": X, "gamma": VECTOR, "beta": VECTOR, "statistics": (2, 8)},
    "epsilon": 1e-3,
}
EXCITE = {
    **{"x": X, "reduce_kernel": (1, 1, 8, 2), "reduce_bias": (2,)},
    **{"expand_kernel": (1, 1, 2, 8), "expand_bias": VECTOR},
}
EXCITE_GRAD = {
    **{"dy": X, "x": X, "reduce_kernel": (1, 1, 8, 2), "expand_kernel": (1, 1, 2, 8)},
    "kept": (2, 18),
}
POINTWISE = {"x": X, "kernel": (1, 1, 8, 6), "bias": (6,), "gates": [], "skip": []}
POINTWISE_GRAD = {"dy": (2, 4, 4, 6), "x": X, "kernel": (1, 1, 8, 6)}

CASES = [
    ("batch_norm", NORM, {"beta": (3,)}, r"shaped \[8\], received one shaped \[3\]"),
    ("batch_norm", NORM, {"gamma": (2, 4)}, r"shaped \[8\], received one shaped \[2,4\]"),
    ("batch_norm", NORM, {"x": (2, 8)}, "images of 8 channels"),
    ("batch_norm_grad", NORM_GRAD, {"dy": (1, 1, 1, 8)}, r"shaped \[2,4,4,8\]"),
    ("batch_norm_grad", NORM_GRAD, {"statistics": (1, 3)}, r"shaped \[2,8\]"),
    ("batch_norm_silu_grad", NORM_GRAD, {"beta": (3,)}, r"shaped \[8\]"),
    ("batch_norm_grad", NORM_GRAD, {"gamma": (9,)}, "images of 9 channels"),
    ("squeeze_excite", EXCITE, {"reduce_kernel": (1, 1, 4, 2)}, r"shaped \[1,1,8,2\]"),
    ("squeeze_excite", EXCITE, {"reduce_kernel": (8, 2)}, "rank 4"),
    ("squeeze_excite", EXCITE, {"expand_kernel": (1, 1, 2, 4)}, r"shaped \[1,1,2,8\]"),
    ("squeeze_excite", EXCITE, {"expand_kernel": (2, 8)}, r"rank 4|\[1,1,2,8\]"),
    ("squeeze_excite", EXCITE, {"reduce_bias": (3,)}, r"shaped \[2\]"),
    ("squeeze_excite", EXCITE, {"expand_bias": (9,)}, "images of 9 channels"),
    ("squeeze_excite", EXCITE, {"x": (2, 8)}, "rank 4|images of 8 channels"),
    ("squeeze_excite_grad", EXCITE_GRAD, {"dy": (1, 1, 1, 8)}, r"shaped \[2,4,4,8\]"),
    ("squeeze_excite_grad", EXCITE_GRAD, {"kept": (2, 6)}, r"shaped \[2,18\]"),
    ("squeeze_excite_grad", EXCITE_GRAD, {"expand_kernel": (1, 1, 2, 4)}, r"\[1,1,2,8\]"),
    ("squeeze_excite_grad", EXCITE_GRAD, {"reduce_kernel": (8, 2)}, "rank 4"),
    ("squeeze_excite_grad", EXCITE_GRAD, {"x": (2, 8), "dy": (2, 8)}, "rank 4"),
    ("pointwise_conv_grad", POINTWISE_GRAD, {"dy": (1, 1, 1, 6)}, r"shaped \[2,4,4,6\]"),
    ("inference_pointwise_conv", POINTWISE, {"x": VECTOR, "gates": [(8, 8)]}, "a batch"),
    ("inference_pointwise_conv", POINTWISE, {"skip": [(2, 4, 4, 6)] * 2}, "one `skip`"),
    ("inference_pointwise_conv", POINTWISE, {"gates": [(2, 8)] * 2}, "one `gates`"),
]


def _numbers(argument):
    """Random numbers of a shape, and of each of several; anything else as it is."""
    if isinstance(argument, list):
        return [_numbers(shape) for shape in argument]
    if not isinstance(argument, tuple):
        return argument
    return tf.constant(np.random.default_rng(0).uniform(0.5, 1, argument).astype("f"))


def _call(name, arguments):
    options = {"activation": "linear"} if name.startswith("inference") else {}
    operation = getattr(operations.load(), f"effnetv2_{name}")
    return operation(**{k: _numbers(v) for k, v in arguments.items()}, **options)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("name", "fitting", "changed", "message"), CASES)
def test_is_refused(name, fitting, changed, message, traced):
    _call(name, fitting)

    def call():
        return _call(name, {**fitting, **changed})

    # A ValueError: by the shape function.
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=message):
        tf.function(call)() if traced else call()


def test_one_moving_statistic():
    moving = tf.Variable(tf.zeros(8))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a moving mean and variance"):
        _call("batch_norm", {**NORM, "moving": [moving.handle]})


def _rms_prop(variables, rate):
    slots = [[tf.Variable(tf.zeros(4)) for _ in variables] for _ in range(2)]
    operations.load().effnetv2_rms_prop(
        variables=[variable.handle for variable in variables],
        mean_squares=[slot.handle for slot in slots[0]],
        momenta=[slot.handle for slot in slots[1]],
        gradients=[tf.ones(4) for _ in variables],
        rate=rate,
        rho=0.9,
        momentum=0.9,
        epsilon=1e-3,
    )


def test_several_rates():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"shaped \[\], received"):
        _rms_prop([tf.Variable(tf.zeros(4))], tf.ones(2))


def test_one_variable_twice_in_an_update():
    """It would wait for itself."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="different variables"):
        _rms_prop([tf.Variable(tf.zeros(4))] * 2, 0.1)


@pytest.mark.parametrize(("inputs", "filters"), [(0, 6), (8, 0)])
def test_no_channels(inputs, filters):
    """A sum of nothing is 0."""
    x, kernel = tf.ones((2, 4, 4, inputs)), tf.ones((1, 1, inputs, filters))
    library = operations.load()
    y = library.effnetv2_pointwise_conv(x=x, kernel=kernel)
    np.testing.assert_array_equal(y, np.zeros((2, 4, 4, filters)))
    dx, dkernel = library.effnetv2_pointwise_conv_grad(dy=y, x=x, kernel=kernel)
    np.testing.assert_array_equal(dx, np.zeros(x.shape))
    np.testing.assert_array_equal(dkernel, np.zeros(kernel.shape))
    y = library.effnetv2_inference_pointwise_conv(
        x=x, kernel=kernel, bias=tf.ones(filters), gates=[], skip=[], activation="linear"
    )
    np.testing.assert_array_equal(y, np.ones((2, 4, 4, filters)))
