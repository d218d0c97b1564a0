"""Data sets by their name in TensorFlow Datasets, an optional extra."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorflow as tf

from effnetv2_tf.data.sources.bad_records import BadRecords
from effnetv2_tf.data.sources.base import DataError, Example, SourceInfo, check_choice
from effnetv2_tf.data.sources.records import RecordFile, RecordSource
from effnetv2_tf.errors import nearest


class TFDSSource(RecordSource):
    """A split of an image classification data set of TensorFlow Datasets.

    Images stay encoded (tfds.decode.SkipDecoding). The files are read as in `RecordSource`, not by
    `as_dataset`, whose order cannot be a function of an epoch number in the graph. An example
    without a label is handled as one of `TFRecordSource`.

    Args:
        name: name for tfds.builder, such as "cifar10" or "imagenet2012:5.1.0".
        split: name or slice of a split, such as "train" or "train[:90%]".
        data_dir: folder of prepared data sets; TFDS's default if None.
        download: whether to download and prepare the data set if it is not there.
        image_key, label_key: its features with the image and the class id.
        shuffle_buffer: records in the shuffle buffer, see `RecordSource`.
        shard: (index, count) of this worker, see `Source`.
        max_bad_share: largest accepted share of bad records.

    Raises:
        ImportError: if tensorflow-datasets is not installed.
        DataError: if the data set, the split or the features are not there, or it is stored in
            another format than TFRecord.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        data_dir: str | Path | None = None,
        *,
        download: bool = True,
        image_key: str = "image",
        label_key: str = "label",
        shuffle_buffer: int = 10_000,
        shard: tuple[int, int] = (0, 1),
        max_bad_share: float = 0.01,
    ) -> None:
        tfds = _import_tfds()
        builder = _open_builder(tfds, name, data_dir, download)
        features = builder.info.features
        _check_features(tfds, features, image_key, label_key, name)
        parts = _record_files(builder, split, name)
        num_examples = sum(part.take for part in parts)
        label = features[label_key]
        info = SourceInfo(
            name=f"{name}/{split}",
            num_examples=num_examples,
            num_classes=label.num_classes,
            class_names=tuple(label.names),
            channels=1 if features[image_key].shape[-1] == 1 else 3,
            encoded=True,
        )
        super().__init__(
            parts,
            info,
            shuffle_buffer=shuffle_buffer,
            bad_records=BadRecords(max_bad_share, num_examples),
            shard=shard,
        )
        self._features = features
        self._image_key, self._label_key = image_key, label_key
        self._decoders = {image_key: tfds.decode.SkipDecoding()}

    def parse(self, record: tf.Tensor, name: tf.Tensor) -> Example:
        example = self._features.deserialize_example(record, decoders=self._decoders)
        label = tf.cast(example[self._label_key], tf.int64)
        # Test splits whose labels are kept back have -1.
        usable = (label >= 0) & (label < self.info.num_classes)
        return {
            "image": tf.where(usable, example[self._image_key], ""),
            "label": label,
            "name": tf.where(usable, name, tf.strings.join([name, " (no label)"])),
        }


def tfds_splits(
    name: str, data_dir: str | Path | None = None, *, download: bool = True, **others: Any
) -> tuple[str, ...]:
    """Names of the data set's splits; they need its preparation."""
    builder = _open_builder(_import_tfds(), name, data_dir, download)
    return tuple(builder.info.splits)


def _import_tfds() -> ModuleType:
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ImportError(
            "source 'tfds' needs tensorflow-datasets, which cannot be imported "
            f"({error}): pip install 'effnetv2_tf[tfds]'"
        ) from error


def _open_builder(tfds: ModuleType, name: str, data_dir: str | Path | None, download: bool) -> Any:
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise DataError(
            "unknown data set",
            expected="a name that tfds.builder knows",
            received=repr(name),
            path="tfds",
            suggestion=nearest(name, tfds.list_builders()),
        ) from error
    if download:
        builder.download_and_prepare()
    return builder


def _check_features(
    tfds: ModuleType, features: Any, image_key: str, label_key: str, name: str
) -> None:
    kinds = ((image_key, tfds.features.Image), (label_key, tfds.features.ClassLabel))
    for key, kind in kinds:
        check_choice("feature", key, features.keys(), path=name)
        if not isinstance(features[key], kind):
            raise DataError(
                f"feature {key!r} does not fit",
                expected=kind.__name__,
                received=type(features[key]).__name__,
                path=name,
                suggestion="set image_key and label_key; the features are " + ", ".join(features),
            )


def _record_files(builder: Any, split: str, name: str) -> list[RecordFile]:
    if not builder.info.splits:
        raise DataError(
            "data set is not prepared",
            expected=f"prepared files in {builder.data_dir}",
            received="none",
            path=name,
            suggestion="set download=True, or data_dir to the folder of prepared data sets",
        )
    check_choice("split", split.partition("[")[0], builder.info.splits, path=name)
    file_format = builder.info.file_format
    if file_format is not None and file_format.value != "tfrecord":
        raise DataError(
            "unsupported file format",
            expected="tfrecord",
            received=file_format.value,
            path=name,
            suggestion="prepare it again with tfds build --file_format=tfrecord",
        )
    instructions = builder.info.splits[split].file_instructions
    return [RecordFile(str(i.filename), i.skip, i.take) for i in instructions]
