"""NASNets train: gradients, a falling loss, the auxiliary head, drop path that grows."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.genotypes import NASNET_A, OPERATIONS, Block, Cell, Genotype
from effnetv2_tf.models.layers import NASNetCell
from effnetv2_tf.models.nasnet import build_nasnet
from effnetv2_tf.models.nasnet_specs import AUXILIARY_LOSS_WEIGHT, NASNetSpec
from effnetv2_tf.training.drop_path_ramp import DropPathRamp
from effnetv2_tf.training.drop_rates import DropRates

EVERY_OPERATION = Cell(
    tuple(Block(i % 2, op, (i + 1) % 2, OPERATIONS[i - 3]) for i, op in enumerate(OPERATIONS))
)
# As the paper's networks for CIFAR, smaller: the stem keeps 32 px, and no cell reduces it.
SMALL_IMAGES = NASNetSpec(
    name="small-images",
    cells_per_stack=1,
    penultimate_filters=96,
    genotype=NASNET_A,
    stem_filters=12,
    stem_stride=1,
    stem_reductions=0,
    batch_norm_momentum=0.9,
    dropout_rate=0.0,
    train_size=32,
    eval_size=32,
)
TINY_CELL = Cell((Block(0, "sep_conv_3x3", 1, "max_pool_3x3"),))
TINY = dataclasses.replace(
    SMALL_IMAGES,
    name="tiny",
    genotype=Genotype(TINY_CELL, TINY_CELL),
    penultimate_filters=32,
)


def examples(count=32, side=32):
    """Two classes that a convolution tells apart: horizontal and vertical stripes."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    stripes = np.where(np.arange(side) % 4 < 2, 60, 200)[None, :] * np.ones((side, 1))
    images = np.stack([stripes if label else stripes.T for label in labels])[..., None]
    return (images + rng.normal(0, 10, (count, side, side, 3))).astype("f"), labels


def test_every_variable_gets_a_gradient():
    spec = dataclasses.replace(
        SMALL_IMAGES,
        genotype=Genotype(EVERY_OPERATION, EVERY_OPERATION),
        penultimate_filters=len(EVERY_OPERATION.output_states) * 16,
        auxiliary_head=True,
    )
    model = build_nasnet(spec, classes=3)
    images = tf.constant(examples(4, 19)[0])
    with tf.GradientTape() as tape:
        main, auxiliary = model(images, training=True)
        loss = -tf.reduce_mean(tf.math.log(main[:, 0]) + tf.math.log(auxiliary[:, 1]))
    variables = [keras_compat.tf_variable(v) for v in model.trainable_variables]
    gradients = tape.gradient(loss, variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        path = keras_compat.variable_path(variable)
        assert gradient is not None, f"{path} has no gradient"
        assert np.isfinite(gradient).all(), f"{path} has a gradient that is not finite"
        assert np.abs(gradient).max() > 0, f"{path} has a gradient of zeros"


@pytest.mark.slow
def test_fit_lowers_the_loss_on_small_images():
    model = build_nasnet(SMALL_IMAGES, classes=2, input_shape=(None, None, 3))
    assert model.get_layer("stack1_cell1").output.shape[-1] == 6 * 4
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    images, labels = examples()
    history = model.fit(images, labels, batch_size=16, epochs=6, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["accuracy"][-1] > 0.9


def test_fit_lowers_both_losses_of_an_auxiliary_head():
    model = build_nasnet(dataclasses.replace(TINY, auxiliary_head=True), classes=2)
    model.compile(
        keras.optimizers.Adam(1e-2),
        ["sparse_categorical_crossentropy"] * 2,
        loss_weights=[1.0, AUXILIARY_LOSS_WEIGHT],
    )
    images, labels = examples(32, 16)
    before = model.get_layer("auxiliary_classifier").get_weights()[0]
    history = model.fit(images, [labels, labels], batch_size=16, epochs=6, verbose=0).history
    total = np.array(history["classifier_loss"]) + AUXILIARY_LOSS_WEIGHT * np.array(
        history["auxiliary_classifier_loss"]
    )
    np.testing.assert_allclose(history["loss"], total, rtol=1e-4)
    for name in ("classifier_loss", "auxiliary_classifier_loss"):
        assert history[name][-1] < 0.5 * history[name][0], f"{name}: {history[name]}"
    assert np.abs(model.get_layer("auxiliary_classifier").get_weights()[0] - before).max() > 0


def rates(model):
    return [layer.drop_path_rate for layer in model.layers if isinstance(layer, NASNetCell)]


def test_a_schedule_moves_every_cells_rate():
    model = build_nasnet(TINY, classes=2)
    assert DropRates(model).set_drop_path(0.5) is False
    assert rates(model) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


class RecordRates(keras.callbacks.Callback):
    """Notes the rates in force at each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(rates(self.model)[-1])


def test_ramp_over_training_follows_the_optimizers_steps():
    model = build_nasnet(TINY, classes=2)
    model.compile("sgd", "sparse_categorical_crossentropy")
    images, labels = examples(8, 16)
    record = RecordRates()
    for _ in range(2):  # the second fit goes on where the first ended
        ramp = DropPathRamp(0.5, total_steps=5)
        model.fit(images, labels, batch_size=2, callbacks=[ramp, record], verbose=0)
    expected = [0.5 * min(1, step / 5) for step in range(8)]
    assert record.seen == pytest.approx(expected)
    assert rates(model) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final_rate": 1.0, "total_steps": 3}, r"`final_rate` must lie in \[0, 1\)"),
        ({"final_rate": 0.1, "total_steps": 0}, "`total_steps` must be a positive integer"),
    ],
)
def test_ramps_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        DropPathRamp(**arguments)
