"""The fused batch norm against Keras's, and its statistics by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.keras_compat import KERAS_3, tf_variable
from effnetv2_tf.models.layers import BatchNorm

SHAPE = (4, 5, 6, 3)


def _images(seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(3.0, 2.0, SHAPE), tf.float32)


def _pair(**options):
    """Ours and Keras's with the same gamma, beta and moving statistics."""
    ours = BatchNorm(momentum=0.8, epsilon=1e-3, **options)
    theirs = keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-3)
    rng = np.random.default_rng(7)
    weights = [rng.uniform(0.5, 1.5, 3).astype("float32") for _ in range(4)]
    for layer in (ours, theirs):
        layer.build((None, None, None, 3))
        layer.set_weights(weights)
    return ours, theirs


def _gradients(layer, images, training):
    # Factors, so that the gradients differ from place to place.
    factors = tf.constant(np.random.default_rng(1).normal(3.0, 2.0, images.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(layer(images, training=training) * factors)
    return tape.gradient(loss, [images, *(tf_variable(w) for w in layer.trainable_weights)])


@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_keras(training):
    ours, theirs = _pair()
    np.testing.assert_allclose(
        ours(_images(), training=training), theirs(_images(), training=training), atol=2e-5
    )
    found, expected = (_gradients(x, _images(), training) for x in (ours, theirs))
    assert len(found) == len(expected) == 3
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_moving_statistics_by_hand():
    """The moving variance averages the unbiased batch variance."""
    layer = BatchNorm(momentum=0.9)
    layer(_images(), training=True)
    pixels = _images().numpy().reshape(-1, 3)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * pixels.mean(0), rtol=1e-4)
    unbiased = pixels.var(0, ddof=1)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.9 * 1 + 0.1 * unbiased, rtol=1e-5)
    layer(_images(), training=False)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * pixels.mean(0), rtol=1e-4)


def test_a_frozen_layer_normalises_with_its_moving_statistics():
    ours, theirs = _pair()
    ours.trainable = theirs.trainable = False
    before = ours.get_weights()
    outputs = ours(_images(), training=True)
    np.testing.assert_allclose(outputs, theirs(_images(), training=True), atol=2e-5)
    np.testing.assert_allclose(outputs, ours(_images(), training=False), atol=1e-6)
    for old, new in zip(before, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_activation_follows():
    plain, activated = BatchNorm(), BatchNorm(activation="silu")
    expected = tf.nn.silu(plain(_images(), training=True))
    np.testing.assert_allclose(activated(_images(), training=True), expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_statistics_stay_float32_under_mixed_precision(policy):
    keras.mixed_precision.set_global_policy(policy)
    layer = BatchNorm(momentum=0.9)
    outputs = layer(_images(), training=True)
    assert outputs.dtype == policy.removeprefix("mixed_")
    assert {tf.as_dtype(w.dtype) for w in layer.weights} == {tf.float32}
    for weight in layer.weights:
        assert weight.numpy().dtype == np.float32
    pixels = _images().numpy().reshape(-1, 3)
    # Rounded to the lower precision before the layer, not after.
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * pixels.mean(0), rtol=1e-2)
    assert not np.array_equal(
        layer.moving_mean.numpy(),
        tf.cast(tf.cast(layer.moving_mean.numpy(), tf.bfloat16), tf.float32),
    )


def test_config_round_trip():
    layer = BatchNorm(momentum=0.7, epsilon=1e-5, activation="relu6", synchronized=True, name="n")
    again = BatchNorm.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.momentum == 0.7
    assert again.synchronized


@pytest.mark.parametrize("momentum", [-0.1, 1.5])
def test_an_impossible_momentum(momentum):
    message = rf"`momentum` must lie in \[0, 1\].*momentum={momentum}"
    with pytest.raises(ValueError, match=message):
        BatchNorm(momentum=momentum)


def test_an_impossible_epsilon():
    with pytest.raises(ValueError, match=r"`epsilon` must be positive. Received: -1"):
        BatchNorm(epsilon=-1)


def test_momentum_0_keeps_the_last_statistics():
    layer, images = BatchNorm(momentum=0.0), _images()
    for _ in range(2):
        layer(images, training=True)
    np.testing.assert_allclose(layer.moving_mean, tf.reduce_mean(images, [0, 1, 2]), atol=1e-5)


def test_momentum_1_keeps_the_statistics():
    layer = BatchNorm(momentum=1.0)
    layer(_images(), training=True)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), 0)
    np.testing.assert_array_equal(layer.moving_variance.numpy(), 1)


def test_the_gradient_is_handed_no_zeros(without_kernels):
    """For the outputs that have no gradient: they were a twelfth of a step's operations."""
    norm = BatchNorm()
    norm.build((None, None, None, 3))

    @tf.function
    def step(images):
        return _gradients(norm, images, training=True)[0]

    graph = step.get_concrete_function(tf.TensorSpec(SHAPE)).graph
    assert any(op.type.startswith("FusedBatchNormGrad") for op in graph.get_operations())
    assert [op.name for op in graph.get_operations() if op.name.startswith("zeros")] == []


def test_recomputing_waits_for_the_gradient(without_kernels):
    """Else TensorFlow computes it at once and keeps it as long as what it stands in for."""
    norm = BatchNorm(activation="silu")
    norm.build((None, None, None, 3))
    norm.recompute = True

    @tf.function
    def step(images):
        return _gradients(norm, images, training=True)[0]

    graph = step.get_concrete_function(tf.TensorSpec(SHAPE)).graph
    norms = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    assert len(norms) == 2
    assert not norms[0].control_inputs
    assert norms[1].inputs[0].op.control_inputs


@pytest.mark.parametrize("activation", ["mish", "relu", "relu6", "silu", "tanh"])
def test_every_activation_is_predicted_after_a_convolution(activation):
    """TensorFlow makes one operation of the three, which it has not for all of them."""
    image = keras.Input((8, 8, 3))
    norm = BatchNorm(activation=activation)
    model = keras.Model(image, norm(keras.layers.Conv2D(4, 3, use_bias=False)(image)))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(
        model.predict(images, verbose=0), model(images, training=False), atol=1e-5
    )


def test_called_as_a_whole_within_a_strategy(two_cpus):
    """Outside of replicas the batch is the global one; there is nothing to add up."""
    two_cpus(
        """
        from effnetv2_tf.models.layers import BatchNorm
        images = tf.random.stateless_normal([4, 3, 3, 2], [1, 2])
        with strategy.scope():
            shared, alone = BatchNorm(synchronized=True), BatchNorm()
            outputs = [layer(images, training=True) for layer in (shared, alone)]
        np.testing.assert_allclose(*outputs, atol=1e-6)
        np.testing.assert_allclose(shared.moving_mean.numpy(), alone.moving_mean.numpy())
        """
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_synchronized_replicas_see_the_global_batch(two_cpus, recompute):
    """The moving variance, too, is unbiased for the images of all replicas."""
    two_cpus(
        f"""
        from effnetv2_tf.models.layers import BatchNorm
        images = tf.random.stateless_normal([4, 2, 2, 3], [1, 2], mean=3.0)
        alone = BatchNorm(activation="silu", momentum=0.5)
        expected = alone(images, training=True)
        with strategy.scope():
            shared = BatchNorm(activation="silu", momentum=0.5, synchronized=True)
            shared.build((None, 2, 2, 3))
        shared.recompute = {recompute}
        halves = strategy.experimental_distribute_values_from_function(
            lambda context: tf.split(images, 2)[context.replica_id_in_sync_group])
        outputs = strategy.run(lambda half: shared(half, training=True), args=(halves,))
        outputs = tf.concat(strategy.experimental_local_results(outputs), axis=0)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
        for ours, theirs in zip(shared.variables, alone.variables, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)
        """
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_a_replica_without_images_keeps_its_statistics(two_cpus, recompute):
    """An epoch's last batch may have fewer images than there are replicas."""
    two_cpus(
        f"""
        from effnetv2_tf.models.layers import BatchNorm
        with strategy.scope():
            norm = BatchNorm(activation="silu", momentum=0.5)
            norm.build((None, 3, 3, 2))
        norm.recompute = {recompute}
        shares = strategy.experimental_distribute_values_from_function(
            lambda context: tf.ones([1 - context.replica_id_in_sync_group, 3, 3, 2]))
        strategy.run(lambda images: norm(images, training=True), args=(shares,))
        mean = norm.moving_mean.numpy()  # of 0.5 in one replica and 0 in the other
        np.testing.assert_allclose(mean, [0.25, 0.25])
        assert np.isfinite(norm.moving_variance.numpy()).all()
        """
    )


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r"expected images \(batch, height, width, channels\)"):
        BatchNorm()(tf.zeros([2, 3]))


def test_double_precision_is_refused():
    with pytest.raises(ValueError, match=r"expected float32.*Received: dtype float64"):
        BatchNorm(dtype="float64").build((None, 2, 2, 3))


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 has no stateless_call")
def test_a_stateless_call_returns_the_statistics_and_changes_none():
    for layer in _pair():
        before = [variable.numpy() for variable in layer.variables]
        trainable, others = (
            [tf.constant(variable.numpy()) for variable in variables]
            for variables in (layer.trainable_variables, layer.non_trainable_variables)
        )
        _, updated = layer.stateless_call(trainable, others, _images(), training=True)
        for variable, value in zip(layer.variables, before, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value)
        layer(_images(), training=True)
        for variable, value in zip(layer.non_trainable_variables, updated, strict=True):
            np.testing.assert_allclose(variable.numpy(), value, rtol=1e-6)
