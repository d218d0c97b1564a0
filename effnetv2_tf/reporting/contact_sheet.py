"""A contact sheet: images with their likeliest classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effnetv2_tf.reporting.files import save_figure

_COLUMNS = 5
_SIDE = 2.5  # inches that an image takes
_LINE = 0.24  # inches that a class takes
_BAR, _TRACK = "#9cc3e6", "#eef2f6"


@dataclass(frozen=True, eq=False)
class SheetEntry:
    """One image of a sheet.

    Attributes:
      pixels: uint8 (height, width, 1 or 3).
      title: over it, such as the file's name.
      classes: (name, probability), the likeliest first.
    """

    pixels: np.ndarray
    title: str
    classes: tuple[tuple[str, float], ...]


def draw_contact_sheet(entries: Sequence[SheetEntry], path: Path, title: str) -> None:
    """Draws images in rows of five, the classes of each as bars below it.

    Args:
      entries: at least one.
      path: of the PNG file.
      title: over the sheet.
    """
    columns = min(_COLUMNS, len(entries))
    rows = math.ceil(len(entries) / columns)
    lines = max(1, *(len(entry.classes) for entry in entries))
    bars = _LINE * lines
    row_height = _SIDE + bars + 0.45
    width, height = columns * (_SIDE + 0.3) + 0.3, rows * row_height + 0.6
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.2 / height, fontsize=11, fontweight="bold")
    for number, entry in enumerate(entries):
        row, column = divmod(number, columns)
        left = 0.3 + column * (_SIDE + 0.3)
        top = height - 0.75 - row * row_height
        picture = _place(figure, left, top - _SIDE, _SIDE, _SIDE)
        _draw_image(picture, entry)
        bottom = top - _SIDE - 0.06 - _LINE * len(entry.classes)
        if entry.classes:
            _draw_classes(_place(figure, left, bottom, _SIDE, _LINE * len(entry.classes)), entry)
    save_figure(figure, path)


def _place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches."""
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes(
        (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    )


def _draw_image(axes: Axes, entry: SheetEntry) -> None:
    pixels = entry.pixels
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    axes.imshow(pixels, interpolation="nearest" if pixels.shape[0] < 100 else "antialiased")
    axes.set_axis_off()
    axes.set_title(_shortened(entry.title, 36), fontsize=8, pad=3)


def _draw_classes(axes: Axes, entry: SheetEntry) -> None:
    places = range(len(entry.classes))
    axes.barh(places, [1.0] * len(entry.classes), height=0.84, color=_TRACK)
    axes.barh(places, [share for _, share in entry.classes], height=0.84, color=_BAR)
    for place, (name, share) in enumerate(entry.classes):
        weight = "bold" if place == 0 else "normal"
        axes.text(0.02, place, _shortened(name, 28), va="center", fontsize=8, fontweight=weight)
        axes.text(0.98, place, f"{share:.1%}", va="center", ha="right", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(len(entry.classes) - 0.5, -0.5))
    axes.set_axis_off()


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
