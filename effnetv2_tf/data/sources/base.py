"""What a source of images is: an ordered, shuffled, sharded and resumable stream of examples.

A source says where images come from. It knows nothing of image sizes, augmentation or batches.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from effnetv2_tf.data.sources.bad_records import BadRecords
from effnetv2_tf.errors import nearest

_LABELS_AT_ONCE = 4096
Integer: TypeAlias = int | tf.Tensor  # tensor: int64 scalar
Example: TypeAlias = dict[str, tf.Tensor]  # "image", "label", "name"


class DataError(ValueError):
    """Data that cannot be used as asked; the message is one line.

    Args:
        problem: what is wrong, without the particulars.
        expected: what would have been right.
        received: what was found.
        path: the file, folder or argument at fault.
        suggestion: what the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        expected: str,
        received: str,
        path: object = None,
        suggestion: str | None = None,
    ) -> None:
        self.problem = problem
        self.expected = expected
        self.received = received
        self.path = None if path is None else str(path)
        self.suggestion = suggestion
        where = "" if path is None else f"{path}: "
        advice = "" if suggestion is None else f"; {suggestion}"
        super().__init__(f"{where}{problem}: expected {expected}, received {received}{advice}")


def check_choice(argument: str, value: str, choices: Iterable[str], path: object = None) -> None:
    """Raises `DataError` unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise DataError(
            f"unknown {argument}",
            expected="one of " + ", ".join(choices),
            received=repr(value),
            path=path,
            suggestion=nearest(value, choices),
        )


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before any image is read.

    Attributes:
        name: short name for logs.
        num_examples: examples in an epoch, over all shards together.
        num_classes: number of classes; labels are 0 .. num_classes - 1.
        class_names: one name per class id.
        channels: 1 (grayscale) or 3 (RGB): what images have, or are to be decoded to.
        encoded: True if "image" is a scalar string of file bytes, False if it is uint8 [H, W, C].
        multi_label: True if "label" is an int64 vector of class ids, False if a scalar.
    """

    name: str
    num_examples: int
    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    encoded: bool
    multi_label: bool = False

    def __post_init__(self) -> None:
        if self.num_examples < 1:
            raise DataError(
                "no examples",
                expected="at least 1",
                received=str(self.num_examples),
                path=self.name,
            )
        if self.num_classes < 2:
            raise DataError(
                "too few classes",
                expected="at least 2",
                received=f"{self.num_classes} ({', '.join(self.class_names)})",
                path=self.name,
                suggestion="a classifier needs examples of two classes or more",
            )
        if len(self.class_names) != self.num_classes:
            raise DataError(
                "class_names does not fit num_classes",
                expected=f"{self.num_classes} names",
                received=str(len(self.class_names)),
                path=self.name,
            )
        if len(set(self.class_names)) != self.num_classes:
            repeated = next(n for n in self.class_names if self.class_names.count(n) > 1)
            raise DataError(
                "class_names repeats a name",
                expected="different names",
                received=f"{repeated!r} more than once",
                path=self.name,
            )
        if self.channels not in (1, 3):
            raise DataError(
                "unsupported channels",
                expected="1 (grayscale) or 3 (RGB)",
                received=str(self.channels),
                path=self.name,
            )


def epoch_permutation(length: int, seed: Integer, epoch: Integer) -> tf.Tensor:
    """The order of one epoch: an int64 permutation of range(length), a function of (seed, epoch).

    A stateless shuffle once an epoch, not tf.random.experimental.index_shuffle: measured with
    TensorFlow 2.15 and 2.21, the latter knows 256 different orders in all for 10 or 100 examples,
    and consecutive epochs of 60,000 examples correlate at 0.89. This costs 0.03 s for 1.28 million
    examples, on any `start`.
    """
    with tf.device("CPU:0"):
        return tf.random.experimental.stateless_shuffle(
            tf.range(length, dtype=tf.int64), seed_pair(seed, epoch)
        )


def seed_pair(seed: Integer, epoch: Integer) -> tf.Tensor:
    """(seed, epoch) as the int64 [2] tensor that stateless random ops take."""
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])


class Source(abc.ABC):
    """Where images come from.

    Args:
        info: what is known beforehand.
        bad_records: collector for examples that cannot be used; a new one by default.
        shard: (index, count): this worker reads every `count`-th example of the shuffled order,
            beginning with the `index`-th. The shards of all workers together hold every example
            once. The (seed, epoch) order is the same on all workers.

    Raises:
        DataError: if `shard` is not 0 <= index < count, or has no examples.
    """

    info: SourceInfo
    bad_records: BadRecords
    shard: tuple[int, int]
    # Height and width, where all images have the same and `fetch` takes many entries as it takes
    # one. A pipeline may then crop a whole batch at once.
    image_size: tuple[int, int] | None = None
    # Files that belong to this split alone, where a source knows: another one must not read them.
    own_files: frozenset[str] = frozenset()

    def __init__(
        self,
        info: SourceInfo,
        *,
        bad_records: BadRecords | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.info = info
        self.bad_records = bad_records or BadRecords(total_examples=info.num_examples)
        self.shard = _checked_shard(shard, info)

    @property
    def shard_examples(self) -> int:
        """Examples that this worker reads in an epoch: its share of `info.num_examples`."""
        index, count = self.shard
        return len(range(index, self.info.num_examples, count))

    @abc.abstractmethod
    def epoch(
        self, epoch: Integer, *, seed: Integer, start: Integer = 0, shuffle: bool
    ) -> tf.data.Dataset:
        """The examples of one epoch.

        The order is a pure function of (seed, epoch); tf.random.set_seed does not change it.

        Args:
            epoch: number of the epoch, from 0. An int or a scalar int64 tensor, so that this can
                be called inside `Dataset.range(epochs).flat_map(...)`; so can `seed` and `start`.
            seed: seed of the order.
            start: how many examples of this epoch (of this shard) to leave out at its beginning.
            shuffle: whether to shuffle, or to keep the stored order in every epoch.

        Returns:
            A dataset of dicts, each example once: "image": uint8 [H, W, C] in [0, 255], or a
            scalar string of encoded bytes if `info.encoded`; "label": int64 scalar, or int64
            vector if `info.multi_label`; "name": scalar string that names the record in reports.
        """

    def order(
        self, epoch: Integer, *, seed: Integer, start: Integer = 0, shuffle: bool
    ) -> tf.data.Dataset:
        """What `fetch` makes the examples of `epoch`, with the same arguments, from.

        A pipeline that fetches where it decodes saves the way through one more dataset.
        """
        return self.epoch(epoch, seed=seed, start=start, shuffle=shuffle)

    def fetch(self, entry: Any) -> Example:
        """The example of an entry of `order`: by default the entry itself.

        Pipelines do not have AutoGraph convert it: branches on tensors need `tf.cond`.
        """
        return entry

    @tf.autograph.experimental.do_not_convert
    def labels(self) -> np.ndarray:
        """The labels in stored order, int64 (examples of this shard,), of single-label data.

        Files of images are not read for them.
        """
        order = self.order(0, seed=0, start=0, shuffle=False)
        # In one function, of which TensorFlow leaves out what the label does not need.
        labels = order.map(lambda entry: self.fetch(entry)["label"], tf.data.AUTOTUNE)
        return np.concatenate(list(labels.batch(_LABELS_AT_ONCE).as_numpy_iterator()))


def _checked_shard(shard: tuple[int, int], info: SourceInfo) -> tuple[int, int]:
    index, count = shard
    if not 0 <= index < count:
        raise DataError(
            "impossible shard",
            expected="(index, count) with 0 <= index < count",
            received=str(tuple(shard)),
            path=info.name,
        )
    if index >= info.num_examples:
        raise DataError(
            "empty shard",
            expected=f"at most {info.num_examples} shards for as many examples",
            received=str(tuple(shard)),
            path=info.name,
        )
    return index, count


class IndexedSource(Source):
    """A source with random access: any order costs the same and so does any `start`."""

    @abc.abstractmethod
    def fetch(self, entry: tf.Tensor) -> Example:
        """The example at index `entry` (int64 scalar) in the stored order, as `epoch` yields it."""

    def epoch(
        self, epoch: Integer, *, seed: Integer, start: Integer = 0, shuffle: bool
    ) -> tf.data.Dataset:
        indices = self.order(epoch, seed=seed, start=start, shuffle=shuffle)
        return indices.map(self.fetch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def order(
        self, epoch: Integer, *, seed: Integer, start: Integer = 0, shuffle: bool
    ) -> tf.data.Dataset:
        """The indices, int64 scalars, of the examples that `epoch` with these arguments yields."""
        shard_index, shard_count = self.shard
        total = self.info.num_examples
        first = shard_index + shard_count * tf.cast(start, tf.int64)
        if shuffle:
            order = epoch_permutation(total, seed, epoch)
            return tf.data.Dataset.from_tensor_slices(order[first::shard_count])
        return tf.data.Dataset.range(first, total, shard_count)
