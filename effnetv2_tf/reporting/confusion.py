"""A confusion matrix as a picture and as tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from effnetv2_tf.reporting.files import save_figure

_MOST_NAMES = 40
_MOST_NUMBERS = 20


def draw_confusion(
    confusion: np.ndarray, class_names: Sequence[str], path: Path, title: str
) -> None:
    """Draws a confusion matrix with rows normalised to shares of the true class.

    Args:
      confusion: (classes, classes) counts, rows true, columns predicted.
      class_names: one a class; shown for up to 40 classes.
      path: of the PNG file.
      title: over the picture.
    """
    classes = len(confusion)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(14.0, 4.0 + 0.45 * classes)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if classes <= _MOST_NAMES:
        axes.set_xticks(range(classes), class_names, rotation=90)
        axes.set_yticks(range(classes), class_names)
    if classes <= _MOST_NUMBERS:
        for row, column in np.argwhere(confusion > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(confusion[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    save_figure(figure, path)


def confusion_csv(confusion: np.ndarray, class_names: Sequence[str]) -> str:
    """CSV of true, predicted, images; without the pairs that did not occur."""
    pairs = np.argwhere(confusion > 0)
    rows = [(class_names[i], class_names[j], int(confusion[i, j])) for i, j in pairs]
    return _csv(("true", "predicted", "images"), rows)


def classes_csv(confusion: np.ndarray, class_names: Sequence[str]) -> str:
    """CSV of class, images, correct, accuracy; the accuracy of no images is empty."""
    images, correct = confusion.sum(axis=1), confusion.diagonal()
    rows = [
        (name, int(count), int(right), f"{right / count:.6f}" if count else "")
        for name, count, right in zip(class_names, images, correct, strict=True)
    ]
    return _csv(("class", "images", "correct", "accuracy"), rows)


def classes_without_images(confusion: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Names of the classes that no image was of."""
    return [class_names[int(i)] for i in np.flatnonzero(confusion.sum(axis=1) == 0)]


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def most_confused(
    confusion: np.ndarray, class_names: Sequence[str], count: int = 5
) -> list[tuple[str, str, int]]:
    """The most frequent mistakes as (true class, predicted class, images)."""
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = [np.unravel_index(flat, mistakes.shape) for flat in order]
    return [
        (class_names[row], class_names[column], int(mistakes[row, column]))
        for row, column in pairs
        if mistakes[row, column] > 0
    ]
