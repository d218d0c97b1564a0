"""Networks with random weights in every variable, and files of them."""

import numpy as np
import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.weights.mapping import variables_by_path


def _value(name, shape, rng):
    if name == "gamma":
        return rng.uniform(0.5, 1.0, shape)
    if name in ("moving_variance", "variance"):
        return rng.uniform(0.5, 1.5, shape)
    if name in ("beta", "moving_mean", "mean", "bias"):
        return rng.normal(0, 0.1, shape)
    return None  # kernels are random already


@pytest.fixture
def randomize():
    """Gives batch norms and biases random values too, which a fresh model leaves at 0 or 1."""

    def run(model, seed=0):
        rng = np.random.default_rng(seed)
        for variable in model.weights:
            name = keras_compat.variable_path(variable).rsplit("/", 1)[-1]
            value = _value(name, tuple(variable.shape), rng)
            if value is not None:
                variable.assign(value.astype("float32"))
        return model

    return run


@pytest.fixture
def values():
    """The values of a model's variables by path."""

    def run(model):
        return {
            path: keras_compat.tf_variable(variable).numpy()
            for path, variable in variables_by_path(model).items()
        }

    return run


@pytest.fixture
def images():
    """Random pixels in [0, 255]."""

    def make(size, channels=3, batch=2):
        rng = np.random.default_rng(size)
        return rng.uniform(0, 255, (batch, size, size, channels)).astype("float32")

    return make


@pytest.fixture
def relative_difference():
    """Largest absolute difference over the largest absolute expected value."""

    def run(actual, expected):
        actual, expected = np.asarray(actual), np.asarray(expected)
        assert actual.shape == expected.shape
        assert np.isfinite(expected).all() and expected.std() > 0
        return np.abs(actual - expected).max() / np.abs(expected).max()

    return run
