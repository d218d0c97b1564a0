"""TFRecord files with ImageNet's usual keys, single-label or multi-label as ImageNet-21k."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from effnetv2_tf.data.sources.bad_records import BadRecords
from effnetv2_tf.data.sources.base import DataError, Example, Integer, SourceInfo
from effnetv2_tf.data.sources.records import RecordFile, RecordSource
from effnetv2_tf.data.sources.tfrecord_files import (
    check_keys,
    find_files,
    read_examples,
    scan_files,
    warn_if_sorted,
)

IMAGE_KEY = "image/encoded"
LABEL_KEY = "image/class/label"
TEXT_KEY = "image/class/text"
USUAL_SPLITS = ("train", "validation", "test")
NO_LABEL = -1
NOT_AN_EXAMPLE = "not a tf.train.Example"
LONGEST_VARINT = 10  # bytes


class TFRecordSource(RecordSource):
    """tf.train.Example records with image/encoded and image/class/label.

    How bad data is handled:

    * A file that ends in the middle of a record is found when records are counted; it is noted in
      `bad_records` and read up to its last complete record. With `num_examples` given nothing is
      counted, and reading such a file raises TensorFlow's DataLossError, as a wrong checksum does.
    * A record that is not framed as a tf.train.Example, has no image, not exactly one label (for
      single-label data), or a label outside 0 .. num_classes - 1 keeps its place in the epoch, so
      that the position in the data stays a function of the step. It is yielded with an empty
      image, for which `is_valid_image` is False, label -1 (or none), and the reason in its name.
      Whoever decodes images must test them and report the bad ones by name.
    * Records of the split "train" that look sorted by class raise a UserWarning.
    * A feature of another type (a label stored as text) is wrong in all records: parsing raises.

    Args:
        files: pattern, folder or list of these, see `find_files`.
        split: name of the split, for patterns with {split} and for folders.
        num_classes: number of classes after `label_offset` is added.
        label_offset: added to stored labels; -1 for the usual records that count from 1.
        multi_label: whether a record has any number of labels; then "label" is a vector.
        class_names: one name per class; by default the ids as text. See `read_class_names`.
        channels: 1 (grayscale) or 3 (RGB): what the images are to be decoded to.
        num_examples: number of records in the files if known, which saves counting them. If there
            are fewer, reading an epoch to its end raises TensorFlow's FailedPreconditionError.
        shuffle_buffer: records in the shuffle buffer, see `RecordSource`.
        shard: (index, count) of this worker, see `Source`.
        max_bad_share: largest accepted share of bad records.

    Raises:
        DataError: if no file matches, or the first records lack the keys above or are damaged.
        TooManyBadRecords: if more than `max_bad_share` of what was counted is bad.
    """

    def __init__(
        self,
        files: str | Sequence[str],
        *,
        num_classes: int,
        split: str = "train",
        label_offset: int = -1,
        multi_label: bool = False,
        class_names: Sequence[str] | None = None,
        channels: int = 3,
        num_examples: int | None = None,
        shuffle_buffer: int = 10_000,
        shard: tuple[int, int] = (0, 1),
        max_bad_share: float = 0.01,
    ) -> None:
        if num_examples is not None and num_examples < 1:
            raise DataError(
                "impossible num_examples",
                expected="the number of records in the files, or none to have them counted",
                received=str(num_examples),
                path=files,
            )
        paths = find_files(files, split)
        self._is_counted = num_examples is None
        bad_records = BadRecords(max_bad_share)
        if num_examples is None:
            parts, num_examples = _count(paths, bad_records)
        else:
            parts = [RecordFile(path) for path in paths]
        bad_records.total_examples = num_examples + bad_records.count
        bad_records.check()
        check_keys(parts[0].path, (IMAGE_KEY, LABEL_KEY))
        if not multi_label and split == "train":
            warn_if_sorted([part.path for part in parts], LABEL_KEY)
        info = SourceInfo(
            name=f"tfrecord/{split}",
            num_examples=num_examples,
            num_classes=num_classes,
            class_names=tuple(class_names or map(str, range(num_classes))),
            channels=channels,
            encoded=True,
            multi_label=multi_label,
        )
        super().__init__(
            parts, info, shuffle_buffer=shuffle_buffer, bad_records=bad_records, shard=shard
        )
        self.label_offset = label_offset
        self.own_files = frozenset(paths)

    def epoch(
        self, epoch: Integer, *, seed: Integer, start: Integer = 0, shuffle: bool
    ) -> tf.data.Dataset:
        examples = super().epoch(epoch, seed=seed, start=start, shuffle=shuffle)
        if self._is_counted:
            return examples
        # Else a number that is too large would end epochs early, and nobody would know.
        left = self.shard_examples - tf.cast(start, tf.int64)
        return examples.take(left).apply(tf.data.experimental.assert_cardinality(left))

    def parse(self, record: tf.Tensor, name: tf.Tensor) -> Example:
        framed = is_framed_example(record)
        features = tf.io.parse_single_example(
            tf.where(framed, record, ""),  # an empty string is an Example without features
            {
                IMAGE_KEY: tf.io.FixedLenFeature([], tf.string, default_value=""),
                LABEL_KEY: tf.io.VarLenFeature(tf.int64),
            },
        )
        labels = features[LABEL_KEY].values + self.label_offset  # [L]
        fault = tf.where(framed, self._find_fault(features[IMAGE_KEY], labels), NOT_AN_EXAMPLE)
        usable = tf.equal(fault, "")
        if self.info.multi_label:
            label = labels[: tf.where(usable, tf.size(labels), 0)]
        else:
            label = tf.where(usable, tf.concat([labels, [NO_LABEL]], 0)[0], NO_LABEL)
        return {
            "image": tf.where(usable, features[IMAGE_KEY], ""),
            "label": label,
            "name": tf.where(usable, name, tf.strings.join([name, " (", fault, ")"])),
        }

    def _find_fault(self, image: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """What is wrong with a parsed record, as a scalar string; empty if nothing is."""
        num_classes = self.info.num_classes
        outside = tf.reduce_any((labels < 0) | (labels >= num_classes))
        fault = tf.where(outside, f"label outside 0 .. {num_classes - 1}", "")
        if not self.info.multi_label:
            fault = tf.where(tf.size(labels) == 1, fault, "not exactly one label")
        return tf.where(tf.equal(image, ""), "no image", fault)


def tfrecord_splits(files: str | Sequence[str], **others: Any) -> tuple[str, ...]:
    """Names of the usual splits that have files of their own."""
    found: dict[str, list[str]] = {}
    for split in USUAL_SPLITS:
        with contextlib.suppress(DataError):  # no files: no such split
            paths = find_files(files, split)
            if paths not in found.values():  # a pattern without {split} has the same for all
                found[split] = paths
    return tuple(found)


def is_framed_example(record: tf.Tensor) -> tf.Tensor:
    """Whether a scalar string has the outer frame of a serialized tf.train.Example.

    That is one field, number 1, with a length (a varint: 7 bits a byte, lowest first) that fits
    the string. It tells other data and cut-off records apart, in the graph and without raising.
    """
    head = tf.strings.substr(record, 0, 1 + LONGEST_VARINT)
    head = tf.pad(tf.io.decode_raw(head, tf.uint8), [[0, 1 + LONGEST_VARINT]])
    varint = tf.cast(head[1 : 1 + LONGEST_VARINT], tf.int64)
    has_next = tf.cast(varint >= 128, tf.int64)
    used = tf.math.cumprod(has_next, exclusive=True)  # 1 for the bytes of the varint, then 0
    place_values = tf.constant([128**i for i in range(LONGEST_VARINT - 1)] + [0], tf.int64)
    content_bytes = tf.reduce_sum(used * (varint % 128) * place_values)
    total_bytes = 1 + tf.reduce_sum(used) + content_bytes
    is_field_1 = head[0] == 0x0A
    return is_field_1 & (total_bytes == tf.cast(tf.strings.length(record), tf.int64))


def read_class_names(
    files: str | Sequence[str], *, num_classes: int, split: str = "train", label_offset: int = -1
) -> tuple[str, ...]:
    """Class names from image/class/text, for `class_names` of a single-label `TFRecordSource`.

    Reads records until every class was met, or all of them. Where classes have the same text, as
    ImageNet's two of "crane", their ids stand behind it: "crane (134)".

    Raises:
        DataError: if no file matches, or some class has no text.
    """
    names: dict[int, str] = {}
    for example in read_examples(find_files(files, split)):
        feature = example.features.feature
        labels, texts = feature[LABEL_KEY].int64_list.value, feature[TEXT_KEY].bytes_list.value
        if len(labels) == len(texts) == 1:
            names.setdefault(labels[0] + label_offset, texts[0].decode("utf-8", "replace"))
        if all(i in names for i in range(num_classes)):
            return _told_apart([names[i] for i in range(num_classes)])
    missing = next(i for i in range(num_classes) if i not in names)
    raise DataError(
        "class without a name",
        expected=f"{TEXT_KEY} for each of {num_classes} classes",
        received=f"none for class {missing}",
        path=files,
        suggestion="give class_names, and check num_classes and label_offset",
    )


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    times = Counter(names)
    return tuple(name if times[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))


def _count(paths: Sequence[str], bad_records: BadRecords) -> tuple[list[RecordFile], int]:
    """The readable parts of the files and their number of records; notes cut-off files."""
    parts, total = [], 0
    scans = scan_files(paths)
    fault = scans[0].fault
    for scan in scans:
        if scan.fault:
            bad_records.add(f"{scan.path}#{scan.complete_records}", scan.fault)
        if scan.complete_records:
            parts.append(RecordFile(scan.path, take=scan.complete_records))
            total += scan.complete_records
    if not parts:
        raise DataError(
            "no complete record",
            expected="TFRecord files",
            received=f"{len(paths)} files, the first {fault or 'empty'}",
            path=paths[0],
        )
    return parts, total
