"""The picture of a genotype: its two cells as graphs."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effnetv2_tf.models.genotypes import INPUT_STATES, Cell, Genotype
from effnetv2_tf.reporting.files import save_figure

_INPUTS = ("cell before", "cell before that")
_INPUT_COLOUR, _BLOCK_COLOUR, _OUTPUT_COLOUR = "#8d99ae", "#6fb1a0", "#e9944a"


def draw_genotype(genotype: Genotype, path: Path, title: str) -> None:
    """Draws the normal and the reduction cell, from their inputs upwards.

    Each block is a box with its two operations; a line leads to each from the state it is
    applied to. What the cell's output concatenates is orange.

    Args:
      genotype: to be drawn.
      path: of the PNG file.
      title: over the picture.
    """
    cells = (("normal cell", genotype.normal), ("reduction cell", genotype.reduction))
    blocks = max(len(cell.blocks) for _, cell in cells)
    figure = Figure(figsize=(11, 1.9 + 1.3 * blocks), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    for axes, (name, cell) in zip(figure.subplots(1, 2), cells, strict=True):
        _draw_cell(axes, cell, blocks)
        axes.set_title(name, fontsize=11)
    save_figure(figure, path)


def _draw_cell(axes: Axes, cell: Cell, rows: int) -> None:
    places = _places(cell)
    for state, name in enumerate(_INPUTS):
        colour = _OUTPUT_COLOUR if state in cell.output_states else _INPUT_COLOUR
        _box(axes, *places[state], f"{state}: {name}", colour)
    for number, block in enumerate(cell.blocks):
        state = INPUT_STATES + number
        x, y = places[state]
        colour = _OUTPUT_COLOUR if state in cell.output_states else _BLOCK_COLOUR
        _box(axes, x, y + 0.3, f"{state}: sum", colour)
        for side, (source, operation) in zip((-1, 1), block.operands, strict=True):
            place = (x + 0.62 * side, y - 0.12)
            _box(axes, *place, operation, "white")
            _line(axes, (place[0], place[1] + 0.1), (x + 0.15 * side, y + 0.2))
            from_x, from_y = places[source]
            top = from_y + (0.12 if source < INPUT_STATES else 0.42)
            _line(axes, (from_x, top), (place[0], place[1] - 0.12))
    axes.set(xlim=(-2.1, 2.1), ylim=(-0.35, rows + 0.65))
    axes.set_axis_off()


def _places(cell: Cell) -> list[tuple[float, float]]:
    """Where the states are drawn: the inputs below, the blocks by turns left and right of them."""
    inputs = [(-0.9, 0.0), (0.9, 0.0)]
    blocks = [(-0.75 if i % 2 == 0 else 0.75, 1.0 + i) for i in range(len(cell.blocks))]
    return [*inputs, *blocks]


def _box(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    style = {"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": "0.4"}
    axes.text(x, y, text, ha="center", va="center", fontsize=8, zorder=3, bbox=style)


def _line(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = {"arrowstyle": "-|>", "color": "0.45", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=2)
