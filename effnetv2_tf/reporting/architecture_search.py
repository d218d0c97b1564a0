"""The pictures of an architecture search: rewards over the trials, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from effnetv2_tf.reporting.files import save_figure
from effnetv2_tf.reporting.pareto import pareto_front

_STATES = {"finished": ("o", "tab:blue"), "stopped early": ("v", "tab:gray")}


def draw_rewards(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draws the reward (or, where there is none, the accuracy) of every trial, and the best so far.

    Failed trials are crosses at the lower edge.

    Args:
      rows: `trial`, `state` (`"finished"`, `"stopped early"` or `"failed"`), `reward`,
        `accuracy`.
      path: of the PNG file.
      title: over the picture.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    finished = [row for row in rows if row["state"] == "finished"]
    what = "reward" if any(row["reward"] is not None for row in finished) else "accuracy"
    for state, (marker, colour) in _STATES.items():
        chosen = [row for row in rows if row["state"] == state and row[what] is not None]
        if chosen:
            axes.scatter(
                [row["trial"] for row in chosen],
                [row[what] for row in chosen],
                marker=marker,
                color=colour,
                alpha=0.7,
                label=state,
            )
    best = list(accumulate((row[what] for row in finished), max))
    axes.step(
        [row["trial"] for row in finished],
        best,
        where="post",
        color="tab:orange",
        label="best so far",
    )
    _mark_failed(axes, [row["trial"] for row in rows if row["state"] == "failed"])
    axes.set(xlabel="trial", ylabel=what, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def draw_front(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draws accuracy against parameters, multiply-adds and, if measured, the step time.

    In each panel the points that no other betters in both respects are joined.

    Args:
      rows: of `draw_rewards`, with `parameters`, `multiply_adds`, `step_seconds`.
      path: of the PNG file.
      title: over the picture.
    """
    finished = [row for row in rows if row["state"] == "finished"]
    panels = [
        ("parameters", 1e6, "parameters, millions"),
        ("multiply_adds", 1e6, "multiply-adds, millions"),
    ]
    if all(row["step_seconds"] is not None for row in finished):
        panels.append(("step_seconds", 1e-3, "training step, ms"))
    figure = Figure(figsize=(4.5 * len(panels), 4.5), layout="constrained")
    figure.suptitle(title)
    all_axes = figure.subplots(1, len(panels), sharey=True)
    for axes, (name, unit, label) in zip(all_axes, panels, strict=True):
        points = [(row[name] / unit, row["accuracy"]) for row in finished]
        axes.scatter(*zip(*points, strict=True), alpha=0.6)
        front = sorted(points[i] for i in pareto_front(points, ("min", "max")))
        axes.plot(*zip(*front, strict=True), "o-", color="tab:orange", label="front")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("accuracy of the short training")
    all_axes[0].legend()
    save_figure(figure, path)


def draw_searchers(runs: Mapping[str, Sequence[Sequence[float]]], path: Path, title: str) -> None:
    """Draws the best reward so far of several searchers: the mean of their runs, and the range.

    Args:
      runs: by searcher, for each run the reward of every trial in order; runs of equal length.
      path: of the PNG file.
      title: over the picture.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, rewards in runs.items():
        best = np.maximum.accumulate(np.array(rewards), axis=1)
        trials = np.arange(1, best.shape[1] + 1)
        (line,) = axes.plot(trials, best.mean(axis=0), label=f"{name}, {len(best)} seeds")
        axes.fill_between(
            trials, best.min(axis=0), best.max(axis=0), color=line.get_color(), alpha=0.15
        )
    axes.set(xlabel="trials", ylabel="best reward so far", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def _mark_failed(axes: Axes, trials: Sequence[int]) -> None:
    if trials:
        axes.scatter(
            trials,
            [0.03] * len(trials),  # of the picture's height, where no reward is drawn
            marker="x",
            color="tab:red",
            transform=axes.get_xaxis_transform(),
            label="failed",
        )
