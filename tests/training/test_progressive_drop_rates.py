"""Dropout and stochastic depth move with the stages, in our networks and in any other."""

import warnings

import keras
import numpy as np
import pytest

from effnetv2_tf import ProgressiveLearning, build_network, keras_compat
from effnetv2_tf.models.layers import Dropout
from effnetv2_tf.models.layers.residual_block import ResidualBlock
from effnetv2_tf.training.drop_rates import DropRates


def _fit(model, schedule, make_dataset):
    progressive = ProgressiveLearning(schedule, make_dataset)
    return model.fit(
        progressive.fit_dataset(), epochs=schedule.epochs, callbacks=[progressive], verbose=0
    )


class _Derived(keras.layers.Dropout):
    """As people derive their own, and Keras `SpatialDropout2D`."""


@pytest.mark.parametrize(
    ("layer", "traces"),
    [
        (lambda: Dropout(0.5, seed=3), 1),
        (lambda: keras.layers.Dropout(0.5, seed=3), 2),
        (lambda: _Derived(0.5, seed=3), 2),
    ],
    ids=["ours", "keras", "derived"],
)
def test_the_rate_in_force_is_the_stages(layer, traces, plain_model, make_schedule, batches, ends):
    plain = plain_model(layer())
    _fit(plain.model, make_schedule(**ends(dropout_rate=(0.1, 0.4))), batches)
    shares = np.array(plain.dropped.zero_shares)  # of 4,000 units each
    assert shares[:6] == pytest.approx(0.1, abs=0.025)
    assert shares[6:] == pytest.approx(0.4, abs=0.04)
    assert len(plain.traces) == traces
    assert plain.steps == 12


def test_a_keras_dropout_whose_rate_stays_is_not_traced_again(
    plain_model, make_schedule, batches, ends
):
    plain = plain_model(keras.layers.Dropout(0.5, seed=3))
    _fit(plain.model, make_schedule(**ends(dropout_rate=(0.3, 0.3))), batches)
    assert len(plain.traces) == 1
    assert np.mean(plain.dropped.zero_shares) == pytest.approx(0.3, abs=0.02)


def test_a_rate_that_is_not_scheduled_is_left_alone(plain_model, make_schedule, batches):
    layer = Dropout(0.25)
    _fit(plain_model(layer).model, make_schedule(), batches)
    assert layer.rate == 0.25


def _compiled(model):
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def test_our_network_moves_both_in_one_trace(tiny_network, traces_of, make_schedule, batches, ends):
    model = _compiled(tiny_network(input_shape=(None, None, 1)))
    traces = traces_of(model)
    schedule = make_schedule(**ends(dropout_rate=(0.1, 0.4), drop_path_rate=(0.0, 0.2)))
    rates = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            blocks = [x for x in model.layers if isinstance(x, ResidualBlock)]
            depth = [float(b.drop_path.scheduled_rate.variable) for b in blocks if b.drop_path]
            rates.append([float(model.get_layer("dropout").scheduled_rate.variable), *depth])

    progressive = ProgressiveLearning(schedule, batches)
    history = model.fit(
        progressive.fit_dataset(), epochs=4, callbacks=[progressive, Rates()], verbose=0
    )
    assert len(traces) == 1
    # Five blocks have 0, 0.05, 0.1, 0.15, 0.2; the second and fourth widen or shrink the image.
    np.testing.assert_allclose(rates[5], [0.1, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(rates[6], [0.4, 0, 0.1, 0.2], atol=1e-7)
    assert history.history["drop_path_rate"] == [0, 0, 0.2, 0.2]
    assert np.isfinite(history.history["loss"]).all()


def test_keras_drop_paths_keep_their_shares():
    image = keras.Input((8,))
    x = image
    for rate in (0.1, 0.2):
        x = keras.layers.Dropout(rate, noise_shape=(None, 1))(x)
    model = keras.Model(image, keras.layers.Dropout(0.3)(x))
    rates = DropRates(model)
    assert rates.set_drop_path(0.4)
    assert [layer.rate for layer in model.layers[1:]] == pytest.approx([0.2, 0.4, 0.3])
    assert not rates.set_drop_path(0.4)
    assert rates.set_dropout(0.6)
    assert [layer.rate for layer in model.layers[1:]] == pytest.approx([0.2, 0.4, 0.6])


def test_rates_inside_a_nested_model_move(tiny_network):
    backbone = tiny_network()
    image = keras.Input((None, None, 3))
    model = keras.Model(image, backbone(image))
    DropRates(model).set_dropout(0.35)
    assert backbone.get_layer("dropout").rate == 0.35


@pytest.mark.parametrize("name", ["dropout_rate", "drop_path_rate"])
def test_a_schedule_for_what_the_model_has_not(name, plain_model, make_schedule, batches, ends):
    with pytest.raises(ValueError, match=f"moves `{name}`, but the model has no"):
        _fit(plain_model().model, make_schedule(**ends(**{name: (0.1, 0.2)})), batches)


def test_images_in_0_1_are_noticed(tiny_spec, make_schedule, batches):
    model = _compiled(build_network(tiny_spec, classes=2, input_shape=(None, None, 1)))

    def unit_range(stage):
        return batches(stage).map(lambda x, y: (x / 3, y))

    with pytest.warns(UserWarning, match=r"lie in \[0, 1\]") as caught:
        _fit(model, make_schedule(), unit_range)
    assert sum("lie in [0, 1]" in str(w.message) for w in caught) == 1


def test_images_in_0_255_pass_silently(tiny_spec, make_schedule, batches):
    model = _compiled(build_network(tiny_spec, classes=2, input_shape=(None, None, 1)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*lie in")
        _fit(model, make_schedule(), lambda stage: batches(stage).map(lambda x, y: (x * 80, y)))
    assert int(model.optimizer.iterations) == 12


def test_a_network_within_a_model_has_the_same_rates(tiny_network):
    """Keras's own recursion comes to the blocks of a nested network from its end."""
    alone = tiny_network(input_shape=(None, None, 1))
    nested = tiny_network(input_shape=(None, None, 1))
    image = keras.Input((None, None, 1))
    for model in (keras.Sequential([nested]), keras.Model(image, nested(image)), alone):
        DropRates(model).set_drop_path(0.2)
        network = alone if model is alone else nested
        rates = [x.drop_path_rate for x in network.layers if isinstance(x, ResidualBlock)]
        np.testing.assert_allclose(rates, np.linspace(0, 0.2, len(rates)), atol=1e-7)
        DropRates(model).set_drop_path(0.0)


def _with_dropouts(*rates, noise_shape=(None, 1, 1, 1)):
    x = image = keras.Input((None, None, 1))
    for number, rate in enumerate(rates):
        x = keras.layers.Dropout(rate, noise_shape=noise_shape, name=f"drop_{number}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(2, activation="softmax")(x))


def test_keras_drop_paths_keep_their_shares_through_a_stage_without():
    model = _with_dropouts(0.01, 0.05, 0.2)
    DropRates(model).set_drop_path(0.0)
    DropRates(model).set_drop_path(0.4)  # as a second fit does
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    np.testing.assert_allclose(rates, [0.02, 0.1, 0.4])


@pytest.mark.skipif(not keras_compat.KERAS_3, reason="Keras 2's Dropout always can")
@pytest.mark.parametrize("name", ["dropout_rate", "drop_path_rate"])
def test_a_keras_dropout_of_rate_0_cannot_be_moved(make_schedule, batches, ends, name):
    model = _with_dropouts(0.0, noise_shape=(None, 1, 1, 1) if "path" in name else None)
    with pytest.raises(ValueError, match=f"`{name}`, but layer 'drop_0' was built with rate 0"):
        _fit(_compiled(model), make_schedule(**ends(**{name: (0.0, 0.4)})), batches)


def test_each_of_several_networks_has_its_own_depth(tiny_network):
    """Two towers, and one of them once more: it counts once."""
    image = keras.Input((None, None, 3))
    towers = [tiny_network(include_top=False, pooling="avg", name=name) for name in ("a", "b")]
    outputs = [*(tower(image) for tower in towers), towers[0](image)]
    model = keras.Model(image, keras.layers.Concatenate()(outputs))
    DropRates(model).set_drop_path(0.4)
    alone = tiny_network(include_top=False)
    DropRates(alone).set_drop_path(0.4)

    def rates(network):
        blocks = [layer for layer in network.layers if isinstance(layer, ResidualBlock)]
        return [float(b.drop_path.scheduled_rate.variable) for b in blocks if b.drop_path]

    assert rates(towers[0]) == rates(towers[1]) == rates(alone)
    assert len(rates(alone)) > 1
