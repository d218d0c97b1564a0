"""The table and the picture of a sweep over test sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from effnetv2_tf.reporting.files import save_figure
from effnetv2_tf.reporting.numbers import short_count

# Cost, what marks its best points, and the axis's unit and factor.
_PANELS = (
    ("multiply_adds", "best_by_multiply_adds", "multiply-adds of one image, millions", 1e6),
    ("latency_ms", "best_by_latency", "latency of a batch of {batch_size}, ms", 1.0),
)


def sweep_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, in their order.

    Args:
      rows: the fields of `training.resolution_sweep.SweepPoint`.
    """
    width = max(len("run"), *(len(row["run"]) for row in rows))
    lines = [
        f"{'run':<{width}} {'px':>5} {'mult-adds':>10} {'ms':>9} {'top-1':>8} {'top-5':>8}"
        "  Pareto-optimal by"
    ]
    for row in rows:
        lines.append(
            f"{row['run']:<{width}} {row['image_size']:>5} {short_count(row['multiply_adds']):>10} "
            f"{row['latency_ms']:>9.2f} {row['top_1']:>8.2%} {row['top_5']:>8.2%}  "
            + " and ".join(_fronts_of(row))
        )
    return "\n".join(line.rstrip() for line in lines)


def draw_sweep(
    rows: Sequence[dict[str, Any]], path: Path, title: str, batch_size: int, note: str = ""
) -> None:
    """Draws accuracy against multiply-adds and against latency, with both Pareto fronts.

    Args:
      rows: as of `sweep_table`.
      path: of the PNG file.
      title: over the picture.
      batch_size: of the latency.
      note: below it, such as the machine.
    """
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    figure.suptitle(title)
    panels = list(figure.subplots(1, 2, sharey=True))
    for axes, (cost, mark, label, unit) in zip(panels, _PANELS, strict=True):
        _draw_runs(axes, rows, cost, unit)
        _draw_front(axes, [row for row in rows if row[mark]], cost, unit)
        axes.set_xlabel(label.format(batch_size=batch_size))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        axes.margins(x=0.08, y=0.12)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("held-out top-1 accuracy")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    if note:
        panels[1].set_title(note, fontsize=8, color="0.35", loc="right")
    save_figure(figure, path)


def _fronts_of(row: dict[str, Any]) -> list[str]:
    names = {"best_by_multiply_adds": "multiply-adds", "best_by_latency": "latency"}
    return [name for mark, name in names.items() if row[mark]]


def _draw_runs(axes: Axes, rows: Sequence[dict[str, Any]], cost: str, unit: float) -> None:
    for name in dict.fromkeys(row["run"] for row in rows):
        points = sorted(
            (row for row in rows if row["run"] == name), key=lambda row: row["image_size"]
        )
        trained_at = points[0]["training_size"]
        axes.plot(
            [point[cost] / unit for point in points],
            [point["top_1"] for point in points],
            marker="o",
            markersize=4,
            alpha=0.85,
            label=f"{name}, trained at {trained_at} px",
        )
        for point in points:
            axes.annotate(
                str(point["image_size"]),
                (point[cost] / unit, point["top_1"]),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
                fontsize=7,
                weight="bold" if point["image_size"] == trained_at else "normal",
            )


def _draw_front(axes: Axes, best: Sequence[dict[str, Any]], cost: str, unit: float) -> None:
    ordered = sorted(best, key=lambda row: row[cost])
    axes.plot(
        [row[cost] / unit for row in ordered],
        [row["top_1"] for row in ordered],
        drawstyle="steps-post",
        linestyle=":",
        marker="o",
        markersize=10,
        markerfacecolor="none",
        color="black",
        zorder=3,
        label="Pareto-optimal",
    )
