"""The training curves of a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effnetv2_tf.reporting.files import save_figure


def draw_curves(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draws loss, accuracy, image size and learning rate over epochs, stages shaded.

    Args:
      rows: of history.csv, one an epoch.
      path: of the PNG file.
      title: over the picture.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    loss, accuracy, size, rate = figure.subplots(2, 2).flat
    figure.suptitle(title)
    _curves(loss, rows, {"loss": "training", "val_loss": "held out"}, "loss")
    _curves(accuracy, rows, {"accuracy": "training", "val_accuracy": "held out"}, "accuracy")
    _curves(size, rows, {"image_size": "image size"}, "pixels", steps=True)
    _curves(rate, rows, {"learning_rate": "learning rate"}, "learning rate")
    loss.set_yscale("log")
    for axes in (loss, accuracy, size, rate):
        _shade_stages(axes, rows)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def _curves(
    axes: Axes, rows: Sequence[dict], names: dict[str, str], label: str, steps: bool = False
) -> None:
    for name, legend in names.items():
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        if points:
            style = {"drawstyle": "steps-mid"} if steps else {"marker": ".", "markersize": 5}
            axes.plot(*zip(*points, strict=True), label=legend, **style)
    axes.set_ylabel(label)
    if len(names) > 1:
        axes.legend()


def _shade_stages(axes: Axes, rows: Sequence[dict]) -> None:
    for stage, group in groupby(rows, key=lambda row: row.get("stage", 0)):
        epochs = [row["epoch"] for row in group]
        if int(stage) % 2:
            axes.axvspan(min(epochs) - 0.5, max(epochs) + 0.5, color="0.93", zorder=0)
        if min(epochs) > rows[0]["epoch"]:
            axes.axvline(min(epochs) - 0.5, color="0.6", linestyle=":", linewidth=1)
