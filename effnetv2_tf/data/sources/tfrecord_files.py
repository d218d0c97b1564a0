"""Finding, counting and looking into TFRecord files of tf.train.Example."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from effnetv2_tf.data.sources.base import DataError
from effnetv2_tf.errors import nearest, operation_fault

SCAN_THREADS = 16
RECORD_HEADER_BYTES = 12  # length: uint64 little-endian, and its checksum: uint32
RECORD_FOOTER_BYTES = 4  # checksum of the data: uint32
_GZIP_START = b"\x1f\x8b"
RUN_OF_A_CLASS = 32  # records in a row that are not of one class by chance
RECORDS_TRIED = 10  # how many records may be unparsable before a file counts as not ours


@dataclass(frozen=True)
class FileScan:
    """What is in one file: complete records, and what is wrong after them, if anything."""

    path: str
    complete_records: int
    fault: str | None


def find_files(files: str | Sequence[str], split: str) -> list[str]:
    """Sorted paths of the TFRecord files of a split.

    Args:
        files: a pattern such as "/data/imagenet/{split}-*", where {split} is replaced; or a folder,
            of which files with names that begin with the split are taken; or a list of these.
            Anything that tf.io.gfile can list.
        split: name of the split; files of "validation" may also be called val or valid.

    Raises:
        DataError: if a pattern or folder matches nothing.
    """
    patterns = [files] if isinstance(files, str) else list(files)
    found: set[str] = set()
    for pattern in map(str, patterns):
        matches = next(filter(None, (_matches(pattern, name) for name in _spellings(split))), [])
        if not matches:
            tried = _pattern_of(pattern, split)
            raise DataError(
                "no TFRecord files",
                expected=f"files of split {split!r}",
                received=_what_is_beside(tried),
                path=tried,
                suggestion='files is a folder or a pattern such as "/data/imagenet/{split}-*"',
            )
        found.update(matches)
    return sorted(found)


def _spellings(split: str) -> tuple[str, ...]:
    """How files call a split, its own name first."""
    return (split, "val", "valid") if split == "validation" else (split,)


def _pattern_of(pattern: str, name: str) -> str:
    pattern = pattern.replace("{split}", name)
    if not tf.io.gfile.isdir(pattern):
        return pattern
    return f"{pattern.rstrip('/')}/{name}*"


def _matches(pattern: str, name: str) -> list[str]:
    paths = tf.io.gfile.glob(_pattern_of(pattern, name))
    return [path for path in paths if not tf.io.gfile.isdir(path)]


def scan_files(paths: Sequence[str]) -> list[FileScan]:
    """Counts the records of each file by their headers, without reading the images."""
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        return list(pool.map(_scan_file, paths))


def read_examples(paths: Sequence[str]) -> Iterator[tf.train.Example]:
    """The examples of the files in turn; unparsable records are passed over.

    Raises:
        DataError: where a file cannot be read on.
    """
    for path in paths:
        for record in _read_records(path):
            example = parse_example(record)
            if example is not None:
                yield example


def parse_example(record: bytes) -> tf.train.Example | None:
    """The record as a tf.train.Example, or None if it is something else."""
    try:
        return tf.train.Example.FromString(record)
    except DecodeError:
        return None


def check_keys(path: str, keys: Sequence[str]) -> None:
    """Raises `DataError` unless the first example can be read and has the features `keys`."""
    records = islice(_read_records(path), RECORDS_TRIED)
    example = next((e for e in map(parse_example, records) if e is not None), None)
    if example is None:
        raise DataError(
            "unknown records",
            expected="serialized tf.train.Example",
            received=f"something else in the first {RECORDS_TRIED} records",
            path=path,
        )
    present = sorted(example.features.feature)
    for key in keys:
        if key not in present:
            raise DataError(
                f"no feature {key!r}",
                expected="the features " + ", ".join(keys),
                received=", ".join(present) or "none",
                path=path,
                suggestion=nearest(key, present),
            )


def warn_if_sorted(paths: Sequence[str], label_key: str) -> None:
    """Warns if files look sorted by class: a shuffle buffer does not mix them.

    Three files are looked at, of each the labels that it begins with.
    """
    for path in dict.fromkeys((paths[-1], paths[len(paths) // 2], paths[0])):
        try:
            examples = list(islice(read_examples([path]), RUN_OF_A_CLASS))
        except DataError:
            return  # whoever reads on says so
        labels = [tuple(e.features.feature[label_key].int64_list.value) for e in examples]
        if len(labels) < RUN_OF_A_CLASS or len(set(labels)) > 1:
            return
    others = " (and likewise in other files)" if len(paths) > 1 else ""
    warnings.warn(
        f"{paths[0]}: the first {RUN_OF_A_CLASS} records are all of class "
        f"{', '.join(map(str, labels[0]))}{others}. If the records are sorted by class, write them "
        "anew in random order: training shuffles within a buffer and some files at a time.",
        UserWarning,
        stacklevel=2,
    )


def _read_records(path: str) -> Iterator[bytes]:
    """The records of a file, or a `DataError` where TensorFlow cannot read on."""
    try:
        yield from tf.data.TFRecordDataset(path).as_numpy_iterator()
    except tf.errors.OpError as error:
        raise DataError(
            "damaged file",
            expected="TFRecords whose lengths and checksums are right",
            received=operation_fault(error.message),
            path=path,
            suggestion="write or copy the file anew",
        ) from error


def _open_unbuffered(path: str) -> Any:
    """A file to read a few bytes of here and there.

    `GFile` and Python's buffers read so far ahead that they would read the images, too.
    """
    return open(path, "rb", buffering=0) if os.path.isfile(path) else tf.io.gfile.GFile(path, "rb")


def _scan_file(path: str) -> FileScan:
    length = tf.io.gfile.stat(path).length
    position = records = 0
    with _open_unbuffered(path) as file:
        while position < length:
            file.seek(position)
            header = file.read(RECORD_HEADER_BYTES)
            if len(header) < RECORD_HEADER_BYTES:
                break
            (data_bytes,) = struct.unpack("<Q", header[:8])
            end = position + RECORD_HEADER_BYTES + data_bytes + RECORD_FOOTER_BYTES
            if end > length:
                break
            position = end
            records += 1
        fault = None if position == length else _fault(file, records)
    return FileScan(path, records, fault)


def _fault(file: Any, records: int) -> str:
    """What is wrong with a file behind so many complete records."""
    if records:
        return f"truncated after record {records - 1}"
    file.seek(0)
    if file.read(len(_GZIP_START)) == _GZIP_START:
        return "compressed with gzip; unpack it"
    return "truncated, or not a TFRecord file"


def _what_is_beside(pattern: str) -> str:
    folder = pattern.rsplit("/", 1)[0] if "/" in pattern else "."
    if not tf.io.gfile.isdir(folder):
        return f"no folder {folder}"
    names = sorted(tf.io.gfile.listdir(folder))
    more = ", ..." if len(names) > 3 else ""
    return f"only {', '.join(names[:3])}{more}" if names else "an empty folder"
