"""Where images come from: one class per kind of source, and `open_source` to open one by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from effnetv2_tf.data.sources.arrays import ArraySource
from effnetv2_tf.data.sources.bad_records import BadRecords, TooManyBadRecords
from effnetv2_tf.data.sources.base import (
    DataError,
    IndexedSource,
    Source,
    SourceInfo,
    check_choice,
)
from effnetv2_tf.data.sources.digits import DigitsSource, digits_splits
from effnetv2_tf.data.sources.fashion_mnist import FashionMnistSource, fashion_mnist_splits
from effnetv2_tf.data.sources.image_folder import (
    ImageFolderSource,
    image_folder_splits,
    open_image_folder,
)
from effnetv2_tf.data.sources.option_types import check_types
from effnetv2_tf.data.sources.records import RecordSource
from effnetv2_tf.data.sources.tfds import TFDSSource, tfds_splits
from effnetv2_tf.data.sources.tfrecord import (
    TFRecordSource,
    read_class_names,
    tfrecord_splits,
)
from effnetv2_tf.data.sources.validity import is_valid_image

KINDS: dict[str, Callable[..., Source]] = {
    "digits": DigitsSource,
    "fashion_mnist": FashionMnistSource,
    "image_folder": open_image_folder,
    "tfrecord": TFRecordSource,
    "tfds": TFDSSource,
}
_SPLITS: dict[str, Callable[..., tuple[str, ...]]] = {
    "digits": digits_splits,
    "fashion_mnist": fashion_mnist_splits,
    "image_folder": image_folder_splits,
    "tfrecord": tfrecord_splits,
    "tfds": tfds_splits,
}


def open_source(kind: str, split: str, **options: Any) -> Source:
    """Opens a source by the name of its kind, as recipes do.

    Args:
        kind: one of `KINDS`.
        split: "train", "validation", "test" or what else the kind knows.
        **options: arguments of the kind: see `DigitsSource`, `FashionMnistSource`,
            `open_image_folder`, `TFRecordSource` and `TFDSSource`.

    Raises:
        DataError: on an unknown kind, an unknown or missing option, one of another type than the
            kind says, or what the kind raises.
    """
    _check_options(kind, options)
    return KINDS[kind](split=split, **options)


def split_names(kind: str, **options: Any) -> tuple[str, ...]:
    """The splits that a source has; no image is looked at.

    Args:
        kind: one of `KINDS`.
        **options: as for `open_source`.

    Raises:
        DataError: as `open_source`.
    """
    _check_options(kind, options)
    return _SPLITS[kind](**options)


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    check_choice("kind of source", kind, KINDS)
    parameters = inspect.signature(KINDS[kind]).parameters
    known = [name for name in parameters if name != "split"]
    for name in options:
        check_choice("option", name, known, path=kind)
    check_types(kind, KINDS[kind], options)
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in options:
            raise DataError(
                "missing option",
                expected=name,
                received=", ".join(options) or "no options",
                path=kind,
            )


__all__ = [
    "KINDS",
    "ArraySource",
    "BadRecords",
    "DataError",
    "DigitsSource",
    "FashionMnistSource",
    "ImageFolderSource",
    "IndexedSource",
    "RecordSource",
    "Source",
    "SourceInfo",
    "TFDSSource",
    "TFRecordSource",
    "TooManyBadRecords",
    "is_valid_image",
    "open_image_folder",
    "open_source",
    "read_class_names",
    "split_names",
]
