"""The compiled residual sum against TensorFlow's operations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers import FusedMBConv

pytestmark = pytest.mark.usefixtures("compiled")


def sum_and_gradients(add, branch, skip):
    @tf.function
    def run(branch, skip):
        with tf.GradientTape() as tape:
            tape.watch([branch, skip])
            loss = tf.reduce_sum((y := add(branch, skip)) ** 2)
        return y, *tape.gradient(loss, [branch, skip])

    return [np.array(x) for x in run(tf.constant(branch), tf.constant(skip))]


# Images that end within a piece of work, for one thread and several.
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 5, 7, 3), (7, 64, 64, 24), (16, 4, 4, 192), (5, 6)], ids=str
)
def test_numbers_are_tensorflows(assert_near, images_of, shape):
    branch, skip = images_of(shape), images_of(shape, seed=1)
    factors = np.float32(np.arange(shape[0]) % 3).reshape([-1] + [1] * (len(shape) - 1))
    compiled = operations.residual_for(tf.float32)
    assert_near(
        ("y", "dbranch", "dskip"),
        sum_and_gradients(lambda x, y: compiled(branch=x, skip=y, factors=factors), branch, skip),
        sum_and_gradients(lambda x, y: x * factors + y, branch, skip),
        1e-6,
    )


def test_empty_images():
    empty = tf.zeros([0, 4, 4, 3])
    y = operations.residual_for(tf.float32)(branch=empty, skip=empty, factors=tf.zeros([0]))
    assert y.shape == (0, 4, 4, 3)


def test_what_does_not_fit():
    add = operations.residual_for(tf.float32)
    images = tf.zeros([2, 4, 4, 3])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a skip shaped \[2,4,4,3\]"):
        add(branch=images, skip=tf.zeros([2, 4, 4, 5]), factors=tf.zeros([2]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="each of 2 images, received 3"):
        add(branch=images, skip=images, factors=tf.zeros([3]))


def test_blocks_drop_the_same_images_with_it(assert_near, images_of, operations_of, monkeypatch):
    images = images_of((8, 6, 6, 8))

    def run():
        keras.utils.set_random_seed(1)
        block = FusedMBConv(8, 8, expansion=4, drop_path_rate=0.5)
        block.build(images.shape)
        step = tf.function(lambda x: block(x, training=True))
        return step(images), operations_of(step, images)

    ours, types = run()
    assert types.count("Effnetv2Residual") == 1
    assert "AddN" not in types
    dropped = [np.array_equal(x, y) for x, y in zip(ours, images, strict=True)]
    assert 0 < sum(dropped) < len(images)
    monkeypatch.setattr(operations, "in_use", lambda: False)
    theirs, types = run()
    assert "Effnetv2Residual" not in types
    assert_near(["y"], [np.array(ours)], [np.array(theirs)], 1e-5)
