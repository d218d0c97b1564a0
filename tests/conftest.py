"""Settings and small networks that all tests share."""

import os
import subprocess
import sys
import textwrap

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # before TensorFlow is imported

import hypothesis
import keras
import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.kernels import compiler, operations
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import NetworkSpec, StageSpec

# The same examples in every run; garbage collection alone may take longer than a deadline.
hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True)
hypothesis.settings.load_profile("fixed")

TINY = NetworkSpec(
    name="tiny",
    stages=(
        StageSpec("fused", 3, 1, 1, 8, 1),
        StageSpec("fused", 3, 2, 2, 8, 2),
        StageSpec("mbconv", 3, 2, 2, 16, 2, 0.25),
    ),
    stem_filters=8,
    head_filters=24,
)


@pytest.fixture(autouse=True)
def fresh_keras():
    """The same random numbers and the default precision for every test."""
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.mixed_precision.set_global_policy("float32")


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


@pytest.fixture
def tiny_spec() -> NetworkSpec:
    """A network of every block form, that is built and run in no time."""
    return TINY


@pytest.fixture
def tiny_network():
    """Builds the tiny network; arguments as `build_network`'s."""

    def build(**arguments):
        return build_network(TINY, **{"classes": 4, **arguments})

    return build


@pytest.fixture
def without_kernels(monkeypatch):
    """TensorFlow's operations, whatever is compiled."""
    monkeypatch.setattr(operations, "in_use", lambda: False)


@pytest.fixture
def two_cpus():
    """Runs code in a process that has a `strategy` of two replicas on the CPU."""
    head = """
        import numpy as np, tensorflow as tf
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    """

    def run(code: str) -> None:
        program = textwrap.dedent(head) + textwrap.dedent(code)
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    return run
