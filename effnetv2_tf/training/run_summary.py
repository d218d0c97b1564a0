"""What a run was and what came out of it, in plain values, for summary.json."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf import __version__
from effnetv2_tf.data.sources import Source
from effnetv2_tf.git import ask_git
from effnetv2_tf.kernels import operations
from effnetv2_tf.training import build
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.schedule import StageSchedule


def summarize(
    recipe: Recipe,
    network: keras.Model,
    sources: build.Sources,
    schedule: StageSchedule,
    rows: Sequence[dict[str, float]],
    best: dict[str, Any] | None,
    evaluation_images: int | None = None,
) -> dict[str, Any]:
    """The summary of a run that has come to its end.

    Args:
      recipe: of the run.
      network: trained.
      sources: its data.
      schedule: its stages.
      rows: of history.csv.
      best: epoch and value of the best checkpoint, and of what, if there is one.
      evaluation_images: whose accuracy the last row has; None for those there are now.
    """
    last = rows[-1]
    seconds = sum(row["train_seconds"] for row in rows)
    images = sum(row["images_per_second"] * row["train_seconds"] for row in rows)
    return {
        "recipe": recipe.name,
        "network": recipe.model.name,
        "parameters": int(network.count_params()),
        "accuracy": last.get("val_accuracy"),
        "top_5_accuracy": last.get("val_top_5_accuracy"),
        "loss": last.get("val_loss"),
        "best": best,
        "evaluated_on": sources.evaluation.info.name,
        "evaluation_images": evaluation_images or usable_images(sources.evaluation),
        "evaluation_size": build.evaluation_size(recipe),
        "class_names": list(sources.train.info.class_names),
        "steps": int(last["step"]),
        "train_seconds": round(seconds, 2),
        "images_per_second": round(images / max(seconds, 1e-9), 2),
        "stages": _stage_summaries(schedule, rows),
        "bad_records": {name: _bad_records(s) for name, s in sources.by_name.items()},
        "seed": recipe.seed,
        "precision": recipe.training.precision,
        "versions": versions(),
        "compiled_kernels": operations.in_use(),
        "git_revision": git_revision(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {
        "effnetv2_tf": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def git_revision() -> str | None:
    """The revision of the checkout that this package runs from, or None.

    Installed in an environment within somebody's project, the package is no part of that.
    """
    here = Path(__file__).resolve()
    folder = here.parent
    return ask_git(folder, "rev-parse", "HEAD") if ask_git(folder, "ls-files", here.name) else None


def _stage_summaries(
    schedule: StageSchedule, rows: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    summaries = []
    for stage in schedule.stages:
        own = [row for row in rows if stage.first_epoch < row["epoch"] <= stage.last_epoch]
        summaries.append(
            {
                "stage": stage.index,
                "image_size": stage.image_size,
                "epochs": stage.epochs,
                "train_seconds": round(sum(row["train_seconds"] for row in own), 2),
            }
        )
    return summaries


def usable_images(source: Source) -> int:
    """Images without those that turned out to be bad, when the source was opened or read."""
    return source.bad_records.total_examples - source.bad_records.count


def _bad_records(source: Source) -> dict[str, Any]:
    return {"count": source.bad_records.count, "names": list(source.bad_records.names())}
