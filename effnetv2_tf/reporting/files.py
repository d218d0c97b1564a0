"""Writing pictures as a whole."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter

from effnetv2_tf.files import atomic_file

_FONTS = (
    "DejaVu Sans",  # comes with matplotlib
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "WenQuanYi Zen Hei",
    "IPAGothic",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Arial Unicode MS",
)


def save_figure(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Writes a figure as PNG; an interrupted write leaves the old file, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _show_texts_as_they_are(figure)
    with atomic_file(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(file, format="png", dpi=dpi)


def _show_texts_as_they_are(figure: Figure) -> None:
    """Keeps matplotlib from taking what stands between two dollar signs of a name for a formula.

    Numbers at the axes are left alone: they are set, some as formulas, when a figure is drawn.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            named = isinstance(axis.get_major_formatter(), (FixedFormatter, FuncFormatter))
            if named and isinstance(axis.get_major_locator(), FixedLocator):
                axis.set_ticklabels([_plain(label.get_text()) for label in axis.get_ticklabels()])
    for text in figure.findobj(Text):
        text.set_text(_plain(text.get_text()))
        text.set_fontfamily(_families())


@functools.cache
def _families() -> list[str]:
    """Fonts to look for a character in, one after the other: few have those of all scripts."""
    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]


def _plain(text: str) -> str:
    readable = text.encode(errors="backslashreplace").decode()  # names that are no UTF-8
    return readable.replace("\\$", "$").replace("$", "\\$")
