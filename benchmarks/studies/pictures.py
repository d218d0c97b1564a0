"""Pictures of the studies: means with a bar of one standard deviation, single runs as dots."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effnetv2_tf.reporting.files import save_figure


def draw_lines(
    path: Path,
    places: Sequence[float],
    lines: Mapping[str, Sequence[Sequence[float]]],
    x_label: str,
    y_label: str,
    log_x: bool = False,
) -> None:
    """A line for each name, over `places`; each point is given by the values of its runs."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        _points(axes, places, points, name, "-")
    if log_x:
        axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(places, [f"{place:g}" for place in places])
    _finish(figure, axes, path, x_label, y_label)


def draw_trade_off(
    path: Path,
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
) -> None:
    """A point for each name, given by the (costs, values) of its runs."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, (costs, values) in points.items():
        _points(axes, [statistics.mean(costs)], [values], name, "")
    # From 0, so that distances show ratios.
    axes.set_xlim(0, 1.25 * max(statistics.mean(costs) for costs, _ in points.values()))
    _finish(figure, axes, path, x_label, y_label)


def _points(
    axes: Axes,
    places: Sequence[float],
    points: Sequence[Sequence[float]],
    name: str,
    line_style: str,
) -> None:
    means = [statistics.mean(values) for values in points]
    spreads = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in points]
    drawn = axes.errorbar(
        places, means, spreads, fmt="o", linestyle=line_style, capsize=3, label=name
    )
    for place, values in zip(places, points, strict=True):
        axes.plot([place] * len(values), values, ".", color=drawn.lines[0].get_color(), alpha=0.5)


def _finish(figure: Figure, axes: Axes, path: Path, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path, dpi=100)
