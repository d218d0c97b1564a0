"""What the tests of compiled operations share."""

import numpy as np
import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.kernels import compiler, operations


@pytest.fixture(scope="module")
def compiled():
    """The library, made now if `make` has not made it."""
    if keras_compat.SAVES_TRAINING_STEPS:
        pytest.skip("Keras 2 has no use for one")
    if operations.in_use():
        return
    try:
        compiler.compile_library()
    except UsageError as error:
        pytest.skip(str(error))
    operations._library.cache_clear()  # it had found none
    assert operations.in_use()


@pytest.fixture(scope="session")
def assert_near():
    """Compares named arrays, each within a part of its largest value: roundings differ."""

    def compare(names, found, expected, tolerance):
        for name, a, b in zip(names, found, expected, strict=True):
            assert a.shape == b.shape
            worst = np.abs(a - b).max(initial=0.0) / max(np.abs(b).max(initial=0.0), 1e-3)
            assert worst < tolerance, f"{name}: {worst:.2g} of the largest value apart"

    return compare
