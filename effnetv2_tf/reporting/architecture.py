"""The picture of a network: its stages as blocks, and what each costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import FancyBboxPatch, Patch

from effnetv2_tf.models.stage_costs import StageRow, totals
from effnetv2_tf.reporting.files import save_figure
from effnetv2_tf.reporting.numbers import short_count

_COLOURS = {
    "conv": "#8d99ae",
    "depthwise": "#6fb1a0",
    "fused": "#e9944a",
    "mbconv": "#3d7ea6",
    "dense": "#7a5c99",
}
_OTHER_COLOUR = "#b9b9b9"
_LEGEND = {"fused": "Fused-MBConv", "mbconv": "MBConv"}
_SCALE_NOTE = "height: side of the output; width: channels (both as square roots)"
_MOST_COPIES = 4  # blocks drawn behind each other
_COPY_SHIFT = (0.035, 0.1)
_MOST_STAGES = 40


def draw_architecture(rows: Sequence[StageRow], path: Path, title: str) -> None:
    """Draws the stages side by side, their parameters and multiply-adds below.

    A block's height grows with the side of its output in pixels, its width with the channels
    (both as square roots, so that the smallest can be seen); repeats stand behind it.

    Args:
      rows: see `flops.stage_table`; of more than 40 the costliest 40 are drawn.
      path: of the PNG file.
      title: over the picture.
    """
    shown = _costliest(rows)
    if len(shown) < len(rows):
        title += f" (the {len(shown)} costliest of {len(rows)} layers)"
    figure = Figure(
        figsize=(max(8.0, 1.15 * len(shown) + 1.6), 8.2), layout=ConstrainedLayoutEngine(h_pad=0.12)
    )
    shapes, parameters, multiply_adds = figure.subplots(3, 1, height_ratios=(2.1, 1, 1))
    figure.suptitle(title, fontsize=13, fontweight="bold")
    _draw_shapes(shapes, shown)
    total_parameters, total_multiply_adds = totals(rows)
    _draw_bars(parameters, shown, [r.parameters for r in shown], total_parameters, "parameters")
    costs = [row.multiply_adds for row in shown]
    _draw_bars(multiply_adds, shown, costs, total_multiply_adds, "multiply-adds")
    multiply_adds.set_xticks(range(len(shown)), [row.name for row in shown], rotation=_turn(shown))
    save_figure(figure, path)


def _costliest(rows: Sequence[StageRow]) -> list[StageRow]:
    order = sorted(range(len(rows)), key=lambda i: -rows[i].multiply_adds)[:_MOST_STAGES]
    return [rows[index] for index in sorted(order)]


def _draw_shapes(axes: Axes, rows: Sequence[StageRow]) -> None:
    largest = max(max(row.output_size) for row in rows)
    widest = max(row.channels for row in rows)
    for place, row in enumerate(rows):
        height = max(0.12, 2 * math.sqrt(max(row.output_size) / largest))
        width = max(0.08, 0.72 * math.sqrt(row.channels / widest))
        copies = min(row.repeats, _MOST_COPIES)
        for copy in reversed(range(copies)):
            shift_x, shift_y = (copy * shift for shift in _COPY_SHIFT)
            axes.add_patch(
                FancyBboxPatch(
                    (place - width / 2 + shift_x, -height / 2 + shift_y),
                    width,
                    height,
                    boxstyle="round,pad=0,rounding_size=0.03",
                    facecolor=_colour(row),
                    edgecolor="white",
                    linewidth=1.0,
                    alpha=1.0 if copy == 0 else 0.55,
                )
            )
        top = height / 2 + (copies - 1) * _COPY_SHIFT[1]
        axes.text(place, top + 0.06, _shape_text(row), ha="center", va="bottom", fontsize=8.5)
        axes.text(place, -1.12, _block_text(row), ha="center", va="top", fontsize=8.5)
    axes.set(xlim=(-0.6, len(rows) - 0.4), ylim=(-1.75, 1.95))
    axes.set_axis_off()
    axes.text(-0.6, 1.95, _SCALE_NOTE, ha="left", va="top", fontsize=8, color="0.45")
    kinds = dict.fromkeys(row.block for row in rows if row.block in _LEGEND)
    handles = [Patch(color=_COLOURS[kind], label=_LEGEND[kind]) for kind in kinds]
    if handles:
        axes.legend(handles=handles, loc="upper right", frameon=False, ncols=len(handles))


def _draw_bars(
    axes: Axes, rows: Sequence[StageRow], values: Sequence[int], total: int, label: str
) -> None:
    axes.bar(range(len(rows)), values, width=0.62, color=[_colour(row) for row in rows])
    for place, value in enumerate(values):
        text = f"{short_count(value)}\n{_share_text(value / max(total, 1))}"
        axes.text(place, value, text, ha="center", va="bottom", fontsize=8)
    axes.set_title(f"{label}: {short_count(total)}", loc="left", fontsize=10)
    axes.set(xlim=(-0.6, len(rows) - 0.4), ylim=(0, max(*values, 1) * 1.28), yticks=[])
    axes.set_xticks(range(len(rows)), [""] * len(rows))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _share_text(share: float) -> str:
    return "< 1%" if 0 < share < 0.005 else f"{share:.0%}"


def _shape_text(row: StageRow) -> str:
    height, width = row.output_size
    if (height, width) == (1, 1):
        return f"{row.channels}"
    return f"{height} x {width}\n{row.channels} ch."


def _block_text(row: StageRow) -> str:
    lines = [_LEGEND.get(row.block, row.block)]
    if row.kernel_size is not None:
        lines.append("x".join(map(str, row.kernel_size)))
        if row.strides not in (None, (1, 1)):
            lines[-1] += f", stride {max(row.strides or (1,))}"
    if row.expansion is not None:
        lines.append(f"expansion {row.expansion}" + (", SE" if row.se_ratio else ""))
    if row.repeats > 1:
        lines.append(f"{row.repeats} blocks")
    return "\n".join(lines)


def _colour(row: StageRow) -> str:
    return _COLOURS.get(row.block, _OTHER_COLOUR)


def _turn(rows: Sequence[StageRow]) -> int:
    """Degrees by which the names are turned: long ones would overlap."""
    return 90 if max(len(row.name) for row in rows) > 12 else 0
