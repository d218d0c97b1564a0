"""Norms per image on two replicas, against one device: in a process of its own.

Virtual devices must be made before TensorFlow computes anything.
"""

import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import sys
import numpy as np
import tensorflow as tf

(device,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
from effnetv2_tf import NetworkSpec, RMSProp, StageSpec, build_network

spec = NetworkSpec(
    name="grouped",
    stages=(StageSpec("mbconv", 3, 1, 1, 16, 1), StageSpec("mbconv", 3, 2, 4, 24, 1, 0.25)),
    stem_filters=32,
    head_filters=16,
    group_size=16,
    normalization=sys.argv[2],
    proxy_normalization=True,
    dropout_rate=0.0,
    drop_path_rate=0.0,
)
images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype("float32")
labels = np.eye(4, dtype="float32")[np.arange(8) % 4]


def trained(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_network(spec, classes=4)
        model.compile(RMSProp(0.01, l2=0.1), "categorical_crossentropy")
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8).repeat(3)
    model.fit(data, epochs=1, steps_per_epoch=3, verbose=0)
    return [weight.numpy() for weight in model.weights]


one = trained(tf.distribute.get_strategy())
two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
arrays = {f"one/{i}": array for i, array in enumerate(one)}
arrays |= {f"two/{i}": array for i, array in enumerate(two)}
np.savez(sys.argv[1], **arrays)
"""


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["layer", "group"])
def test_two_replicas_train_as_one_device(tmp_path, normalization):
    """Nothing of the batch is shared, so nothing has to be synchronised."""
    path = tmp_path / "weights.npz"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), normalization],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    arrays = np.load(path)
    count = len(arrays.files) // 2
    assert count > 20
    for index in range(count):
        one, two = arrays[f"one/{index}"], arrays[f"two/{index}"]
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5, err_msg=str(index))
