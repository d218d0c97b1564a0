"""Where images come from: one class per kind of source, and `open_source` to open one by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
from effnetv2_tf.data.sources.digits import DigitsSource
from effnetv2_tf.data.sources.fashion_mnist import FashionMnistSource
from effnetv2_tf.data.sources.image_folder import ImageFolderSource, open_image_folder
from effnetv2_tf.data.sources.option_types import check_types
from effnetv2_tf.data.sources.records import RecordSource
from effnetv2_tf.data.sources.tfds import TFDSSource
from effnetv2_tf.data.sources.tfrecord import TFRecordSource, read_class_names
from effnetv2_tf.data.sources.validity import is_valid_image

KINDS: dict[str, Callable[..., Source]] = {
    "digits": DigitsSource,
    "fashion_mnist": FashionMnistSource,
    "image_folder": open_image_folder,
    "tfrecord": TFRecordSource,
    "tfds": TFDSSource,
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
    check_choice("kind of source", kind, KINDS)
    factory = KINDS[kind]
    parameters = inspect.signature(factory).parameters
    known = [name for name in parameters if name != "split"]
    for name in options:
        check_choice("option", name, known, path=kind)
    check_types(kind, factory, options)
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in options:
            raise DataError(
                "missing option",
                expected=name,
                received=", ".join(options) or "no options",
                path=kind,
            )
    return factory(split=split, **options)


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
]
