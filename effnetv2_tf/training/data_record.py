"""What a run's folder remembers of its data, beside the weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from effnetv2_tf.data.sources import SourceInfo
from effnetv2_tf.errors import UsageError
from effnetv2_tf.files import write_text
from effnetv2_tf.training.build import Sources
from effnetv2_tf.training.checkpoints import Checkpoint
from effnetv2_tf.training.distributed_workers import Workers
from effnetv2_tf.training.run_summary import usable_images
from effnetv2_tf.training.schedule import StageSchedule

BROKEN_IMAGES = "broken_images.json"


def record_data(sources: Sources, schedule: StageSchedule, workers: Workers) -> dict[str, Any]:
    """Names of classes, numbers of channels, images and steps, and the bad records met so far.

    To be called by all workers, see `share_bad_records`.
    """
    share_bad_records(sources, workers)
    info = sources.train.info
    return {
        "class_names": list(info.class_names),
        "source_channels": info.channels,
        "num_examples": info.num_examples,
        "steps_per_epoch": _steps_per_epoch(schedule),
        "evaluation_images": usable_images(sources.evaluation),
        "bad_records": _reasons(sources),
    }


def share_bad_records(sources: Sources, workers: Workers) -> None:
    """Notes the bad records that other workers have met: each reads its share of the data."""
    for text in workers.gather_text(json.dumps(_reasons(sources))):
        _note(sources, json.loads(text))


def restore_bad_records(sources: Sources, checkpoint: Checkpoint) -> None:
    """Notes what the run that is resumed has met: what it does not read again it cannot find."""
    _note(sources, checkpoint.metadata.get("bad_records", {}))


def _reasons(sources: Sources) -> dict[str, dict[str, str]]:
    return {name: source.bad_records.reasons() for name, source in sources.by_name.items()}


def _note(sources: Sources, reasons: Mapping[str, Mapping[str, str]]) -> None:
    for name, source in sources.by_name.items():
        for record, reason in reasons.get(name, {}).items():
            source.bad_records.add(record, reason)


def note_broken_images(model_dir: Path, names: Mapping[str, Iterable[str]]) -> None:
    """Has later runs in the folder leave images out that cannot be decoded.

    Args:
      model_dir: the folder.
      names: of the images, by the splits' names of `Sources.by_name`.
    """
    noted = _noted_images(model_dir)
    noted |= {split: sorted({*noted.get(split, ()), *found}) for split, found in names.items()}
    write_text(model_dir / BROKEN_IMAGES, json.dumps(noted, indent=2) + "\n")


def refuse_broken_images(model_dir: Path, sources: Sources) -> None:
    """Has pipelines leave out what runs in the folder could not decode.

    Raises:
      UsageError: if their list cannot be read.
    """
    noted = _noted_images(model_dir)
    for split, source in sources.by_name.items():
        for name in noted.get(split, ()):
            source.bad_records.refuse(name)


def _noted_images(model_dir: Path) -> dict[str, list[str]]:
    path = model_dir / BROKEN_IMAGES
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UsageError(
            f"{path}: expected JSON, received {error}; remove it to have broken images found again"
        ) from error


def check_steps(info: SourceInfo, schedule: StageSchedule, checkpoint: Checkpoint) -> None:
    """Refuses training data of which an epoch has more or fewer steps than before.

    A checkpoint's step would lie in another epoch. An image more or less that leaves the steps as
    they are is no harm.

    Raises:
      UsageError: with both numbers of images.
    """
    recorded = checkpoint.metadata.get("steps_per_epoch")  # None in an earlier version's run
    if recorded is not None and recorded != _steps_per_epoch(schedule):
        raise UsageError(
            f"data: {info.name}: expected the run's {checkpoint.metadata['num_examples']} training "
            f"images, received {info.num_examples}, of which epochs have other numbers of steps; "
            "give the data its images again, or train on it in another --model_dir"
        )


def _steps_per_epoch(schedule: StageSchedule) -> list[int]:
    return [stage.steps_per_epoch for stage in schedule.stages]
