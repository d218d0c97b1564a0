"""What the tests of compiled operations share."""

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
