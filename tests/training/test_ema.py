"""The average of weights, against sums done by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import ExponentialMovingAverage, build_network, keras_compat
from effnetv2_tf.keras_compat import variable_path


def _model(**compile_options):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False, **compile_options)
    model.optimizer.build(model.trainable_variables)
    return model


def _data(count=20):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 3)).astype("float32"), rng.normal(size=(count, 1))


class _History(keras.callbacks.Callback):
    """The raw weights after every step."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_begin(self, logs=None):
        self.weights.append(self.model.get_weights())

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(self.model.get_weights())


def _names(model):
    return [variable_path(weight) for weight in model.weights]


def _by_hand(history, decay_at):
    averages = [w.copy() for w in history[0]]
    for step, weights in enumerate(history[1:], start=1):
        d = decay_at(step)
        averages = [d * a + (1 - d) * w for a, w in zip(averages, weights, strict=True)]
    return averages


@pytest.mark.parametrize(
    ("warmup", "decay_at"),
    [
        (False, lambda step: 0.8),
        (True, lambda step: min(0.3, (1 + step) / (10 + step))),  # reaches 0.3 at step 3
    ],
    ids=["constant", "warm-up"],
)
def test_averages_by_hand(warmup, decay_at):
    model, history = _model(), _History()
    ema = ExponentialMovingAverage(decay_at(1000), warmup=warmup)
    model.fit(*_data(), batch_size=4, epochs=1, callbacks=[ema, history], verbose=0)
    assert len(history.weights) == 6
    expected = _by_hand(history.weights, decay_at)
    for weight, average, hand in zip(model.weights, ema.averages, expected, strict=True):
        np.testing.assert_allclose(
            average.numpy(), hand, rtol=1e-5, atol=1e-6, err_msg=variable_path(weight)
        )


class Subclassed(keras.Model):
    """Has all weights of one layer, and none of the other, before it is called."""

    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(4), keras.layers.Dense(1)
        self.first.build((None, 3))

    def call(self, inputs):
        return self.second(self.first(inputs))


@pytest.mark.parametrize(
    "make",
    [lambda: keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1)]), Subclassed],
    ids=["sequential", "subclassed"],
)
def test_a_model_that_the_first_batch_builds(make):
    model, after = make(), []
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    ema = ExponentialMovingAverage(0.5, warmup=False)
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: after.append(model.get_weights())
    )
    model.fit(*_data(12), batch_size=4, callbacks=[ema, note], verbose=0)
    expected = _by_hand(after, lambda step: 0.5)
    assert len(ema.averages) == len(expected) == 4
    for average, hand in zip(ema.averages, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), hand, rtol=1e-5, atol=1e-6)
    model.fit(*_data(12), batch_size=4, callbacks=[ema], verbose=0)  # goes on


def test_build_wants_a_model_with_weights():
    model = keras.Sequential([keras.layers.Dense(1)], name="bare")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"has its weights. Received: 'bare', not built"):
        ExponentialMovingAverage().build(model)


def test_moving_statistics_are_averaged_too():
    model = _model()
    ema = ExponentialMovingAverage(0.5, warmup=False)
    model.fit(*_data(), batch_size=4, callbacks=[ema], verbose=0)
    names = [variable_path(weight).split("/")[-1] for weight in model.weights]
    moved = ema.averages[names.index("moving_variance")].numpy()
    assert not np.allclose(moved, 1.0)
    assert not np.allclose(moved, model.weights[names.index("moving_variance")].numpy())


def test_warm_up_follows_the_global_step():
    model, history = _model(), _History()
    model.optimizer.iterations.assign(90)
    ema = ExponentialMovingAverage(0.99)
    model.fit(*_data(4), batch_size=4, callbacks=[ema, history], verbose=0)
    expected = _by_hand(history.weights, lambda step: (1 + 90 + step) / (10 + 90 + step))
    np.testing.assert_allclose(ema.averages[0].numpy(), expected[0], rtol=1e-4, atol=1e-6)


def test_a_call_without_a_step_changes_nothing():
    model = _model()
    ema = ExponentialMovingAverage(0.5, warmup=False)
    model.fit(*_data(), batch_size=4, callbacks=[ema], verbose=0)
    before = [average.numpy() for average in ema.averages]
    for _ in range(3):
        ema.on_train_batch_end(0)
    for average, old in zip(ema.averages, before, strict=True):
        np.testing.assert_array_equal(average.numpy(), old)


class _Restore(keras.callbacks.Callback):
    """As `BackupAndRestore` after an interruption: other weights, and an optimizer's steps."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def on_train_begin(self, logs=None):
        self.model.set_weights(self.weights)
        self.model.optimizer.iterations.assign(100)


@pytest.mark.parametrize("ema_is_first", [True, False])
def test_what_another_callback_restores_is_what_the_averages_begin_with(ema_is_first):
    restored = [weight + 1.0 for weight in _model().get_weights()]
    model, history = _model(), _History()
    ema = ExponentialMovingAverage(0.9, warmup=False)
    callbacks = [ema, _Restore(restored)] if ema_is_first else [_Restore(restored), ema]
    with pytest.warns(UserWarning, match="has made 100 updates before"):
        model.fit(*_data(), batch_size=4, shuffle=False, verbose=0, callbacks=[*callbacks, history])
    history.weights[0] = restored
    expected = _by_hand(history.weights, lambda step: 0.9)
    for name, average, value in zip(_names(model), ema.averages, expected, strict=True):
        np.testing.assert_allclose(average, value, rtol=1e-5, err_msg=name)


@pytest.mark.skipif(not keras_compat.KERAS_3, reason="Keras 2 accumulates no gradients")
def test_accumulated_gradients_are_one_update():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model, history = _model(), _History()
    model.compile(optimizer, "mse", jit_compile=False)
    ema = ExponentialMovingAverage(0.5)
    model.fit(*_data(40), batch_size=4, shuffle=False, verbose=0, callbacks=[history, ema])
    updated = history.weights[::2]  # batch norm's statistics move at every step
    expected = _by_hand(updated, lambda update: min(0.5, (1 + update) / (10 + update)))
    for name, average, value in zip(_names(model), ema.averages, expected, strict=True):
        np.testing.assert_allclose(average, value, atol=1e-6, err_msg=name)


def test_weights_in_half_precision_are_refused():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, dtype="bfloat16")])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="expected weights in float32.*kernel in bfloat16"):
        ExponentialMovingAverage().build(model)


def test_several_steps_per_execution_decay_as_often():
    model, history = _model(steps_per_execution=5), _History()
    ema = ExponentialMovingAverage(0.9, warmup=False)
    model.fit(*_data(), batch_size=4, callbacks=[ema, history], verbose=0)
    first, last = history.weights[0][0], history.weights[-1][0]
    expected = 0.9**5 * first + (1 - 0.9**5) * last
    np.testing.assert_allclose(ema.averages[0].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_validation_uses_the_average_and_training_goes_on_with_raw_weights():
    model, history = _model(), _History()
    ema = ExponentialMovingAverage(0.5, warmup=False)
    validation = _data(8)
    log = model.fit(
        *_data(),
        batch_size=4,
        shuffle=False,
        callbacks=[ema, history],
        validation_data=validation,
        verbose=0,
    )
    raw = history.weights[-1]
    for weight, expected in zip(model.get_weights(), raw, strict=True):
        np.testing.assert_array_equal(weight, expected)
    model.set_weights(_by_hand(history.weights, lambda step: 0.5))
    expected_loss = model.evaluate(*validation, verbose=0)
    assert log.history["val_loss"] == [pytest.approx(expected_loss, rel=1e-4)]


def test_applied_swaps_and_swaps_back_even_after_an_error():
    model = _model()
    ema = ExponentialMovingAverage(0.5, warmup=False)
    model.fit(*_data(), batch_size=4, callbacks=[ema], verbose=0)
    raw, averages = model.get_weights(), [a.numpy() for a in ema.averages]
    with pytest.raises(RuntimeError, match="on purpose"), ema.applied():
        np.testing.assert_array_equal(model.get_weights()[0], averages[0])
        with ema.applied():  # within itself it does nothing
            np.testing.assert_array_equal(model.get_weights()[0], averages[0])
        np.testing.assert_array_equal(model.get_weights()[0], averages[0])
        raise RuntimeError("on purpose")
    np.testing.assert_array_equal(model.get_weights()[0], raw[0])
    np.testing.assert_array_equal(ema.averages[0].numpy(), averages[0])


def test_a_second_fit_after_an_interrupted_validation_has_raw_weights():
    model = _model()
    ema = ExponentialMovingAverage(0.5, warmup=False)
    model.fit(*_data(), batch_size=4, callbacks=[ema], verbose=0)
    raw = model.get_weights()
    ema.on_test_begin()  # and an exception: `on_test_end` is never called
    ema.on_train_begin()
    np.testing.assert_array_equal(model.get_weights()[0], raw[0])


def test_averages_are_no_weights_of_the_model(tiny_spec):
    model = build_network(tiny_spec, classes=2)
    model.compile("sgd", "categorical_crossentropy")
    count = model.count_params()
    ema = ExponentialMovingAverage(0.9)
    ema.build(model)
    assert model.count_params() == count
    assert len(ema.named_variables) == len(model.weights) + 1
    assert ema.named_variables["last_step"].dtype == tf.int64


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_an_impossible_decay(decay):
    with pytest.raises(ValueError, match=rf"`decay` must lie in \[0, 1\).*decay={decay}"):
        ExponentialMovingAverage(decay)


def _weights_at_epoch_ends(history, steps):
    return [history.weights[0], *history.weights[steps::steps]]


@pytest.mark.parametrize("validates", [False, True])
def test_averages_over_epochs_by_hand(validates):
    """The weights of the first epoch, then d = 0.8; batch-norm statistics like the others."""
    model, history = _model(), _History()
    ema = ExponentialMovingAverage(0.8, warmup=False, every="epoch")
    data = {"validation_data": _data(8)} if validates else {}
    model.fit(*_data(), batch_size=4, epochs=3, callbacks=[ema, history], verbose=0, **data)
    ends = _weights_at_epoch_ends(history, 5)
    assert len(ends) == 4
    expected = _by_hand(ends, lambda epoch: 0.8 if epoch > 1 else 0.0)
    assert not np.allclose(expected[0], ends[-1][0], atol=1e-4)
    for weight, average, hand in zip(model.weights, ema.averages, expected, strict=True):
        np.testing.assert_allclose(
            average.numpy(), hand, rtol=1e-5, atol=1e-6, err_msg=variable_path(weight)
        )


def test_warm_up_over_epochs():
    model, history = _model(), _History()
    ema = ExponentialMovingAverage(0.22, every="epoch")
    model.fit(*_data(), batch_size=4, epochs=4, callbacks=[ema, history], verbose=0)
    decays = {1: 0.0, 2: 0.22, 3: 0.22, 4: 0.22}  # 3 / 12 at epoch 2 is over the limit already
    expected = _by_hand(_weights_at_epoch_ends(history, 5), decays.__getitem__)
    np.testing.assert_allclose(ema.averages[0].numpy(), expected[0], rtol=1e-5, atol=1e-6)
    ema, history = ExponentialMovingAverage(0.9, every="epoch"), _History()
    model.fit(*_data(), batch_size=4, epochs=3, callbacks=[ema, history], verbose=0)
    decays = {1: 0.0, 2: 3 / 12, 3: 4 / 13}
    expected = _by_hand(_weights_at_epoch_ends(history, 5), decays.__getitem__)
    np.testing.assert_allclose(ema.averages[0].numpy(), expected[0], rtol=1e-5, atol=1e-6)


def test_an_epochs_validation_uses_its_average():
    model, history = _model(), _History()
    ema = ExponentialMovingAverage(0.5, warmup=False, every="epoch")
    options = {"batch_size": 4, "epochs": 2, "callbacks": [ema, history], "verbose": 0}
    log = model.fit(*_data(), shuffle=False, validation_data=_data(8), **options)
    model.set_weights([average.numpy() for average in ema.averages])
    assert log.history["val_loss"][-1] == pytest.approx(
        model.evaluate(*_data(8), verbose=0), rel=1e-4
    )


def test_without_averaging_the_averages_are_the_weights():
    for every in ("step", "epoch"):
        model = _model()
        ema = ExponentialMovingAverage(0.9, warmup=False, every=every)
        model.fit(*_data(), batch_size=4, epochs=2, callbacks=[ema], verbose=0)
        averages = [average.numpy() for average in ema.averages]
        assert not np.array_equal(averages[0], model.get_weights()[0])
        ema.adopt()
        np.testing.assert_array_equal(model.get_weights()[0], averages[0])
        ema.averaging = False
        model.fit(*_data(), batch_size=4, epochs=2, callbacks=[ema], verbose=0)
        assert not np.array_equal(ema.averages[0].numpy(), averages[0])
        for average, weight in zip(ema.averages, model.get_weights(), strict=True):
            np.testing.assert_allclose(average.numpy(), weight, atol=1e-7)


def test_an_unknown_interval():
    with pytest.raises(ValueError, match="`every` must be 'step' or 'epoch'.*'batch'"):
        ExponentialMovingAverage(0.9, every="batch")


def test_compiled_again_it_goes_on_averaging():
    model, history = _model(), _History()
    ema = ExponentialMovingAverage(0.5, warmup=False)
    model.fit(*_data(), batch_size=4, callbacks=[ema], verbose=0)
    averages = [average.numpy() for average in ema.averages]
    model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    model.fit(*_data(12), batch_size=4, callbacks=[ema, history], verbose=0)
    history.weights[0] = averages
    expected = _by_hand(history.weights, lambda step: 0.5)
    for average, hand in zip(ema.averages, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), hand, rtol=1e-5, atol=1e-6)


def test_another_model_is_refused():
    ema = ExponentialMovingAverage(0.5)
    ema.build(_model())
    with pytest.raises(ValueError, match="received another one.*new callback for each model"):
        _model().fit(*_data(4), callbacks=[ema], verbose=0)


def test_nothing_is_averaged_yet():
    ema = ExponentialMovingAverage(0.5)
    with pytest.raises(RuntimeError, match=r"no averages yet.*`build\(model\)`"), ema.applied():
        pass
    with pytest.raises(RuntimeError, match="no averages yet"):
        ema.adopt()


def test_other_callbacks_see_the_averages_at_the_end_of_an_epoch(tmp_path):
    model, (x, y) = _model(), _data()
    ema = ExponentialMovingAverage(0.9, swap_on_epoch=True)
    history = _History()
    best = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True)
    callbacks = [ema, best, history]
    model.fit(x, y, validation_data=(x, y), epochs=3, verbose=0, callbacks=callbacks)
    saved = keras.models.load_model(tmp_path / "best.keras").evaluate(x, y, verbose=0)
    assert saved == pytest.approx(best.best, rel=1e-5)
    averages = _by_hand(history.weights, lambda t: min(0.9, (1 + t) / (10 + t)))
    for value, average in zip(model.get_weights(), averages, strict=True):
        np.testing.assert_allclose(value, average, atol=1e-6)
    ema.restore_raw()
    for value, raw in zip(model.get_weights(), history.weights[-1], strict=True):
        np.testing.assert_array_equal(value, raw)
    ema.adopt()
    np.testing.assert_allclose(model.get_weights()[0], averages[0], atol=1e-6)


def test_early_stopping_restores_the_best_averages():
    model, (x, y) = _model(), _data()
    ema = ExponentialMovingAverage(0.5, warmup=False, swap_on_epoch=True)
    stopping = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
    callbacks = [ema, stopping]
    rising = keras.callbacks.LearningRateScheduler(lambda epoch: (0.1, 0.1, 3.0, 3.0)[epoch])
    log = model.fit(
        x, y, validation_data=(x, y), epochs=4, verbose=0, callbacks=[rising, *callbacks]
    ).history["val_loss"]
    assert log.index(min(log)) < len(log) - 1, "the last epoch was to be a bad one"
    assert model.evaluate(x, y, verbose=0) == pytest.approx(min(log), rel=1e-5)


@pytest.mark.parametrize("changed", [False, True])
def test_a_further_fit_goes_on_with_the_raw_weights_or_with_what_was_loaded(changed):
    model, (x, y) = _model(), _data()
    ema = ExponentialMovingAverage(0.9, swap_on_epoch=True)
    history = _History()
    model.fit(x, y, epochs=2, verbose=0, callbacks=[ema, history])
    expected = history.weights[-1]
    if changed:
        expected = [weight + 0.5 for weight in model.get_weights()]
        model.set_weights(expected)
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    model.fit(x, y, verbose=0, callbacks=[ema])
    ema.restore_raw()
    for value, weight in zip(model.layers[0].get_weights(), expected[:2], strict=True):
        np.testing.assert_allclose(value, weight, atol=1e-6)


def test_whole_numbers_are_copied():
    class Counting(keras.layers.Layer):
        def build(self, input_shape):
            self.count = self.add_weight(
                name="count", shape=(), dtype="int32", initializer="zeros", trainable=False
            )

        def call(self, inputs):
            self.count.assign(self.count + 1)
            return inputs

    model = keras.Sequential([keras.Input((3,)), Counting(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    ema = ExponentialMovingAverage(0.9)
    model.fit(*_data(), batch_size=5, verbose=0, callbacks=[ema])
    before = int(model.layers[0].count)
    assert before >= 4
    ema.adopt()
    assert int(model.layers[0].count) == before


def test_two_networks_of_the_same_names_keep_their_averages():
    def network(name):
        layers = [keras.Input((3,)), keras.layers.Dense(2, name="dense")]
        return keras.Sequential(layers, name=name)

    inputs = keras.Input((3,))
    outputs = keras.layers.Average()([network("a")(inputs), network("b")(inputs)])
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    ema = ExponentialMovingAverage(0.9)
    ema.build(model)
    assert len(ema.named_variables) == 1 + len(model.weights)


def test_a_model_must_be_compiled():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="expected a compiled model"):
        ExponentialMovingAverage().build(model)


def test_an_interrupted_evaluation_of_a_further_fit_leaves_the_raw_weights():
    model, (x, y) = _model(), _data()
    ema, history = ExponentialMovingAverage(0.9, swap_on_epoch=True), _History()
    model.fit(x, y, epochs=1, verbose=0, callbacks=[ema])

    class Interrupt(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callbacks = [ema, history, Interrupt()]
        model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=callbacks)
    again = _History()
    model.fit(x, y, verbose=0, callbacks=[ema, again])
    for value, raw in zip(again.weights[0], history.weights[-1], strict=True):
        np.testing.assert_array_equal(value, raw)


def test_swapped_in_averages_are_adopted_and_stay_when_evaluated():
    model, (x, y) = _model(), _data()
    ema, history = ExponentialMovingAverage(0.5, warmup=False, swap_on_epoch=True), _History()
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[ema, history])
    averages = _by_hand(history.weights, lambda step: 0.5)
    model.evaluate(x, y, verbose=0, callbacks=[ema])
    for adopted in (False, True):
        for value, average in zip(model.get_weights(), averages, strict=True):
            np.testing.assert_allclose(value, average, atol=1e-6, err_msg=f"adopted: {adopted}")
        ema.adopt()


def test_after_other_weights_were_loaded_the_averages_begin_with_them():
    model, (x, y) = _model(), _data()
    ema = ExponentialMovingAverage(0.5, warmup=False, swap_on_epoch=True)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[ema])
    model.set_weights([weight + 0.5 for weight in model.get_weights()])
    history = _History()
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[ema, history])
    expected = _by_hand(history.weights, lambda step: 0.5)
    for value, hand in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(value, hand, rtol=1e-5, atol=1e-6)
