"""The table and the picture of a search for compound scaling's coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from effnetv2_tf.reporting.files import save_figure

_PANELS = (
    ("alpha", "alpha (depth)"),
    ("beta", "beta (width)"),
    ("gamma", "gamma (image size)"),
    ("multiply_adds", "multiply-adds, millions"),
)


def ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best first; equally accurate ones by multiply-adds; those without accuracy last."""
    return sorted(
        rows,
        key=lambda row: (row["accuracy"] is None, -(row["accuracy"] or 0.0), row["multiply_adds"]),
    )


def scaling_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, the best first.

    Args:
      rows: `alpha`, `beta`, `gamma`, `product`, `width`, `depth`, `image_size`, `parameters`,
        `multiply_adds`, and of those that were trained `accuracy`, `train_seconds`; `reason`
        for what is to be said beside it.
    """
    lines = [
        f"{'alpha':>6} {'beta':>6} {'gamma':>6} {'product':>7} {'depth':>6} {'width':>6} {'px':>5} "
        f"{'parameters':>12} {'mult-adds, M':>12} {'accuracy':>8} {'train s':>8}"
    ]
    for row in ranked(rows):
        accuracy, seconds = row["accuracy"], row["train_seconds"]
        lines.append(
            f"{row['alpha']:>6g} {row['beta']:>6g} {row['gamma']:>6g} {row['product']:>7.3f} "
            f"{row['depth']:>6.3f} {row['width']:>6.3f} {row['image_size']:>5} "
            f"{row['parameters']:>12,} {row['multiply_adds'] / 1e6:>12,.1f} "
            + ("       -" if accuracy is None else f"{accuracy:>8.2%}")
            + ("        -" if seconds is None else f" {seconds:>8.1f}")
            + (f"  {row['reason']}" if row["reason"] else "")
        )
    return "\n".join(lines)


def draw_scaling_search(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draws accuracy against alpha, beta, gamma and multiply-adds, the best marked.

    Candidates that failed are crosses at the lower edge.

    Args:
      rows: as of `scaling_table`.
      path: of the PNG file.
      title: over the picture.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(title)
    panels = list(figure.subplots(2, 2, sharey=True).flat)
    trained = [row for row in ranked(rows) if row["accuracy"] is not None]
    failed = [row for row in rows if row["accuracy"] is None]
    for axes, (name, label) in zip(panels, _PANELS, strict=True):
        _scatter(axes, trained, failed, name)
        axes.set_xlabel(label)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        axes.grid(alpha=0.3)
    for axes in panels[::2]:
        axes.set_ylabel("held-out accuracy")
    if trained or failed:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save_figure(figure, path)


def _scatter(
    axes: Axes, trained: Sequence[dict[str, Any]], failed: Sequence[dict[str, Any]], name: str
) -> None:
    unit = 1e6 if name == "multiply_adds" else 1.0
    if trained:
        best = trained[0]
        axes.scatter(
            [row[name] / unit for row in trained],
            [row["accuracy"] for row in trained],
            alpha=0.7,
            label="candidate",
        )
        axes.scatter(
            best[name] / unit,
            best["accuracy"],
            marker="*",
            s=220,
            color="tab:orange",
            edgecolor="black",
            zorder=3,
            label="best: alpha {alpha:g}, beta {beta:g}, gamma {gamma:g}".format_map(best)
            + f", {best['accuracy']:.2%}",
        )
    if failed:
        axes.scatter(
            [row[name] / unit for row in failed],
            [0.04] * len(failed),  # of the panel's height, where no accuracy is drawn
            marker="x",
            color="tab:red",
            transform=axes.get_xaxis_transform(),
            label="failed",
        )
        values = [row[name] / unit for row in (*trained, *failed)]
        margin = 0.05 * (max(values) - min(values)) or 0.1
        axes.set_xlim(min(values) - margin, max(values) + margin)
        axes.margins(y=0.12)
