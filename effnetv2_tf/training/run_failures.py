"""What an error of TensorFlow's means for a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from effnetv2_tf.data.broken_images import broken_images, describe
from effnetv2_tf.data.sources import TooManyBadRecords
from effnetv2_tf.errors import TrainingFailure, UsageError, operation_fault
from effnetv2_tf.training.data_record import note_broken_images

if TYPE_CHECKING:
    from effnetv2_tf.training.trainer import Trainer


class BrokenImage(TrainingFailure):
    """Images that look whole cannot be decoded; the next run in the folder leaves them out."""


def explain(trainer: Trainer, error: tf.errors.OpError) -> Exception:
    """The one-line error to raise in place of TensorFlow's, which `fit` ended with.

    A BrokenImage has been noted: later runs in the folder leave it out.
    """
    # The last one reads all images.
    for look in (_too_many_bad_records, _missing_records, _lost_worker, _broken_images):
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


def _broken_images(trainer: Trainer, error: tf.errors.OpError) -> BrokenImage | None:
    """All are looked for at once: each that is met later costs the steps since a checkpoint."""
    found = {
        split: list(broken_images(source, error))
        for split, source in trainer.sources.by_name.items()
    }
    names = [*found["evaluation"], *found["train"]]
    if not names:
        return None
    note_broken_images(trainer.model_dir, found)
    them = "it" if len(names) == 1 else f"it and {len(names) - 1} more"
    return BrokenImage(f"{describe(names[0], error)}; the next run in the folder leaves {them} out")
