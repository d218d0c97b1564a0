"""`ProgressiveLearning` with plain `fit`: what the network sees, step by step."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import AdamW, ExponentialMovingAverage, ProgressiveLearning
from effnetv2_tf.keras_compat import KERAS_3


def _fit(plain, progressive, **options):
    return plain.model.fit(
        progressive.fit_dataset(),
        epochs=options.pop("epochs", progressive.schedule.epochs),
        callbacks=[progressive, *options.pop("callbacks", [])],
        verbose=0,
        **options,
    )


def _sides(plain):
    return [shape[1] for shape in plain.inputs.shapes]


def test_a_plain_model_sees_the_sizes_of_the_stages(plain_model, make_schedule, batches):
    plain = plain_model()
    history = _fit(plain, ProgressiveLearning(make_schedule(), batches))
    assert plain.inputs.shapes == [(4, 8, 8, 1)] * 6 + [(4, 12, 12, 1)] * 6
    assert plain.inputs.values == [1, 2, 3] * 4
    assert plain.steps == 12
    assert history.epoch == [0, 1, 2, 3]
    assert len(history.history["loss"]) == 4


def test_a_dataset_that_must_be_told_where_to_begin(plain_model, make_schedule, batches):
    told = []

    def make_dataset(stage, start_step, input_context):
        told.append((start_step, input_context))
        return batches(stage)

    plain = plain_model()
    _fit(plain, ProgressiveLearning(make_schedule(), make_dataset))
    assert told == [(0, None), (0, None), (6, None)]


def test_one_trace_serves_all_sizes(plain_model, make_schedule, batches):
    plain = plain_model()
    _fit(plain, ProgressiveLearning(make_schedule(), batches))
    assert plain.traces == [(None, None, None, 1)]


def test_static_sizes_are_traced_once_a_stage(plain_model, make_schedule, batches):
    plain = plain_model()
    make = lambda stage: batches(stage).unbatch().batch(4, drop_remainder=True)  # noqa: E731
    _fit(plain, ProgressiveLearning(make_schedule(), make, dynamic_sizes=False))
    assert plain.traces == [(4, 8, 8, 1), (4, 12, 12, 1)]


def test_static_batch_sizes_are_traced_once_a_stage(plain_model, make_schedule):
    """Of stages of one image size too: the second would be traced for any batch size."""
    plain = plain_model()
    schedule = make_schedule(image_size=(8, 8), batch_size=(4, 6))

    def make_dataset(stage):
        one = tf.data.Dataset.from_tensors((tf.ones((8, 8, 1)), 1))
        return one.repeat().batch(stage.batch_size, drop_remainder=True)

    _fit(plain, ProgressiveLearning(schedule, make_dataset, dynamic_sizes=False))
    assert plain.traces == [(4, 8, 8, 1), (6, 8, 8, 1)]


def test_logs_tell_every_scheduled_value(plain_model, make_schedule, batches, ends):
    schedule = make_schedule(
        **ends(
            randaugment_magnitude=(5, 15),
            mixup_alpha=(0, 0.2),
            cutmix_alpha=(0, 1),
            dropout_rate=(0.1, 0.3),
        )
    )
    plain = plain_model(keras.layers.Dropout(0.5))
    history = _fit(plain, ProgressiveLearning(schedule, batches)).history
    assert history["stage"] == [0, 0, 1, 1]
    assert history["image_size"] == [8, 8, 12, 12]
    assert history["batch_size"] == [4] * 4
    assert history["randaugment_magnitude"] == [5, 5, 15, 15]
    assert history["mixup_alpha"] == [0, 0, 0.2, 0.2]
    assert history["cutmix_alpha"] == [0, 0, 1, 1]
    assert history["dropout_rate"] == [0.1, 0.1, 0.3, 0.3]
    assert history["learning_rate"] == pytest.approx([0.01] * 4)
    assert "drop_path_rate" not in history


def test_batch_logs_tell_stage_and_size(plain_model, make_schedule, batches):
    seen = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append((logs["stage"], logs["image_size"]))
    )
    _fit(plain_model(), ProgressiveLearning(make_schedule(), batches), callbacks=[record])
    assert seen == [(0, 8)] * 6 + [(1, 12)] * 6


def test_batch_sizes_of_the_stages(plain_model, make_schedule, batches):
    plain = plain_model()
    schedule = make_schedule(batch_size=[6, 4])  # epochs of 2 and of 3 steps
    history = _fit(plain, ProgressiveLearning(schedule, batches))
    assert plain.inputs.shapes == [(6, 8, 8, 1)] * 4 + [(4, 12, 12, 1)] * 6
    assert plain.inputs.values == [1, 2] * 2 + [1, 2, 3] * 2
    assert plain.steps == schedule.total_steps == 10
    assert history.history["batch_size"] == [6, 6, 4, 4]


def test_the_loss_of_an_epoch_is_its_own_mean(plain_model, make_schedule, batches):
    """Also where a shorter epoch's surplus steps do nothing."""
    plain = plain_model()
    plain.model.optimizer.learning_rate = 0.0
    history = _fit(plain, ProgressiveLearning(make_schedule(batch_size=[6, 4]), batches))
    expected = plain.model.evaluate(batches(make_schedule().stages[0]), verbose=0)
    assert history.history["loss"] == pytest.approx([expected] * 4)


def test_starts_in_the_middle_of_an_epoch(plain_model, make_schedule, batches):
    plain = plain_model()
    plain.model.optimizer.iterations.assign(7)  # one step of stage 2's first epoch is made
    history = _fit(plain, ProgressiveLearning(make_schedule(), batches), initial_epoch=2)
    assert _sides(plain) == [12] * 5
    assert plain.inputs.values == [2, 3, 1, 2, 3]
    assert plain.steps == 12
    assert history.history["stage"] == [1, 1]


@pytest.mark.parametrize("steps_made", [4, 7])
def test_a_dataset_longer_than_an_epoch_goes_on_where_it_was(
    plain_model, make_schedule, batches, steps_made
):
    """With five batches for epochs of three steps: by the stage's steps, not the epoch's."""

    def make_dataset(stage):
        shape = (stage.batch_size, stage.image_size, stage.image_size, 1)
        one_to_five = tf.data.Dataset.range(1, 6)
        return one_to_five.map(lambda i: (tf.fill(shape, tf.cast(i, tf.float32)), [0] * shape[0]))

    uninterrupted, resumed = plain_model(), plain_model()
    _fit(uninterrupted, ProgressiveLearning(make_schedule(), make_dataset))
    assert uninterrupted.inputs.values == [1, 2, 3, 4, 5, 1] * 2
    resumed.model.optimizer.iterations.assign(steps_made)
    progressive = ProgressiveLearning(make_schedule(), make_dataset)
    _fit(resumed, progressive, initial_epoch=steps_made // 3)
    assert resumed.inputs.values == uninterrupted.inputs.values[steps_made:]


def test_a_dataset_that_takes_start_step_is_told_it(plain_model, make_schedule, batches):
    calls = []

    def make_dataset(stage, start_step=0):
        calls.append((stage.index, start_step))
        return batches(stage).skip(start_step % stage.steps_per_epoch)

    plain = plain_model()
    plain.model.optimizer.iterations.assign(4)
    progressive = ProgressiveLearning(make_schedule(), make_dataset)
    fit_dataset = progressive.fit_dataset()
    calls.clear()
    plain.model.fit(fit_dataset, epochs=4, initial_epoch=1, callbacks=[progressive], verbose=0)
    assert calls == [(0, 4), (1, 6)]
    assert plain.inputs.values[:2] == [2, 3]


def test_several_steps_per_execution(plain_model, make_schedule, batches):
    plain = plain_model(steps_per_execution=2)
    schedule = make_schedule(batch_size=3)  # epochs of four steps
    _fit(plain, ProgressiveLearning(schedule, batches))
    assert plain.inputs.shapes == [(3, 8, 8, 1)] * 8 + [(3, 12, 12, 1)] * 8
    assert plain.inputs.values == [1, 2, 3, 4] * 4
    assert plain.steps == 16


def test_several_steps_per_execution_with_epochs_of_different_lengths(
    plain_model, make_schedule, batches
):
    plain = plain_model(steps_per_execution=2)
    _fit(plain, ProgressiveLearning(make_schedule(batch_size=[6, 3]), batches))
    assert plain.inputs.values == [1, 2] * 2 + [1, 2, 3, 4] * 2
    assert plain.steps == 12


def test_steps_per_execution_must_divide_the_epoch(plain_model, make_schedule, batches):
    plain = plain_model(steps_per_execution=2)
    with pytest.raises(ValueError, match=r"`steps_per_execution` \(2\) must divide.*has 3"):
        _fit(plain, ProgressiveLearning(make_schedule(), batches))


def test_a_model_for_one_size_is_refused(plain_model, make_schedule, batches):
    message = r"takes images of 12x12 pixels only.*\[8, 12\].*input_shape=\(None, None, 1\)"
    with pytest.raises(ValueError, match=message):
        plain = plain_model(input_size=12)
        plain.model.fit(
            np.zeros((4, 12, 12, 1)),
            np.zeros(4),
            callbacks=[ProgressiveLearning(make_schedule(), batches)],
            verbose=0,
        )


def test_plain_fit_works_afterwards(plain_model, make_schedule, batches):
    plain = plain_model()
    _fit(plain, ProgressiveLearning(make_schedule(), batches))
    plain.inputs.shapes.clear()
    plain.model.fit(np.ones((6, 10, 10, 1)), np.zeros(6), batch_size=3, verbose=0)
    assert plain.inputs.shapes == [(3, 10, 10, 1)] * 2
    assert plain.steps == 14


def test_fit_a_second_time_begins_anew(plain_model, make_schedule, batches):
    plain = plain_model()
    progressive = ProgressiveLearning(make_schedule(), batches)
    _fit(plain, progressive)
    _fit(plain, progressive)
    assert _sides(plain) == ([8] * 6 + [12] * 6) * 2
    assert plain.steps == 24
    assert plain.traces == [(None, None, None, 1)]


def test_fit_in_two_parts_is_fit_in_one(plain_model, make_schedule, batches):
    plain = plain_model()
    progressive = ProgressiveLearning(make_schedule(), batches)
    _fit(plain, progressive, epochs=1)
    _fit(plain, progressive, initial_epoch=1)
    assert _sides(plain) == [8] * 6 + [12] * 6
    assert plain.inputs.values == [1, 2, 3] * 4


class _Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_fit_after_an_interruption(plain_model, make_schedule, batches):
    """Keras calls no `on_train_end` then, so the wrapped function is still in place."""
    plain = plain_model()
    progressive = ProgressiveLearning(make_schedule(), batches)
    with pytest.raises(KeyboardInterrupt):
        _fit(plain, progressive, callbacks=[_Interrupt()])
    plain.model.optimizer.iterations.assign(0)
    plain.inputs.shapes.clear()
    _fit(plain, ProgressiveLearning(make_schedule(), batches))
    assert _sides(plain) == [8] * 6 + [12] * 6


def test_plain_fit_after_an_interruption(plain_model, make_schedule, batches):
    plain = plain_model()
    with pytest.raises(KeyboardInterrupt):
        _fit(plain, ProgressiveLearning(make_schedule(), batches), callbacks=[_Interrupt()])
    plain.inputs.shapes.clear()
    plain.model.fit(np.ones((6, 10, 10, 1)), np.zeros(6), batch_size=3, verbose=0)
    assert plain.inputs.shapes == [(3, 10, 10, 1)] * 2


def test_fit_dataset_only_counts_steps(make_schedule, batches):
    dataset = ProgressiveLearning(make_schedule(batch_size=[6, 4]), batches).fit_dataset()
    assert dataset.cardinality() == 3
    assert dataset.element_spec[0].shape == (6, 8, 8, 1)


def test_example_weights_reach_the_loss(plain_model, make_schedule, batches):
    def weightless(stage):
        return batches(stage).map(lambda x, y: (x, y, tf.zeros_like(y, tf.float32)))

    history = _fit(plain_model(), ProgressiveLearning(make_schedule(), weightless))
    assert history.history["loss"] == [0, 0, 0, 0]


def test_validation_sees_its_own_data(plain_model, make_schedule, batches):
    plain = plain_model()
    history = _fit(
        plain,
        ProgressiveLearning(make_schedule(), batches),
        validation_data=(np.ones((5, 20, 20, 1), "float32"), np.zeros(5)),
    )
    assert len(history.history["val_loss"]) == 4
    assert 20 not in _sides(plain)


@pytest.mark.parametrize("options", [{"x": np.ones((6, 8, 8, 1)), "y": np.zeros(6)}, {"steps": 2}])
def test_fit_must_count_the_schedules_steps(options, plain_model, make_schedule, batches):
    progressive = ProgressiveLearning(make_schedule(), batches)
    x = options.get("x", progressive.fit_dataset())
    with pytest.raises(ValueError, match=r"epochs of 3 steps.*received 2.*fit_dataset\(\)"):
        plain_model().model.fit(
            x,
            options.get("y"),
            batch_size=3 if "x" in options else None,
            steps_per_epoch=options.get("steps"),
            callbacks=[progressive],
            verbose=0,
        )


def test_data_of_unknown_length_is_refused(plain_model, make_schedule, batches):
    """`fit` would wait for the end of what nobody draws from."""
    progressive = ProgressiveLearning(make_schedule(), batches)
    unknown = progressive.fit_dataset().filter(lambda *batch: True)
    with pytest.raises(ValueError, match=r"unknown length from `fit`.*progressive.fit_dataset"):
        plain_model().model.fit(unknown, epochs=4, callbacks=[progressive], verbose=0)


def test_class_weight_is_not_lost(plain_model, make_schedule, batches):
    message = r"`class_weight` of `fit` does not reach.*\(images, labels, weights\)"
    with pytest.raises(ValueError, match=message):
        _fit(
            plain_model(),
            ProgressiveLearning(make_schedule(), batches),
            class_weight={0: 0.0, 1: 0.0},
        )


def test_steps_made_before_are_left_out_with_a_warning(plain_model, make_schedule, batches):
    plain = plain_model()
    plain.model.fit(np.ones((8, 8, 8, 1)), np.zeros(8), batch_size=4, verbose=0)
    with pytest.warns(UserWarning, match=r"made 2 of the 3 steps of epoch 0 already: only those"):
        _fit(plain, ProgressiveLearning(make_schedule(), batches))
    assert plain.steps == 12


@pytest.mark.parametrize(("epoch", "anew"), [(0, r"Compile the model again"), (1, "")])
def test_an_epoch_of_which_nothing_is_left_is_evaluated(
    plain_model, make_schedule, batches, epoch, anew
):
    """As where `BackupAndRestore` saved at an epoch's last step, and evaluation was interrupted."""
    plain = plain_model(metrics=["accuracy"])
    plain.model.optimizer.iterations.assign(3 * epoch + 3)
    progressive = ProgressiveLearning(make_schedule(), batches)
    with pytest.warns(
        UserWarning, match=rf"3 of the 3 steps of epoch {epoch} .* none is left.*{anew}"
    ):
        history = _fit(
            plain,
            progressive,
            initial_epoch=epoch,
            epochs=epoch + 2,
            validation_data=batches(progressive.schedule.stages[0]),
        )
    assert history.epoch == [epoch, epoch + 1]
    assert {name: len(values) for name, values in history.history.items()} == {
        "loss": 1,  # of the second: the first one's is not known
        "accuracy": 1,
        "val_loss": 2,
        "val_accuracy": 2,
        **dict.fromkeys(("stage", "image_size", "batch_size", "learning_rate"), 2),
    }
    assert plain.steps == 3 * epoch + 6


class _Restore(keras.callbacks.Callback):
    """Restores the step counter as late as Keras's BackupAndRestore does."""

    def on_train_begin(self, logs=None):
        self.model.optimizer.iterations.assign(4)


def test_a_callback_behind_it_may_restore_the_step(plain_model, make_schedule, batches):
    plain = plain_model()
    progressive = ProgressiveLearning(make_schedule(), batches)
    _fit(plain, progressive, initial_epoch=1, callbacks=[_Restore()])
    assert plain.inputs.values == [2, 3, 1, 2, 3, 1, 2, 3]
    assert plain.steps == 12


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 does not accumulate gradients")
def test_accumulated_gradients(make_schedule, batches):
    """The schedule and the averages count batches; the optimizer's updates are half as many."""
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    model.compile(
        AdamW(0.01, gradient_accumulation_steps=2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    progressive = ProgressiveLearning(make_schedule(), batches)
    model.fit(
        progressive.fit_dataset(),
        epochs=4,
        callbacks=[progressive, ExponentialMovingAverage(0.5)],
        verbose=0,
    )
    assert progressive.next_step == 12
    assert int(model.optimizer.iterations) == 6


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda stage: (np.ones((4, 8, 8, 1)), np.zeros(4)), "must return a tf.data.Dataset"),
        (
            lambda stage: tf.data.Dataset.from_generator(
                lambda: iter(()), output_types=(tf.float32, tf.int32)
            ),
            "unknown rank.*tf.ensure_shape",
        ),
    ],
)
def test_what_make_dataset_must_give(made, message, make_schedule):
    with pytest.raises((TypeError, ValueError), match=message):
        ProgressiveLearning(make_schedule(), made).fit_dataset()


def test_without_the_callback_nothing_is_trained_quietly(plain_model, make_schedule, batches):
    """The batches that count the steps are none: what is trained on them shows it."""
    plain = plain_model()
    progressive = ProgressiveLearning(make_schedule(), batches)
    log = plain.model.fit(progressive.fit_dataset(), epochs=1, verbose=0).history
    assert np.isnan(log["loss"][0])


@pytest.mark.parametrize("normalizes", [True, False])
def test_going_on_without_the_callback_is_refused_before_it_costs_the_weights(
    tiny_network, make_schedule, batches, normalizes
):
    model = tiny_network(input_shape=(None, None, 1), include_preprocessing=normalizes)
    model.compile("adam", "sparse_categorical_crossentropy")
    progressive = ProgressiveLearning(make_schedule(), batches)
    model.fit(progressive.fit_dataset(), epochs=2, callbacks=[progressive], verbose=0)
    before = model.get_weights()
    with pytest.raises(Exception, match=r"give `fit` the callback, too"):
        model.fit(progressive.fit_dataset(), epochs=4, initial_epoch=2, verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_images_are_found_by_the_name_of_the_models_input(tiny_network, make_schedule, batches):
    """Keras trains on a dictionary that has more than the model takes."""

    def make_dataset(stage):
        depth = tf.zeros((stage.batch_size, 7, 9, 1))
        return batches(stage).map(
            lambda x, y: ({"depth": depth, "id": tf.range(stage.batch_size), "image": x}, y)
        )

    image = keras.Input((None, None, 1), name="image")
    model = keras.Model(image, tiny_network(input_shape=(None, None, 1))(image))
    model.compile("adam", "sparse_categorical_crossentropy")
    progressive = ProgressiveLearning(make_schedule(), make_dataset)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="ProgressiveLearning")
        model.fit(progressive.fit_dataset(), epochs=4, callbacks=[progressive], verbose=0)
    assert progressive.next_step == 12


def test_an_empty_stage_is_named(plain_model, make_schedule, batches):
    progressive = ProgressiveLearning(make_schedule(), lambda stage: batches(stage).take(0))
    with pytest.raises(ValueError, match=r"`make_dataset` gave no batch for step 0 .* stage 0"):
        _fit(plain_model(), progressive)


def test_batches_of_another_size_are_noted(plain_model, make_schedule):
    def make_dataset(stage):
        return tf.data.Dataset.from_tensors((tf.ones((4, 6, 6, 1)), tf.zeros((4, 1))))

    with pytest.warns(UserWarning, match=r"stage 0 is of batches of 4 images of 8 pixels, but .*6"):
        _fit(plain_model(), ProgressiveLearning(make_schedule(), make_dataset))


@pytest.mark.parametrize(
    "spoil", [lambda data: data.unbatch(), lambda data: data.batch(2)], ids=["unbatched", "twice"]
)
def test_what_is_no_batch_of_images_is_named(plain_model, make_schedule, batches, spoil):
    progressive = ProgressiveLearning(make_schedule(), lambda stage: spoil(batches(stage)))
    with pytest.raises(ValueError, match=r"from `make_dataset`; received .*batch_size\)` once"):
        _fit(plain_model(), progressive)


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 does not accumulate gradients")
def test_the_logged_learning_rate_is_the_one_used(plain_model, make_schedule, batches):
    """Keras looks the schedule up at the number of steps, not at that of updates."""
    plain = plain_model()
    rates = keras.optimizers.schedules.PolynomialDecay(1.0, 100, 0.0)
    optimizer = keras.optimizers.SGD(rates, gradient_accumulation_steps=3)
    plain.model.compile(optimizer, plain.model.loss, jit_compile=False)
    history = _fit(plain, ProgressiveLearning(make_schedule(), batches))
    np.testing.assert_allclose(history.history["learning_rate"], [0.97, 0.94, 0.91, 0.88], 1e-6)
    assert float(plain.model.optimizer.learning_rate) == pytest.approx(0.88)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_forgotten_callback_is_named(tiny_network, make_schedule, dtype):
    def make_dataset(stage):
        images = tf.zeros((8, stage.image_size, stage.image_size, 3), dtype)
        return tf.data.Dataset.from_tensor_slices((images, tf.zeros(8, tf.int32))).batch(4).repeat()

    progressive = ProgressiveLearning(make_schedule(), make_dataset)
    model = tiny_network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(tf.errors.OpError, match=r"callback, too, callbacks=\[progressive\]"):
        model.fit(progressive.fit_dataset(), epochs=4, verbose=0)
    model.fit(progressive.fit_dataset(), epochs=4, callbacks=[progressive], verbose=0)
    assert int(model.optimizer.iterations) >= progressive.schedule.total_steps


@pytest.mark.parametrize(
    ("epochs", "what"), [(2, "ends before the schedule"), (5, "goes on in the last stage")]
)
def test_other_epochs_than_the_schedules_are_noticed(
    plain_model, make_schedule, batches, epochs, what
):
    progressive = ProgressiveLearning(make_schedule(), batches)
    with pytest.warns(UserWarning, match=f"4 epochs, `fit` has epochs={epochs} and {what}"):
        _fit(plain_model(), progressive, epochs=epochs)


def test_data_that_are_too_few_for_an_epoch_are_noticed(plain_model, make_schedule, batches):
    progressive = ProgressiveLearning(make_schedule(), lambda stage: batches(stage).take(2))
    with pytest.warns(UserWarning, match="stage 0 has 3 steps, but `make_dataset` gives 2 batches"):
        _fit(plain_model(), progressive)


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        (lambda schedule, make: (make, schedule), "and `make_dataset`, in this order"),
        (lambda schedule, make: ([8, 12], make), "expected `schedule`, .*Received: .* type list"),
        (lambda schedule, make: (schedule, None), "`make_dataset` must be a function .*NoneType"),
    ],
)
def test_wrong_arguments_are_named(make_schedule, batches, swap, message):
    with pytest.raises(TypeError, match=message):
        ProgressiveLearning(*swap(make_schedule(), batches))
