"""Image files in class sub-folders, or named by a CSV file of path,label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf

from effnetv2_tf.data.sources.bad_records import BadRecords
from effnetv2_tf.data.sources.base import (
    DataError,
    Example,
    IndexedSource,
    SourceInfo,
    check_choice,
)
from effnetv2_tf.data.sources.image_listing import (
    EXTENSIONS,
    Listing,
    is_image_name,
    list_class_names,
    list_csv,
    list_folder,
    take_subset,
)
from effnetv2_tf.data.sources.validity import find_fault

SUBSETS = ("train", "validation")
SPLIT_FOLDERS = {  # names of folders, in any case of letters
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
VALIDATION_SHARE, SPLIT_SEED = 0.1, 0  # where none are given
_SPLIT_OF = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
_MANY = 50_000  # files, for which whoever waits is told what is going on
SCAN_THREADS = 16  # the scan waits for the disk or the network, not for the processor


class ImageFolderSource(IndexedSource):
    """JPEG, PNG, BMP and GIF files of one split, encoded.

    All files are looked at when the source is made (both ends and the headers of a
    JPEG, CRCs of a PNG). Truncated files, files that are no images and files of other kinds are
    left out and noted in `bad_records`.

    Args:
        directory: folder with one sub-folder per class, whose sorted names are the class ids. With
            `csv` it is where relative paths start from (default: the folder of the CSV file).
        csv: file with the columns path,label; a header is optional.
        class_names: names in the order of the class ids; give a test set those of the training
            set so that it gets the same ids.
        channels: 1 (grayscale) or 3 (RGB): what the images are to be decoded to.
        subset: "train" or "validation" to take one part of the files; None for all of them.
        validation_share: share of each class that is the "validation" subset, in (0, 1).
        split_seed: seed of that split.
        shard: (index, count) of this worker, see `Source`.
        max_bad_share: largest accepted share of bad files.

    Raises:
        DataError: on missing or empty folders, fewer than two classes, unknown classes, classes
            without any usable image, impossible arguments.
        TooManyBadRecords: if more than `max_bad_share` of the files are bad.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        csv: str | Path | None = None,
        class_names: Sequence[str] | None = None,
        channels: int = 3,
        subset: str | None = None,
        validation_share: float = 0.1,
        split_seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        max_bad_share: float = 0.01,
    ) -> None:
        listing = _list(directory, csv, class_names)
        _check_two_classes(listing)
        if subset is not None:
            check_choice("subset", subset, SUBSETS, path=listing.origin)
            _check_share(validation_share, listing.origin)
            listing = take_subset(listing, subset, validation_share, split_seed)
        bad_records = BadRecords(max_bad_share, total_examples=len(listing.files))
        files, labels = _usable(listing, bad_records)
        bad_records.check()
        _check_no_class_lost(listing, labels)
        info = SourceInfo(
            name=str(listing.origin),
            num_examples=len(files),
            num_classes=len(listing.class_names),
            class_names=listing.class_names,
            channels=channels,
            encoded=True,
        )
        super().__init__(info, bad_records=bad_records, shard=shard)
        with tf.device("CPU:0"):
            self._files = tf.constant([os.fsencode(file) for file in files])
            self._labels = tf.constant(labels, tf.int64)

    def fetch(self, entry: tf.Tensor) -> Example:
        file = tf.gather(self._files, entry)
        return {
            "image": tf.io.read_file(file),
            "label": tf.gather(self._labels, entry),
            "name": file,
        }

    @classmethod
    def splits(
        cls,
        directory: str | Path | None = None,
        *,
        csv: str | Path | None = None,
        class_names: Sequence[str] | None = None,
        channels: int = 3,
        validation_share: float | None = None,
        split_seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
        max_bad_share: float = 0.01,
    ) -> dict[str, ImageFolderSource]:
        """All splits of a data set by name; the arguments are those of the class.

        If `directory` has a sub-folder train/ and any of test/ and validation/ (or val/, valid/,
        dev/), those are the splits "train", "test" and "validation", with the classes of train/
        (of which there must be one of the others then, if it has folders alone);
        a `validation_share` or `split_seed` then divides train/, if there is no validation/. If
        not, "train" and "validation" are parts of the whole, or "train" is all of it if
        `validation_share` is 0. The share is 0.1 and the seed 0 by default.
        """
        plans = _plan_splits(directory, csv, class_names, validation_share, split_seed)
        common: dict[str, Any] = {
            "channels": channels,
            "shard": shard,
            "max_bad_share": max_bad_share,
        }
        return {split: cls(**plan, **common) for split, plan in plans.items()}


def open_image_folder(
    split: str,
    directory: str | Path | None = None,
    *,
    csv: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    channels: int = 3,
    validation_share: float | None = None,
    split_seed: int | None = None,
    shard: tuple[int, int] = (0, 1),
    max_bad_share: float = 0.01,
) -> ImageFolderSource:
    """One of `ImageFolderSource.splits`; only the files of this split are looked at."""
    plans = _plan_splits(directory, csv, class_names, validation_share, split_seed)
    check_choice("split", split, plans, path=directory or csv)
    return ImageFolderSource(
        **plans[split], channels=channels, shard=shard, max_bad_share=max_bad_share
    )


def image_folder_splits(
    directory: str | Path | None = None,
    *,
    csv: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    validation_share: float | None = None,
    split_seed: int | None = None,
    **others: Any,
) -> tuple[str, ...]:
    """Names of the splits for these options of `open_image_folder`."""
    return tuple(_plan_splits(directory, csv, class_names, validation_share, split_seed))


def _plan_splits(
    directory: str | Path | None,
    csv: str | Path | None,
    class_names: Sequence[str] | None,
    validation_share: float | None,
    split_seed: int | None,
) -> dict[str, dict[str, Any]]:
    """Arguments of `ImageFolderSource` for each split."""
    whole: dict[str, Any] = {"directory": directory, "csv": csv, "class_names": class_names}
    plans = {}
    if directory is not None and csv is None:
        folders = _split_folders(Path(directory))
        if folders:
            names = class_names or list_class_names(folders["train"])
            plans = {s: {"directory": f, "class_names": names} for s, f in folders.items()}
            if validation_share is None and split_seed is None:
                return plans
            _check_undivided(folders)
            whole = plans["train"]
    share = VALIDATION_SHARE if validation_share is None else validation_share
    if share == 0:
        return {**plans, "train": whole}
    parts = {
        "validation_share": share,
        "split_seed": SPLIT_SEED if split_seed is None else split_seed,
    }
    return {**plans, **{subset: {**whole, **parts, "subset": subset} for subset in SUBSETS}}


def _split_folders(directory: Path) -> dict[str, Path]:
    """Folders of the splits, or nothing if `directory` is not divided into train and others."""
    found: dict[str, Path] = {}
    for folder in sorted(directory.iterdir()) if directory.is_dir() else []:
        split = _SPLIT_OF.get(folder.name.lower())
        if split is None or not folder.is_dir():
            continue
        if split in found:
            raise DataError(
                f"two folders for {split}",
                expected="one",
                received=f"{found[split].name} and {folder.name}",
                path=directory,
                suggestion="rename or move one of them",
            )
        found[split] = folder
    if set(found) == {"train"}:
        _check_holds_images(found["train"])
    if "train" not in found or len(found) < 2:
        return {}
    return {split: found[split] for split in SPLIT_FOLDERS if split in found}


def _check_holds_images(folder: Path) -> None:
    """Refuses to take a split's folder, with folders of classes in it, for a class."""
    inner = [path for path in folder.iterdir() if path.name[0] != "."]
    if len(inner) > 1 and all(path.is_dir() for path in inner):
        raise DataError(
            "a folder for training alone",
            expected=f"beside {folder.name} one for validation or test, with the same classes",
            received="none",
            path=folder.parent,
            suggestion=f"set directory to {folder}, of which a tenth is kept for validation",
        )


def _check_undivided(folders: dict[str, Path]) -> None:
    if "validation" in folders:
        raise DataError(
            "validation_share and split_seed have no effect",
            expected="none of them beside a folder for validation",
            received=f"the folder {folders['validation'].name}",
            path=folders["validation"].parent,
            suggestion="leave them out, or move the folder away",
        )


def _list(
    directory: str | Path | None, csv: str | Path | None, class_names: Sequence[str] | None
) -> Listing:
    folder = None if directory is None else Path(directory)
    if csv is not None:
        return list_csv(Path(csv), folder, class_names)
    if folder is None:
        raise DataError(
            "no images named",
            expected="directory or csv",
            received="neither",
            path="image_folder",
            suggestion="set directory to a folder with one sub-folder of images per class",
        )
    return list_folder(folder, class_names)


def _check_two_classes(listing: Listing) -> None:
    if len(listing.class_names) < 2:
        raise DataError(
            "only one class",
            expected="at least two classes",
            received=", ".join(map(repr, listing.class_names)),
            path=listing.origin,
            suggestion="directory is the folder that holds one sub-folder of images per class",
        )


def _check_share(validation_share: float, origin: Path) -> None:
    if not 0 < validation_share < 1:
        raise DataError(
            "impossible validation_share",
            expected="a share above 0 and below 1",
            received=str(validation_share),
            path=origin,
            suggestion="0.1 keeps a tenth of each class for validation",
        )


def _usable(listing: Listing, bad_records: BadRecords) -> tuple[list[Path], list[int]]:
    if len(listing.files) >= _MANY:
        print(f"Looking at the {len(listing.files):,} files of {listing.origin}.")
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        faults = list(pool.map(_fault, listing.files, listing.labels))
    files, labels = [], []
    for file, label, fault in zip(listing.files, listing.labels, faults, strict=True):
        if fault is None:
            files.append(file)
            labels.append(label)
        else:
            bad_records.add(str(file), fault)
    return files, labels


def _fault(file: Path, label: int) -> str | None:
    if label < 0:
        return "not in a class sub-folder"
    if not is_image_name(file):
        return f"unsupported extension {file.suffix!r}, expected one of {', '.join(EXTENSIONS)}"
    return find_fault(file)


def _check_no_class_lost(listing: Listing, labels: list[int]) -> None:
    lost = sorted(set(listing.labels) - set(labels) - {-1})
    if lost:
        raise DataError(
            "class without a usable image",
            expected="at least one",
            received=f"only bad files in class {listing.class_names[lost[0]]!r}",
            path=listing.origin,
            suggestion="repair its files or remove the class",
        )
