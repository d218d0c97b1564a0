"""Sources that are streams of serialized examples in TFRecord files."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from effnetv2_tf.data.sources.bad_records import BadRecords
from effnetv2_tf.data.sources.base import (
    DataError,
    Example,
    Integer,
    Source,
    SourceInfo,
    epoch_permutation,
    seed_pair,
)

INTERLEAVED_FILES = 16  # files that are read at the same time when shuffling
ALL_RECORDS = -1


@dataclass(frozen=True)
class RecordFile:
    """A part of a TFRecord file: `take` records (-1 for all) after the first `skip`."""

    path: str
    skip: int = 0
    take: int = ALL_RECORDS


class RecordSource(Source):
    """A source that reads TFRecord files from beginning to end.

    A shuffled epoch takes the files in an order that depends on (seed, epoch), reads 16 at a time
    in turn, and passes their records through a shuffle buffer, also seeded by both. `start` and
    the shards are taken after that, from records that are not yet parsed: every worker reads all
    files, and leaves out what is before `start`.

    Args:
        files: what to read.
        info: what is known beforehand; `num_examples` is trusted.
        shuffle_buffer: records in the shuffle buffer. ImageNet's take 110 kB each.
        bad_records, shard: see `Source`.

    Raises:
        DataError: if `shuffle_buffer` is not positive.
    """

    def __init__(
        self,
        files: Sequence[RecordFile],
        info: SourceInfo,
        *,
        shuffle_buffer: int = 10_000,
        bad_records: BadRecords | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        if shuffle_buffer < 1:
            raise DataError(
                "impossible shuffle_buffer",
                expected="at least 1 record",
                received=str(shuffle_buffer),
                path=info.name,
            )
        super().__init__(info, bad_records=bad_records, shard=shard)
        self.shuffle_buffer = shuffle_buffer
        with tf.device("CPU:0"):
            self._paths = tf.constant([file.path for file in files])
            self._skips = tf.constant([file.skip for file in files], tf.int64)
            self._takes = tf.constant([file.take for file in files], tf.int64)

    @abc.abstractmethod
    def parse(self, record: tf.Tensor, name: tf.Tensor) -> Example:
        """Turns a serialized record into an example.

        Args:
            record: scalar string, the serialized example.
            name: scalar string, "<file>#<position in it>".
        """

    def epoch(
        self, epoch: Integer, *, seed: Integer, start: Integer = 0, shuffle: bool
    ) -> tf.data.Dataset:
        if shuffle:
            files = epoch_permutation(len(self._paths), seed, epoch)
            records = tf.data.Dataset.from_tensor_slices(files).interleave(
                self._read_file,
                cycle_length=INTERLEAVED_FILES,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            records = _shuffled(records, self.shuffle_buffer, seed, epoch)
        else:
            records = tf.data.Dataset.range(len(self._paths)).flat_map(self._read_file)
        shard_index, shard_count = self.shard
        return (
            records.shard(shard_count, shard_index)
            .skip(tf.cast(start, tf.int64))
            .map(self._parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        )

    def _read_file(self, file: tf.Tensor) -> tf.data.Dataset:
        """Dataset of (file, position in the file, serialized record)."""
        skip = self._skips[file]
        records = tf.data.TFRecordDataset(self._paths[file]).skip(skip).take(self._takes[file])
        return records.enumerate(start=skip).map(lambda position, record: (file, position, record))

    def _parse(self, file: tf.Tensor, position: tf.Tensor, record: tf.Tensor) -> Example:
        name = tf.strings.join([self._paths[file], "#", tf.strings.as_string(position)])
        return self.parse(record, name)


def _shuffled(
    records: tf.data.Dataset, shuffle_buffer: int, seed: Integer, epoch: Integer
) -> tf.data.Dataset:
    """`records.shuffle`, but seeded by (seed, epoch) alone.

    Dataset.shuffle mixes tf.random.set_seed's seed into its own; the op beneath it does not.
    """
    op_seeds = tf.random.stateless_uniform(
        [2], seed_pair(seed, epoch), minval=1, maxval=tf.int64.max, dtype=tf.int64
    )  # not 0, 0: that would mean a random seed
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=tf.constant(shuffle_buffer, tf.int64),
        seed=op_seeds[0],
        seed2=op_seeds[1],
        output_types=[spec.dtype for spec in records.element_spec],
        output_shapes=[spec.shape for spec in records.element_spec],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, records.element_spec)
