"""What `ProgressiveLearning` refuses or warns of: models, data and calls of `fit`."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.input_range import images_of
from effnetv2_tf.training.schedule import Stage, StageSchedule


def check_arguments(schedule: Any, make_dataset: Any) -> None:
    """Refuses what is no schedule, and no function."""
    if not isinstance(schedule, StageSchedule):
        order = ", in this order" if isinstance(make_dataset, StageSchedule) else ""
        raise TypeError(
            "ProgressiveLearning: expected `schedule`, a StageSchedule such as "
            f"StageSchedule.progressive(...) gives, and `make_dataset`{order}. Received: "
            f"schedule of type {type(schedule).__name__}."
        )
    if not callable(make_dataset):
        raise TypeError(
            "ProgressiveLearning: `make_dataset` must be a function from a stage to a "
            f"tf.data.Dataset of batches. Received: {type(make_dataset).__name__}."
        )


def check_model(model: keras.Model, schedule: StageSchedule) -> None:
    """Refuses a model that cannot be trained by the stages as it is made and compiled."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    sizes = {stage.image_size for stage in schedule.stages}
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and len(shape) == 4 and sizes - {shape[1]} and shape[1]:
        raise ValueError(
            f"The model takes images of {shape[1]}x{shape[2]} pixels only, the schedule's stages "
            f"have {sorted(sizes)}. Build it with input_shape=(None, None, {shape[3]})."
        )
    steps = keras_compat.steps_per_execution(model)
    for stage in schedule.stages:
        if stage.batch_size % replicas:
            raise ValueError(
                f"`batch_size` is over all {replicas} replicas and must be a multiple of their "
                f"number; stage {stage.index} has {stage.batch_size}."
            )
        if stage.steps_per_epoch % steps:
            raise ValueError(
                f"`steps_per_execution` ({steps}) must divide the steps of an epoch; stage "
                f"{stage.index} has {stage.steps_per_epoch}."
            )


def check_steps(schedule: StageSchedule, received: int | None) -> None:
    """`fit` counts the steps of an epoch by `fit_dataset`; with other data they are others.

    Args:
      schedule: of the run.
      received: the steps of an epoch that `fit` knows of. None for data of unknown length, to
        whose end it would never come: it counts what it draws, and draws nothing.
    """
    expected = schedule.most_steps_per_epoch
    if received != expected:
        what = "data of unknown length" if received is None else str(received)
        raise ValueError(
            f"ProgressiveLearning: expected epochs of {expected} steps, as the schedule has, "
            f"received {what} from `fit`. Give it `x=progressive.fit_dataset()`, without "
            "`steps_per_epoch`."
        )


def warn_of_other_epochs(schedule: StageSchedule, received: int | None) -> None:
    """Warns if `fit` ends before the schedule does, or goes on after it."""
    if received in (None, schedule.epochs):
        return
    what = "goes on in the last stage" if received > schedule.epochs else "ends before the schedule"
    warnings.warn(
        f"ProgressiveLearning: the schedule has {schedule.epochs} epochs, `fit` has "
        f"epochs={received} and {what}.",
        UserWarning,
        stacklevel=2,
    )


def warn_of_repeats(dataset: tf.data.Dataset, stage: Stage) -> None:
    """Warns of a dataset that is known to be shorter than an epoch of its stage."""
    batches = int(dataset.cardinality())
    if 0 <= batches < stage.steps_per_epoch:
        warnings.warn(
            f"ProgressiveLearning: an epoch of stage {stage.index} has {stage.steps_per_epoch} "
            f"steps, but `make_dataset` gives {batches} batches, which are repeated. Is "
            "`num_examples` of the schedule that of the images?",
            UserWarning,
            stacklevel=2,
        )


def check_weights(of_fit: Any, drawn: Any) -> None:
    """`fit` adds its `class_weight` to its own batches, which nobody sees.

    Args:
      of_fit: the iterator that `fit` made.
      drawn: the one that batches come from.
    """
    ours, theirs = (getattr(iterator, "element_spec", None) for iterator in (drawn, of_fit))
    if isinstance(ours, tuple) and isinstance(theirs, tuple) and len(theirs) > len(ours):
        raise ValueError(
            "ProgressiveLearning: `class_weight` of `fit` does not reach the batches of "
            "`make_dataset`. Let it give (images, labels, weights)."
        )


def check_batches(element_spec: Any, stage: Stage, model: keras.Model, shared: bool) -> None:
    """Warns if a stage's batches are typed as others than it asks for; refuses what are none.

    Args:
      element_spec: of the batches.
      stage: whose they are.
      model: that takes them.
      shared: whether they are one machine's share.
    """
    shape = images_of(element_spec, model).shape
    taken = getattr(model, "input_shape", None)
    takes_images = isinstance(taken, tuple) and len(taken) == 4
    if takes_images and shape.rank not in (None, 4):
        raise ValueError(
            "ProgressiveLearning: expected batches of images, (batch, height, width, channels), "
            f"from `make_dataset`; received tensors of shape {tuple(shape)}. Call "
            "`.batch(stage.batch_size)` once."
        )
    if shape.rank != 4:
        return
    expected = (None if shared else stage.batch_size, stage.image_size, stage.image_size)
    if any(None not in pair and pair[0] != pair[1] for pair in zip(shape, expected, strict=False)):
        warnings.warn(
            f"ProgressiveLearning: stage {stage.index} is of batches of {stage.batch_size} images "
            f"of {stage.image_size} pixels, but `make_dataset` gives {tuple(shape)}. The logs and "
            "the learning rate go by the stage.",
            UserWarning,
            stacklevel=2,
        )


def warn_of_steps_made(epoch: int, made: int, stage: Stage) -> None:
    """Warns of steps that are not made because the optimizer has made them before.

    In the middle of a later epoch that is what resuming means.

    Args:
      epoch: its number from 0.
      made: of its steps.
      stage: of the epoch.
    """
    if made == stage.steps_per_epoch:
        remain = "none is left"
    elif epoch == 0 and made:
        remain = "only those that remain are made"
    else:
        return
    anew = " Compile the model again to begin anew." if epoch == 0 else ""
    warnings.warn(
        f"The optimizer has made {made} of the {stage.steps_per_epoch} steps of epoch {epoch} "
        f"already: {remain}.{anew}",
        UserWarning,
        stacklevel=2,
    )
