"""What a checkpoint holds of a run, and what it says when it does not fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import ExponentialMovingAverage, RMSProp, build_network
from effnetv2_tf.errors import UsageError
from effnetv2_tf.training.state import (
    TrainingState,
    averaged_weights,
    load_for_inference,
    weights_by_name,
)


def _run(spec, steps=0):
    """The model and the average of a run; without steps their values are made up."""
    keras.utils.set_random_seed(5)  # the same random streams
    model = build_network(spec, classes=3)
    model.compile(
        RMSProp(0.01), "categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    model.optimizer.build(model.trainable_variables)
    ema = ExponentialMovingAverage(0.5, warmup=False)
    ema.build(model)
    if steps:
        images = np.random.default_rng(0).uniform(0, 255, (4 * steps, 16, 16, 3))
        labels = np.eye(3)[np.arange(4 * steps) % 3]
        model.fit(images, labels, batch_size=4, callbacks=[ema], verbose=0)
    else:
        model.set_weights([weight + 0.5 for weight in model.get_weights()])
    return model, ema


def test_every_variable_is_there_under_a_name_of_its_own(tiny_spec):
    model, ema = _run(tiny_spec, steps=1)
    arrays = TrainingState(model, ema).arrays()
    groups = {
        group: sum(name.startswith(group + "/") for name in arrays)
        for group in ("model", "optimizer", "ema", "random", "metric")
    }
    assert groups["model"] == len(model.weights)
    assert groups["ema"] == len(model.weights) + 1
    # The step, and RMSProp's two slots; dropout's place in its stream, and three drop paths'.
    assert groups["optimizer"] >= 1 + 2 * len(model.trainable_variables)
    assert groups["random"] >= 4
    assert groups["metric"] == 4  # sum and count of loss and accuracy


def test_restoring_gives_the_same_next_step(tiny_spec):
    model, ema = _run(tiny_spec, steps=2)
    arrays = TrainingState(model, ema).arrays()
    other, other_ema = _run(tiny_spec)
    TrainingState(other, other_ema).restore(arrays, "a.npz")
    restored = TrainingState(other, other_ema).arrays()
    for name, array in arrays.items():
        if not name.startswith("metric/"):
            np.testing.assert_array_equal(restored[name], array, err_msg=name)
    batch = np.full((4, 16, 16, 3), 77.0), np.eye(3)[[0, 1, 2, 0]]
    for each in (model, other):
        each.train_on_batch(*batch)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_arrays_are_copies(tiny_spec):
    model, _ = _run(tiny_spec)
    state = TrainingState(model)
    arrays = state.arrays()
    name = next(iter(arrays))
    before = arrays[name].copy()
    weights_by_name(model)[name].assign_add(tf.ones_like(weights_by_name(model)[name]))
    np.testing.assert_array_equal(arrays[name], before)


def test_inference_takes_averages_or_raw_weights(tiny_spec):
    model, ema = _run(tiny_spec)
    arrays = TrainingState(model, ema).arrays()
    other = build_network(tiny_spec, classes=3)
    load_for_inference(other, arrays, "a.npz")
    for weight, average in zip(other.get_weights(), ema.averages, strict=True):
        np.testing.assert_array_equal(weight, average.numpy())
    load_for_inference(other, arrays, "a.npz", raw=True)
    for weight, raw in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, raw)


def test_without_averages_inference_takes_raw_weights(tiny_spec):
    model, _ = _run(tiny_spec)
    arrays = TrainingState(model).arrays()
    values = averaged_weights(arrays, model)
    assert values.keys() == weights_by_name(model).keys()
    for name, value in values.items():
        np.testing.assert_array_equal(value, arrays[name])


def test_another_shape_is_named(tiny_spec):
    model, ema = _run(tiny_spec)
    arrays = TrainingState(model, ema).arrays()
    other = build_network(tiny_spec, classes=5)
    message = r"a\.npz: model/classifier/kernel has shape \(24, 3\), expected \(24, 5\)"
    with pytest.raises(UsageError, match=message):
        load_for_inference(other, arrays, "a.npz", raw=True)


def test_a_missing_variable_is_named_and_nothing_is_changed(tiny_spec):
    model, ema = _run(tiny_spec)
    arrays = TrainingState(model, ema).arrays()
    del arrays["optimizer/iterations"]
    other, other_ema = _run(tiny_spec)
    before = other.get_weights()
    with pytest.raises(UsageError, match=r"a\.npz: optimizer/iterations is missing"):
        TrainingState(other, other_ema).restore(arrays, "a.npz")
    for old, new in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_without_random_layers():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    assert not any(name.startswith("random/") for name in TrainingState(model).arrays())
