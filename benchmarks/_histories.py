"""Reading training runs' histories: the time to the same accuracy."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from _measure import Comparison, Target

from effnetv2_tf.errors import UsageError

_ROUNDING = 1e-6  # accuracies are float32: far less than one image


class Point(NamedTuple):
    """An evaluated epoch: seconds of training since the beginning, held-out accuracy."""

    seconds: float
    accuracy: float


def read_points(path: Path) -> list[Point]:
    """The evaluated epochs of a history.csv.

    Raises:
      UsageError: if there is none.
    """
    if not path.is_file():
        raise UsageError(f"{path}: expected a finished run's history; run without --notrain")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seconds = accumulate(float(row["train_seconds"]) for row in rows)
    return [
        Point(spent, float(row["val_accuracy"]))
        for spent, row in zip(seconds, rows, strict=True)
        if row.get("val_accuracy")
    ]


def seconds_to(points: Sequence[Point], accuracy: float) -> float | None:
    """Of training until an accuracy is reached for the first time; None if it never is."""
    least = accuracy - _ROUNDING
    return next((point.seconds for point in points if point.accuracy >= least), None)


def compare(
    progressive: Sequence[Point], fixed: Sequence[Point], tolerance: float
) -> list[Comparison]:
    """The line that has a target, and the one that always has figures."""
    lines = []
    final = fixed[-1].accuracy - tolerance
    both = min(max(point.accuracy for point in run) for run in (progressive, fixed))
    for accuracy, how, target in (
        (final, f"the fixed run's final accuracy less {tolerance:.1%}", Target("at most", 0.55)),
        (both, "the highest that both runs reach", None),
    ):
        ours, theirs = seconds_to(progressive, accuracy), seconds_to(fixed, accuracy)
        best = max(point.accuracy for point in progressive)
        lines.append(
            Comparison(
                what=f"training time to {accuracy:.2%} on Fashion-MNIST, progressive",
                peer="ours at fixed size",
                unit="s",
                ours=[] if ours is None else [ours],
                theirs=[] if theirs is None else [theirs],
                target=target,
                note=f"{how}; one run each" + ("" if ours else f"; ours reach {best:.2%} at most"),
            )
        )
    return lines
