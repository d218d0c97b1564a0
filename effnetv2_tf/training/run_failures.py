"""What an error of TensorFlow's means for a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.data.broken_images import describe, find_broken_image
from effnetv2_tf.data.sources import Source, TooManyBadRecords
from effnetv2_tf.errors import TrainingFailure, UsageError, operation_fault
from effnetv2_tf.training.data_record import note_broken_image

if TYPE_CHECKING:
    from effnetv2_tf.training.trainer import Trainer


class BrokenImage(TrainingFailure):
    """An image that looks whole cannot be decoded; the next run in the folder leaves it out."""


def explain(trainer: Trainer, error: tf.errors.OpError) -> Exception:
    """The one-line error to raise in place of TensorFlow's, which `fit` ended with.

    A BrokenImage has been noted: later runs in the folder leave it out.
    """
    # The last one reads the files.
    for look in (_too_many_bad_records, _missing_records, _lost_worker, _broken_image):
        found = look(trainer, error)
        if found is not None:
            return found
    return TrainingFailure(
        f"TensorFlow stopped the run after step {trainer.progressive.next_step}: "
        f"{operation_fault(error.message)}; checkpoints are kept, --verbosity=1 shows the whole "
        "error"
    )


def _too_many_bad_records(trainer: Trainer, error: tf.errors.OpError) -> Exception | None:
    """What tf.data makes of an error in its functions does not say that it was this one."""
    for source in trainer.sources.by_name.values():
        try:
            source.bad_records.check()
        except TooManyBadRecords as too_many:
            return TrainingFailure(f"data: {too_many}")
    return None


def _missing_records(trainer: Trainer, error: tf.errors.OpError) -> Exception | None:
    if "was expected to contain" not in (error.message or ""):  # of assert_cardinality
        return None
    info = trainer.sources.train.info
    return UsageError(
        f"data.options.num_examples: expected the number of records in {info.name}, received "
        f"{info.num_examples}, which is more; leave it out to have them counted"
    )


def _lost_worker(trainer: Trainer, error: tf.errors.OpError) -> Exception | None:
    lost = trainer.workers.describe_loss(error)
    if lost is None:
        return None
    return TrainingFailure(
        f"{lost}: it goes on from the last checkpoint (this worker, {trainer.workers.index}, has "
        f"come to step {trainer.progressive.next_step})"
    )


def _broken_image(trainer: Trainer, error: tf.errors.OpError) -> BrokenImage | None:
    sources = trainer.sources
    broken = find_broken_image((sources.evaluation, sources.train), error, _next_images(trainer))
    if broken is None:
        return None
    note_broken_image(trainer.model_dir, sources, *broken)
    return BrokenImage(f"{describe(broken, error)}; the next run in the folder leaves it out")


def _next_images(trainer: Trainer) -> tuple[Source, tf.data.Dataset] | None:
    """The training images of which the next call's batches are made, where they are known."""
    step, schedule = trainer.progressive.next_step, trainer.schedule
    if trainer.workers.count > 1 or not 0 <= step < schedule.total_steps:
        return None
    position, train = schedule.position(step), trainer.sources.train
    batch_size = position.stage.batch_size
    images = train.epoch(
        position.epoch,
        seed=trainer.recipe.seed,
        start=position.step_in_epoch * batch_size,
        shuffle=True,
    )
    return train, images.take(keras_compat.steps_per_execution(trainer.model) * batch_size)
