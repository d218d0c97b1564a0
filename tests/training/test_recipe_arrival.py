"""Every key of a recipe reaches the object that acts on it, and no other value does."""

import numpy as np
import pytest

from effnetv2_tf.training import build
from effnetv2_tf.training.trainer import Trainer

DIGITS = {"source": "digits"}
STEPS_PER_EPOCH = 14  # of digits' 1,437 training images, in batches of 100


@pytest.fixture
def make_trainer(make_recipe, tmp_path):
    """Makes a `Trainer` of three epochs of digits; sections as a recipe's."""

    def make(**sections):
        training = {"epochs": 3, "batch_size": 100, **sections.pop("training", {})}
        data = {**DIGITS, **sections.pop("data", {})}
        recipe = make_recipe(data, training=training, **sections)
        return Trainer(recipe, tmp_path / "run", verbose=0)

    return make


def schedule_of(trainer):
    """The learning rate's schedule, without the optimizer's own rounding to a variable."""
    return build.build_learning_rate(trainer.recipe, trainer.schedule)


def rate_after(trainer, epochs):
    return float(schedule_of(trainer)(round(epochs * STEPS_PER_EPOCH)))


def sizes(trainer):
    return [stage.image_size for stage in trainer.schedule.stages]


def loss_of(trainer, labels, probabilities):
    loss = trainer.model.loss
    return float(loss(np.array([labels], "float32"), np.array([probabilities], "float32")))


def evaluation_batch(trainer):
    dataset = build.build_evaluation_dataset(trainer.recipe, trainer.sources.evaluation)
    return next(iter(dataset))[0]


CONSTANT = {"decay": "constant", "warmup_epochs": 0}
STEEP = {"warmup_epochs": 0, "decay_factor": 0.5, "decay_epochs": 1}
THREE_STAGES = {"stages": 3, "image_size": [8, 16]}
AVERAGED = {"ema_decay": 0.5}

# Section, its values, what is read of the trainer, and what it must be.
ARRIVALS = {
    "learning_rate.per_256": (
        {"learning_rate": {**CONSTANT, "per_256": 0.256}},
        lambda t: rate_after(t, 1),
        pytest.approx(0.1),
    ),
    "learning_rate.warmup_epochs": (
        {"learning_rate": {"decay": "constant", "per_256": 0.256, "warmup_epochs": 2}},
        lambda t: rate_after(t, 1),
        pytest.approx(0.05),
    ),
    "learning_rate.decay_factor": (
        {"learning_rate": {**STEEP, "per_256": 0.256}},
        lambda t: rate_after(t, 1),
        pytest.approx(0.05),
    ),
    "learning_rate.decay_epochs": (
        {"learning_rate": {**STEEP, "per_256": 0.256, "decay_epochs": 0.5}},
        lambda t: rate_after(t, 1),
        pytest.approx(0.025),
    ),
    "learning_rate.final_share": (
        {
            "learning_rate": {
                "decay": "cosine",
                "per_256": 0.256,
                "warmup_epochs": 0,
                "final_share": 0.25,
            }
        },
        lambda t: rate_after(t, 3),
        pytest.approx(0.025),
    ),
    "progressive.schedule": (
        {"progressive": {"stages": 3, "image_size": [8, 17], "schedule": "reference"}},
        sizes,
        [11, 14, 17],
    ),
    "progressive.randaugment_magnitude": (
        {"progressive": {**THREE_STAGES, "randaugment_magnitude": [1, 9]}},
        lambda t: [stage.regularization.randaugment_magnitude for stage in t.schedule.stages],
        [1, 5, 9],
    ),
    "progressive.size_multiple": (
        {"progressive": {**THREE_STAGES, "image_size": [8, 26], "size_multiple": 8}},
        sizes,
        [8, 16, 24],
    ),
    "progressive.image_sizes": (
        {"progressive": {**THREE_STAGES, "image_sizes": [8, 10, 16]}},
        sizes,
        [8, 10, 16],
    ),
    "progressive.epochs_per_stage": (
        {"progressive": {"stages": 2, "image_size": [8, 16], "epochs_per_stage": [2, 1]}},
        lambda t: [stage.epochs for stage in t.schedule.stages],
        [2, 1],
    ),
    "progressive.batch_sizes": (
        {"progressive": {"stages": 2, "image_size": [8, 16], "batch_sizes": [50, 25]}},
        lambda t: [stage.batch_size for stage in t.schedule.stages],
        [50, 25],
    ),
    "optimizer.gradient_clip_norm": (
        {"optimizer": {"gradient_clip_norm": 2.5}},
        lambda t: t.model.optimizer.global_clipnorm,
        2.5,
    ),
    "optimizer.l2": ({"optimizer": {"l2": 0.25}}, lambda t: t.model.optimizer.l2, 0.25),
    "optimizer.weight_decay": (
        {"optimizer": {"name": "adamw", "weight_decay": 0.125}},
        lambda t: t.model.optimizer.weight_decay,
        0.125,
    ),
    "optimizer.options": (
        {"optimizer": {"options": {"momentum": 0.75}}},
        lambda t: t.model.optimizer.momentum,
        0.75,
    ),
    "training.label_smoothing": (
        {"training": {"label_smoothing": 0.5}},
        lambda t: loss_of(t, [1] + [0] * 9, [0.55] + [0.05] * 9),
        # Half of the label is spread over the ten classes.
        pytest.approx(-(0.55 * np.log(0.55) + 9 * 0.05 * np.log(0.05)), rel=1e-5),
    ),
    "training.ema_decay": ({"training": AVERAGED}, lambda t: t.ema.decay, 0.5),
    "training.ema_every": (
        {"training": {**AVERAGED, "ema_every": "epoch"}},
        lambda t: (t.ema.every, t.ema.warmup),
        ("epoch", False),
    ),
    "training.ema_decay: none": ({"training": {"ema_decay": None}}, lambda t: t.ema, None),
    "training.steps_per_execution": (
        {"training": {"steps_per_execution": 7}},
        lambda t: t.model.steps_per_execution,
        7,
    ),
    "data.eval_crop_padding": (
        {"data": {"eval_crop": "center", "eval_crop_padding": 5}},
        lambda t: (
            build.evaluation_preprocessing(t.recipe).crop_padding,
            t.progressive.make_dataset.evaluation.crop_padding,
        ),
        (5, 5),
    ),
    "data.eval_crop": (
        {"data": {"eval_crop": "center"}},
        lambda t: build.evaluation_preprocessing(t.recipe).crop,
        "center",
    ),
    "data.eval_size": (
        {"data": {"eval_size": 24}},
        lambda t: evaluation_batch(t).shape[1:3],
        (24, 24),
    ),
    "data.eval_batch_size": (
        {"data": {"eval_batch_size": 33}},
        lambda t: len(evaluation_batch(t)),
        33,
    ),
    "data.channels": ({"data": {"channels": 3}}, lambda t: t.model.input_shape[-1], 3),
    "data.augmentation": (
        {"data": {"augmentation": {"crop": "pad", "crop_padding": 2, "policy": "cutout"}}},
        lambda t: (
            t.progressive.make_dataset.augmentation.crop,
            t.progressive.make_dataset.augmentation.crop_padding,
            t.progressive.make_dataset.augmentation.policy,
        ),
        ("pad", 2, "cutout"),
    ),
    "seed": ({"seed": 17}, lambda t: t.progressive.make_dataset.seed, 17),
    "model.dropout_rate": (
        {"model": {"dropout_rate": 0.375}},
        lambda t: float(t.model.get_layer("dropout").rate),
        0.375,
    ),
}


@pytest.mark.parametrize("key", ARRIVALS)
def test_a_value_arrives(make_trainer, key):
    sections, read, expected = ARRIVALS[key]
    found = read(make_trainer(**sections))
    assert found == expected, f"{key}: {sections} arrived as {found}"


def test_what_a_run_evaluates_and_keeps(make_trainer):
    trainer = make_trainer(
        training={"epochs": 5, "batch_size": 700, "evaluate_every_epochs": 2},
        checkpoints={"every_epochs": 2, "keep_last": 3, "keep_best": False},
    )
    trainer.run()
    evaluated = [row["epoch"] for row in trainer.records.rows if "val_accuracy" in row]
    kept = [path.name for path in sorted((trainer.model_dir / "checkpoints").glob("*.npz"))]
    assert evaluated == [2, 4, 5]
    assert kept == [f"step-{step:010}.npz" for step in (4, 8, 10)]
