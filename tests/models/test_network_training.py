"""Plain `fit` on images of any size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import EfficientNetV2S, RMSProp, set_recompute

SIZES = [(300, 200), (97, 131)]


def _data(size, count, classes):
    """Images whose class is their brightness."""
    labels = np.arange(count) % classes
    images = np.random.default_rng(0).uniform(0, 60, (count, *size, 3))
    images += (195 * labels / (classes - 1))[:, None, None, None]
    return images.astype("float32"), np.eye(classes, dtype="float32")[labels]


def _compiled(model):
    model.compile(
        RMSProp(0.003, momentum=0.9),
        "categorical_crossentropy",
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    return model


def test_a_small_network_learns_from_images_of_an_odd_size(tiny_network):
    model = _compiled(tiny_network(dropout_rate=0.0, drop_path_rate=0.0))
    losses = model.fit(*_data((19, 27), 32, 4), batch_size=8, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert np.isfinite(losses).all()


def test_one_trace_for_both_sizes(tiny_network):
    model = _compiled(tiny_network())
    traces, original = [], model.train_step

    def train_step(data):
        traces.append(data[0].shape)
        return original(data)

    model.train_step = tf.autograph.experimental.do_not_convert(train_step)
    model.optimizer.build(model.trainable_variables)

    def batches():
        for size in ((30, 20), (19, 27)):
            yield _data(size, 4, 4)

    types = (tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, 4)))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=types)
    model.fit(dataset.apply(tf.data.experimental.assert_cardinality(2)), verbose=0)
    assert len(traces) == 1
    assert int(model.optimizer.iterations) == 2


def test_fine_tuning_with_a_frozen_network(tiny_network):
    backbone = tiny_network(include_top=False, pooling="avg")
    backbone.trainable = False
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Dense(4, activation="softmax")(backbone(image)))
    _compiled(model)
    before = backbone.get_weights()
    model.fit(*_data((20, 20), 8, 4), batch_size=4, verbose=0)
    for old, new in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # moving statistics too
    assert len(model.trainable_weights) == 2


def test_low_precision_trains(tiny_network):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = _compiled(tiny_network())
    losses = model.fit(*_data((20, 20), 16, 4), batch_size=8, epochs=4, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert {w.numpy().dtype for w in model.weights} == {np.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_efficientnetv2_s_trains_with_plain_fit(size):
    model = _compiled(EfficientNetV2S(classes=10, drop_path_rate=0.0))
    before = model.get_weights()
    history = model.fit(*_data(size, 4, 10), batch_size=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    changed = sum(
        not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)
    )
    assert changed == len(before)


@pytest.mark.parametrize("recompute", [False, True], ids=["plain", "recomputing"])
def test_the_gradient_keeps_nothing_that_it_computes_ahead(tiny_network, recompute):
    """TensorFlow runs an operation once its inputs are there: what the way back computes from
    the forward pass alone would lie in memory from there on. It has to wait for a gradient.
    """
    model = tiny_network(drop_path_rate=0.2)
    if recompute:
        set_recompute(model)

    @tf.function
    def step(images, gradient):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
        return outputs, tape.gradient(outputs, model.trainable_variables, gradient)

    specs = (tf.TensorSpec((2, 32, 32, 3)), tf.TensorSpec((2, model.output_shape[-1])))
    graph = step.get_concrete_function(*specs).graph
    operations = graph.get_operations()
    inputs = {op.name: _inputs(op) for op in operations}
    forward = _with_ancestors(graph.outputs[:1], inputs)
    needed = _with_ancestors(graph.outputs, inputs)  # the rest will be pruned
    late = _with_descendants(graph.inputs[1].op, operations, inputs)
    images_ahead = [
        f"{op.name} ({op.type})"
        for op in operations
        if op.name in needed - forward - late
        and any(tensor.shape.rank == 4 and tensor.shape[1] != 1 for tensor in op.outputs)
    ]
    assert not images_ahead


def _inputs(operation):
    return [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]


def _with_ancestors(tensors, inputs):
    found, waiting = set(), [tensor.op for tensor in tensors]
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found.add(operation.name)
            waiting += inputs[operation.name]
    return found


def _with_descendants(operation, operations, inputs):
    found = {operation.name}
    for operation in operations:  # in the order in which they were made
        if any(source.name in found for source in inputs[operation.name]):
            found.add(operation.name)
    return found
