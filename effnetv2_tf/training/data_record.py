"""What a run's checkpoints remember of its data, beside the weights."""

from __future__ import annotations

from typing import Any

from effnetv2_tf.data.sources import SourceInfo
from effnetv2_tf.errors import UsageError
from effnetv2_tf.training.build import Sources
from effnetv2_tf.training.checkpoints import Checkpoint


def record_data(sources: Sources) -> dict[str, Any]:
    """Names of the classes, number of training images, and the bad records met so far."""
    info = sources.train.info
    return {
        "class_names": list(info.class_names),
        "num_examples": info.num_examples,
        "bad_records": {
            name: source.bad_records.reasons() for name, source in _by_name(sources).items()
        },
    }


def restore_bad_records(sources: Sources, checkpoint: Checkpoint) -> None:
    """Notes what the run that is resumed has met: what it does not read again it cannot find."""
    recorded = checkpoint.metadata.get("bad_records", {})
    for name, source in _by_name(sources).items():
        for record, reason in recorded.get(name, {}).items():
            source.bad_records.add(record, reason)


def check_num_examples(info: SourceInfo, checkpoint: Checkpoint) -> None:
    """Refuses training data with more or fewer images than before.

    An epoch would have other steps, so that a checkpoint's step would lie in another epoch.

    Raises:
      UsageError: with both numbers.
    """
    recorded = checkpoint.metadata.get("num_examples")  # None in an earlier version's run
    if recorded is not None and recorded != info.num_examples:
        raise UsageError(
            f"data: {info.name}: expected the run's {recorded} training images, received "
            f"{info.num_examples}; give the data its images again, or train on it in another "
            "--model_dir"
        )


def _by_name(sources: Sources) -> dict[str, Any]:
    return {"train": sources.train, "evaluation": sources.evaluation}
