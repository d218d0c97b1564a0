"""Writing pictures as a whole."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from effnetv2_tf.files import atomic_file


def save_figure(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Writes a figure as PNG; an interrupted write leaves the old file, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
