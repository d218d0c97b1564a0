"""Which image files a folder or a CSV file names, and of which class; opens none of them."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from effnetv2_tf.data.sources.base import DataError
from effnetv2_tf.errors import nearest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
CSV_COLUMNS = ("path", "label")
_FILES_OF_WINDOWS = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Listing:
    """Files with their classes.

    Attributes:
        origin: the folder or the CSV file, for error messages.
        files: one path per record.
        labels: class id of each file.
        class_names: one name per class id.
    """

    origin: Path
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]


def list_class_names(directory: Path) -> tuple[str, ...]:
    """Sorted names of the sub-folders, one per class; hidden ones do not count.

    Raises:
        DataError: if the folder is missing or has no sub-folder.
    """
    if not directory.is_dir():
        raise DataError(
            "no such folder",
            expected="a folder with one sub-folder of images per class",
            received="a file" if directory.exists() else "nothing",
            path=directory,
            suggestion=_similar_sibling(directory),
        )
    names = sorted(p.name for p in directory.iterdir() if p.is_dir() and p.name[0] != ".")
    if not names:
        files = sum(p.is_file() for p in directory.iterdir())
        raise DataError(
            "no class folders",
            expected="one sub-folder of images per class",
            received=f"{files} files and no sub-folder" if files else "an empty folder",
            path=directory,
            suggestion="sort images into sub-folders, or name them in a CSV file of path,label",
        )
    return tuple(names)


def list_folder(directory: Path, class_names: Sequence[str] | None = None) -> Listing:
    """Lists all files below the class sub-folders, sorted; hidden files do not count.

    Image files beside the class folders are listed too, with class id -1: they are bad records.

    Args:
        directory: folder with one sub-folder per class.
        class_names: names in the order of the class ids, to get the ids of the training split; by
            default the sorted names of the sub-folders.

    Raises:
        DataError: on a missing or empty folder, an empty class folder, or one not in `class_names`.
    """
    folders = list_class_names(directory)
    names = tuple(folders if class_names is None else class_names)
    ids = {name: i for i, name in enumerate(names)}
    files: list[Path] = []
    labels: list[int] = []
    for folder in folders:
        _check_known_class(folder, names, directory / folder)
        found = files_below(directory / folder)
        if not found:
            raise DataError(
                "empty class folder",
                expected="at least one image",
                received="no files",
                path=directory / folder,
                suggestion="add images or remove the folder",
            )
        files += found
        labels += [ids[folder]] * len(found)
    stray = sorted(p for p in directory.iterdir() if p.is_file() and is_image_name(p))
    return Listing(directory, (*files, *stray), (*labels, *[-1] * len(stray)), names)


def list_csv(
    path: Path, directory: Path | None = None, class_names: Sequence[str] | None = None
) -> Listing:
    """Lists the files that a CSV file of path,label names, in its order.

    The first row is a header if its first field has no image extension; a header may name further
    columns. Labels are class names; if all are whole numbers they are sorted as numbers.

    Args:
        path: the CSV file.
        directory: what relative paths start from; by default the folder of the CSV file.
        class_names: as for `list_folder`.

    Raises:
        DataError: on a missing or empty file, one that is no UTF-8 or no CSV, missing columns,
            an empty path or label, or a label not in `class_names`.
    """
    if not path.is_file():
        raise DataError(
            "no such CSV file",
            expected="a file with columns path,label",
            received="a folder" if path.is_dir() else "nothing",
            path=path,
            suggestion=_similar_sibling(path),
        )
    root = path.parent if directory is None else directory
    rows = _read_rows(path)
    names = _sorted_labels(label for _, label in rows) if class_names is None else class_names
    ids = {name: i for i, name in enumerate(names)}
    for label in {label for _, label in rows} - ids.keys():
        _check_known_class(label, tuple(names), path)
    return Listing(
        path,
        tuple(root / file for file, _ in rows),
        tuple(ids[label] for _, label in rows),
        tuple(names),
    )


def take_subset(listing: Listing, subset: str, validation_share: float, seed: int) -> Listing:
    """The "train" or the "validation" part of a listing, stratified by class.

    In each class the files are ordered by a hash of (seed, file name relative to the origin) and
    the first `validation_share` of them, rounded, at least one and not all, are for validation. So
    the split does not depend on the machine, on the order of the files, or on where the folder
    lies. A file that is listed several times is in one part alone, also of two classes: the first
    of them decides.

    Raises:
        DataError: if a class has too few files to be in both parts.
    """
    root = listing.origin if listing.origin.is_dir() else listing.origin.parent
    by_class: dict[int, dict[Path, list[int]]] = {}
    for position, (file, label) in enumerate(zip(listing.files, listing.labels, strict=True)):
        by_class.setdefault(label, {}).setdefault(file, []).append(position)
    chosen: list[int] = []
    validates: dict[Path, bool] = {}
    for label, positions in by_class.items():
        if len(positions) < 2 and label >= 0:
            raise DataError(
                "too few images to split off a validation part",
                expected="at least 2 in each class",
                received=f"{len(positions)} in class {listing.class_names[label]!r}",
                path=listing.origin,
                suggestion="add images, or set validation_share=0",
            )
        files = sorted(positions, key=lambda file: _hash(seed, _relative(file, root)))
        boundary = 0
        if label >= 0:  # both parts have an image of each class
            boundary = min(max(1, round(validation_share * len(files))), len(files) - 1)
        missing = boundary - sum(validates.get(file, False) for file in files)
        undecided = [file for file in files if file not in validates]
        validates.update((file, number < missing) for number, file in enumerate(undecided))
        part = [file for file in files if validates[file] == (subset == "validation")]
        chosen += [position for file in part for position in positions[file]]
    chosen.sort()
    return Listing(
        listing.origin,
        tuple(listing.files[p] for p in chosen),
        tuple(listing.labels[p] for p in chosen),
        listing.class_names,
    )


def is_image_name(path: Path) -> bool:
    """Whether the name ends as that of a supported image file, in any case of letters."""
    return path.suffix.lower() in EXTENSIONS


def files_below(directory: Path) -> list[Path]:
    """The files in a folder and those within it; links are followed, once to each folder.

    Hidden files are left out, and what Windows puts into folders.

    Raises:
        DataError: if a folder cannot be read.
    """
    found: list[Path] = []
    # A link to where one comes from would lead round for ever.
    visited = {parent.resolve() for parent in (directory, *directory.resolve().parents)}
    for folder, subfolders, names in os.walk(directory, followlinks=True, onerror=_unreadable):
        subfolders[:] = [
            name for name in sorted(subfolders) if name[0] != "." and _is_new(folder, name, visited)
        ]
        found += [
            Path(folder, name)
            for name in names
            if name[0] != "." and name.lower() not in _FILES_OF_WINDOWS
        ]
    return sorted(found)


def _is_new(folder: str, name: str, visited: set[Path]) -> bool:
    """Whether a sub-folder was not visited before; notes that it is now."""
    resolved = Path(folder, name).resolve()
    is_new = resolved not in visited
    visited.add(resolved)
    return is_new


def _unreadable(error: OSError) -> None:
    raise DataError(
        "unreadable folder",
        expected="a folder whose files can be listed",
        received=error.strerror or type(error).__name__,
        path=error.filename,
        suggestion="allow it to be read, or move it away",
    ) from error


def _relative(file: Path, root: Path) -> str:
    """`os.path.relpath`, which takes ten times as long where the file lies below the root."""
    try:
        return str(file.relative_to(root))
    except ValueError:
        return os.path.relpath(file, root)


def _read_rows(path: Path) -> list[tuple[str, str]]:
    rows = _numbered_rows(path)
    header = (
        rows.pop(0)[1] if rows and not is_image_name(Path(rows[0][1][0])) else list(CSV_COLUMNS)
    )
    path_column, label_column = _header_columns(header, path)
    if not rows:
        raise DataError(
            "empty CSV file", expected="rows of path,label", received="no rows", path=path
        )
    pairs = []
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"line {line} has the wrong number of fields",
                expected=",".join(header),
                received=",".join(row),
                path=path,
                suggestion="quote paths that contain commas",
            )
        pair = row[path_column].strip(), row[label_column].strip()
        if "" in pair:
            raise DataError(
                f"line {line}: empty {CSV_COLUMNS[pair.index('')]}",
                expected=",".join(header),
                received=",".join(row),
                path=path,
                suggestion="complete the row, or remove it",
            )
        pairs.append(pair)
    return pairs


def _numbered_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its (last) line."""
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), skipinitialspace=True)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num}: not CSV",
            expected="rows of path,label",
            received=str(error),
            path=path,
        ) from error


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"line {line}: not UTF-8",
            expected="a text file in UTF-8",
            received=f"the byte 0x{data[error.start]:02x}",
            path=path,
            suggestion="save it as CSV UTF-8, as Excel calls it",
        ) from error


def _header_columns(header: list[str], path: Path) -> tuple[int, int]:
    names = [name.strip().lower() for name in header]
    for column in CSV_COLUMNS:
        if column not in names:
            raise DataError(
                f"no column {column!r}",
                expected="a header with path and label, or rows of path,label without a header",
                received=",".join(header),
                path=path,
                suggestion=nearest(column, names),
            )
    return names.index("path"), names.index("label")


def _sorted_labels(labels: Iterable[str]) -> list[str]:
    different = set(labels)
    if all(map(_is_number, different)):
        return sorted(different, key=lambda label: (int(label), label))  # 1 and 01 are two
    return sorted(different)


def _is_number(label: str) -> bool:
    return label.isascii() and label.removeprefix("-").isdigit()


def _check_known_class(name: str, class_names: tuple[str, ...], path: Path) -> None:
    if name not in class_names:
        some = ", ".join(class_names[:5]) + (", ..." if len(class_names) > 5 else "")
        raise DataError(
            "unknown class",
            expected=f"one of the {len(class_names)} class_names ({some})",
            received=repr(name),
            path=path,
            suggestion=nearest(name, class_names),
        )


def _similar_sibling(path: Path) -> str | None:
    if not path.parent.is_dir():
        return None
    return nearest(path.name, [p.name for p in path.parent.iterdir()])


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{name}".encode(errors="surrogateescape")).digest()
