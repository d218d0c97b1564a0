"""The names of a run's classes: without them an id of its classifier means nothing.

Where ids come from sorted names (folders), renaming, adding or removing one gives other ids to
the rest, and nothing but the names tells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from effnetv2_tf.data.sources import SourceInfo
from effnetv2_tf.errors import UsageError
from effnetv2_tf.training.checkpoints import Checkpoint

_MOST_LISTED = 12  # names that a message lists in full; ImageNet-21k has 21,843


def recorded_class_names(checkpoint: Checkpoint, model_dir: Path) -> tuple[str, ...] | None:
    """The names of the classes that a run was trained on, by id; None if it does not tell.

    They are in its checkpoints; a run of an earlier version has them in summary.json, once it
    is finished.

    Raises:
      UsageError: if summary.json is needed and damaged.
    """
    names = checkpoint.metadata.get("class_names")
    if names is None:
        names = _names_in_summary(model_dir / "summary.json")
    return None if names is None else tuple(map(str, names))


def check_class_names(info: SourceInfo, recorded: Sequence[str] | None) -> None:
    """Refuses data whose classes are not those of the run, in the same order.

    Args:
      info: of the data.
      recorded: names of the run's classes; None if they are not known.

    Raises:
      UsageError: saying which names differ.
    """
    if recorded is not None and tuple(recorded) != info.class_names:
        raise UsageError(
            f"data: {info.name}: {_difference(info.class_names, recorded)}; give the data the "
            "run's classes again, or train on it in another --model_dir"
        )


def _names_in_summary(path: Path) -> list | None:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["class_names"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: damaged: expected class_names; remove the file") from error


def _difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    if max(len(ours), len(theirs)) <= _MOST_LISTED:
        return f"classes {', '.join(ours)} differ from the run's {', '.join(theirs)}"
    known, present = set(theirs), set(ours)
    new = _listed([name for name in ours if name not in known])
    missing = _listed([name for name in theirs if name not in present])
    if new or missing:
        return (
            f"its {len(ours)} classes differ from the run's {len(theirs)}: "
            f"new: {new or 'none'}; missing: {missing or 'none'}"
        )
    place = next(i for i, (our, their) in enumerate(zip(ours, theirs, strict=True)) if our != their)
    return (
        f"its {len(ours)} classes are the run's in another order: class {place} is "
        f"{ours[place]!r}, expected {theirs[place]!r}"
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
