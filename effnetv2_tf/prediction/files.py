"""Which image files are meant, and what was said of them as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effnetv2_tf.data.sources.base import DataError
from effnetv2_tf.data.sources.image_listing import EXTENSIONS, files_below, is_image_name
from effnetv2_tf.errors import UsageError
from effnetv2_tf.prediction.predictor import Prediction, Predictor, Unreadable

CSV_COLUMNS = ("file", "rank", "class", "index", "probability")


@dataclass(frozen=True)
class FoundImages:
    """Image files, and what else lay beside them.

    Attributes:
      files: every file once, in the order of the names; a folder's files sorted.
      named: those that were named themselves, not found in a folder; they may not exist.
      others: files in the folders without an image's extension.
    """

    files: tuple[Path, ...]
    named: frozenset[Path]
    others: tuple[Path, ...]


def find_images(names: Sequence[str | Path]) -> FoundImages:
    """The image files that names of files and folders mean; folders with all below them.

    In folders, hidden files and hidden folders are left out, and an image is told by its
    extension. What is named itself is taken as it is: whether it is an image shows when it
    is read.

    Raises:
      UsageError: without names, and for a folder that holds no image or cannot be read.
    """
    if not names:
        raise UsageError("expected at least one image file or folder, received none")
    files: dict[Path, None] = {}  # a set that keeps the order
    others: dict[Path, None] = {}
    named: set[Path] = set()
    for path in map(Path, names):
        if not path.is_dir():
            named.add(path)
            files[path] = None
            continue
        try:
            below = files_below(path)
        except DataError as error:
            raise UsageError(str(error)) from error
        images = [file for file in below if is_image_name(file)]
        if not images:
            raise UsageError(
                f"{path}: expected image files ({', '.join(EXTENSIONS)}) in the folder or below "
                f"it, found {f'only {len(below)} other files' if below else 'no files'}"
            )
        files |= dict.fromkeys(images)
        others |= dict.fromkeys(file for file in below if not is_image_name(file))
    return FoundImages(tuple(files), frozenset(named), tuple(others))


def as_csv(results: Iterable[Prediction | Unreadable]) -> str:
    """A CSV table of predictions, a row for every class of every image; see `CSV_COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for result in results:
        if isinstance(result, Prediction):
            for rank, score in enumerate(result.classes, start=1):
                probability = f"{score.probability:.6g}"
                writer.writerow((result.file, rank, score.name, score.index, probability))
    return text.getvalue()


def as_json(
    predictor: Predictor, results: Sequence[Prediction | Unreadable], others: Sequence[Path] = ()
) -> str:
    """Predictions as JSON, with how images were prepared and all that was left out.

    Args:
      predictor: that made them.
      results: see `Predictor.predict`.
      others: see `FoundImages`.
    """
    predictions = [result for result in results if isinstance(result, Prediction)]
    unreadable = [result for result in results if isinstance(result, Unreadable)]
    report: dict[str, Any] = {
        "model": predictor.origin,
        "preparation": predictor.preparation.as_dict(),
        "images": [
            {"file": str(result.file), "classes": [asdict(score) for score in result.classes]}
            for result in predictions
        ],
        "unreadable": [{"file": str(r.file), "reason": r.reason} for r in unreadable],
        "skipped": list(map(str, others)),
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"
