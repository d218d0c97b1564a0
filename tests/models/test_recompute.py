"""What a model computes again for the gradient: the same numbers, less kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import set_recompute
from effnetv2_tf.keras_compat import flatten_layers, tf_variable
from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers import BatchNorm, FusedMBConv, MBConv

IMAGES = np.random.default_rng(5).normal(size=(4, 6, 6, 8)).astype("float32")


def _two_blocks():
    inputs = keras.Input((None, None, 8))
    x = FusedMBConv(8, 8, expansion=2, drop_path_rate=0.5, name="fused")(inputs)
    x = MBConv(8, 8, expansion=4, se_ratio=0.25, drop_path_rate=0.5, name="block")(x)
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.2, 0.6, w.shape).astype("float32") for w in model.weights])
    return model


def _step(model, images=IMAGES):
    """Gradients of a step in a graph, then the weights, moving statistics among them."""
    factors = np.random.default_rng(1).normal(3.0, 2.0, images.shape).astype("float32")

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(model(images, training=True) * factors)
        return tape.gradient(loss, [images, *map(tf_variable, model.trainable_weights)])

    return [*step(tf.constant(images)), *model.get_weights()]


@pytest.mark.parametrize("parts, count", [("norms", 3), ("blocks", 2)])
def test_recomputing_changes_nothing_but_memory(parts, count):
    results = []
    for recompute in (False, parts):
        keras.utils.set_random_seed(0)  # which samples stochastic depth drops
        model = _two_blocks()
        if recompute:
            assert set_recompute(model, recompute) == count
        results.append(_step(model))
    assert len(results[0]) == len(results[1]) > 20
    for plain, recomputed in zip(*results, strict=True):
        if parts == "norms":
            np.testing.assert_array_equal(plain, recomputed)
        else:
            np.testing.assert_allclose(plain, recomputed, rtol=1e-5, atol=1e-4)


def kept(parts):
    """Number of images between the passes: what the way back takes of the way there."""
    model = _two_blocks()
    set_recompute(model, parts)

    @tf.function
    def step(images, gradient):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
        return outputs, tape.gradient(outputs, model.trainable_variables, gradient)

    spec = tf.TensorSpec(IMAGES.shape)
    graph = step.get_concrete_function(spec, spec).graph
    late, kept = set(), set()
    for operation in graph.get_operations():  # in the order of their creation
        before = [*operation.control_inputs, *(tensor.op for tensor in operation.inputs)]
        if operation is graph.inputs[1].op or any(op.name in late for op in before):
            late.add(operation.name)
            for chain in map(views, operation.inputs):
                if any(x.shape.rank == 4 and x.shape[1] == 6 for x in chain):
                    kept.update(x.name for x in chain[-1:] if x.op.name not in late)
    return len(kept)


def views(tensor):
    """A tensor and what it is another shape of, the tensor that has the memory last."""
    found = [tensor]
    while found[-1].op.type == "Reshape":
        found.append(found[-1].op.inputs[0])
    return found


def test_blocks_keep_their_inputs_alone(without_kernels):
    assert kept("blocks") < kept("norms") < kept(False)
    assert kept("blocks") <= 4  # the two inputs, and the masks' factors


def test_compiled_norms_keep_less_than_recomputed_ones(monkeypatch):
    if not operations.in_use():
        pytest.skip("nothing is compiled")
    compiled = kept(False)
    assert kept("norms") == compiled  # there is nothing to compute again
    monkeypatch.setattr(operations, "in_use", lambda: False)
    assert compiled < kept("norms")


def test_recomputing_outside_of_graphs():
    keras.utils.set_random_seed(0)
    plain = _step(_two_blocks())
    keras.utils.set_random_seed(0)
    model = _two_blocks()
    set_recompute(model, "blocks")
    tf.config.run_functions_eagerly(True)
    try:
        eager = _step(model)
    finally:
        tf.config.run_functions_eagerly(False)
    for a, b in zip(plain, eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_the_last_setting_holds():
    model = _two_blocks()
    norms = [layer for layer in flatten_layers(model) if isinstance(layer, BatchNorm)]
    blocks = [model.get_layer(name) for name in ("fused", "block")]
    set_recompute(model)
    assert [norm.recompute for norm in norms].count(True) == 3
    set_recompute(model, "blocks")
    assert all(block.recompute for block in blocks)
    assert not any(norm.recompute for norm in norms)
    set_recompute(model, False)
    assert not any(layer.recompute for layer in [*norms, *blocks])


def test_a_model_without_such_parts():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, BatchNorm(activation="relu6")(inputs), name="relu_only")
    with pytest.raises(ValueError, match="batch norms followed by SiLU, received 'relu_only'"):
        set_recompute(model)
    with pytest.raises(ValueError, match="model with blocks, received 'relu_only', which has none"):
        set_recompute(model, "blocks")
    with pytest.raises(ValueError, match="'norms' or 'blocks'. Received: 'layers'"):
        set_recompute(model, "layers")


def test_blocks_without_batch_norms_have_nothing_to_synchronize():
    inputs = keras.Input((None, None, 8))
    block = MBConv(8, 8, normalization="layer", synchronized=True)
    assert set_recompute(keras.Model(inputs, block(inputs)), "blocks") == 1


def test_blocks_whose_norms_synchronize_replicas_do_not():
    inputs = keras.Input((None, None, 8))
    model = keras.Model(inputs, MBConv(8, 8, synchronized=True)(inputs))
    with pytest.raises(ValueError, match="which has none"):
        set_recompute(model, "blocks")
