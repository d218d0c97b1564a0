"""Cheap tests whether bytes are a complete image file, on disk and inside the TensorFlow graph.

They look at both ends of a file only, and on disk also at the headers of a JPEG and the CRCs of a
PNG. Where the end is of another kind, as in phones' photographs with a film behind the image, a
JPEG or PNG file is looked through. Other damage in the middle shows when the image is decoded.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import tensorflow as tf
from PIL import Image

from effnetv2_tf.data.sources.bmp import BMP_START, HEADER_BYTES, bmp_fault, is_readable_bmp

HEAD_BYTES = 8
TAIL_BYTES = 1024  # where most files have their end marker, also behind padding
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers SOF0 .. SOF15 of a JPEG
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers TEM, RST0 .. RST7, SOI
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
GIF_STARTS, GIF_END = (b"GIF87a", b"GIF89a"), b"\x3b"

PILLOW_ERRORS = (  # all that Image.open and verify were seen to raise
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


def is_valid_image(encoded: tf.Tensor) -> tf.Tensor:
    """Whether `encoded` begins and ends as a JPEG, PNG, GIF or BMP file does.

    Args:
        encoded: scalar string tensor, the bytes of a file.

    Returns:
        Scalar bool tensor; False for empty bytes. Runs in the graph, raises nothing.
    """
    # Most files are JPEGs that end with their marker, and each operation for each image counts.
    last = tf.maximum(tf.strings.length(encoded) - len(JPEG_END), 0)
    ends_with_marker = tf.equal(tf.strings.substr(encoded, last, len(JPEG_END)), JPEG_END)
    return tf.cond(
        _starts_with(encoded, JPEG_START) & ends_with_marker,
        lambda: tf.constant(True),
        lambda: _is_valid_at_length(encoded),
    )


def _is_valid_at_length(encoded: tf.Tensor) -> tf.Tensor:
    gif = _starts_with(encoded, GIF_STARTS[0]) | _starts_with(encoded, GIF_STARTS[1])
    return tf.case(
        [
            (
                _starts_with(encoded, JPEG_START),
                lambda: _ends_with(encoded, JPEG_END, lambda: _from_first_scan(encoded)),
            ),
            (
                _starts_with(encoded, PNG_START),
                lambda: _ends_with(encoded, PNG_END, lambda: _bytes(encoded)),
            ),
            (gif, lambda: tf.reduce_any(_without_zeros(_tail(encoded))[-1:] == GIF_END[0])),
            (_starts_with(encoded, BMP_START), lambda: is_readable_bmp(encoded)),
        ],
        default=lambda: tf.constant(False),
    )


def _starts_with(encoded: tf.Tensor, prefix: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(prefix)), prefix)


def _ends_with(encoded: tf.Tensor, marker: bytes, elsewhere: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Whether the last `TAIL_BYTES` contain the marker, or else the bytes from `elsewhere`."""
    return tf.cond(
        _has_marker(_tail(encoded), marker),
        lambda: tf.constant(True),
        lambda: _has_marker(elsewhere(), marker),
    )


def _from_first_scan(jpeg: tf.Tensor) -> tf.Tensor:
    """A JPEG's bytes from its compressed pixels on.

    Its headers are left out: a thumbnail in them has an end of its own.
    """
    data = tf.cast(_bytes(jpeg), tf.int32)
    size = tf.size(data)
    padded = tf.pad(data, [[0, 4]])  # so that a segment's marker and length can always be read

    def is_header(place: tf.Tensor) -> tf.Tensor:
        return (padded[place] == 0xFF) & (padded[place + 1] != START_OF_SCAN)

    def after_segment(place: tf.Tensor) -> tuple[tf.Tensor]:
        return (tf.minimum(place + 2 + 256 * padded[place + 2] + padded[place + 3], size),)

    (start,) = tf.while_loop(is_header, after_segment, (tf.constant(2),))
    return data[start:]


def _has_marker(data: tf.Tensor, marker: bytes) -> tf.Tensor:
    """Whether bytes contain the marker."""
    positions = tf.maximum(tf.size(data) - len(marker) + 1, 0)
    matches = [data[i : i + positions] == byte for i, byte in enumerate(marker)]
    return tf.reduce_any(tf.reduce_all(matches, axis=0))


def _tail(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.maximum(tf.strings.length(encoded) - TAIL_BYTES, 0)
    return _bytes(tf.strings.substr(encoded, start, TAIL_BYTES))


def _bytes(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_raw(encoded, tf.uint8)


def _without_zeros(data: tf.Tensor) -> tf.Tensor:
    return tf.boolean_mask(data, data != 0)


def find_fault(path: Path) -> str | None:
    """Says what is wrong with an image file, or None if it looks complete.

    The kind is told by the content, not by the name, as TensorFlow's decoders do. A JPEG costs a
    few short reads; PNG chunks are checked against their CRC.
    """
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
            head = header[:HEAD_BYTES]
            length = file.seek(0, io.SEEK_END)
            file.seek(max(length - TAIL_BYTES, 0))
            tail = file.read()
            if head.startswith(JPEG_START):
                return _jpeg_fault(file, tail)
    except FileNotFoundError:
        return "missing file"
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        return f"unreadable: {error}"
    if not length:
        return "empty file"
    if head.startswith(GIF_STARTS) and not tail.rstrip(b"\0").endswith(GIF_END):
        return "truncated GIF, no trailer"
    if head.startswith(BMP_START):
        return bmp_fault(header, length) or _pillow_fault(path)
    if not head.startswith((PNG_START, *GIF_STARTS)):
        return "not an image: no JPEG, PNG, GIF or BMP signature"
    return _pillow_fault(path)


def _jpeg_fault(file: BinaryIO, tail: bytes) -> str | None:
    if JPEG_END not in tail and not _ends_after_scan(file):
        return "truncated JPEG: no end-of-image marker"
    is_frame = any(marker in FRAME_HEADERS for marker in _header_markers(file))
    return None if is_frame else "broken image: it cannot be decoded"


def _ends_after_scan(jpeg: BinaryIO) -> bool:
    """Whether an end-of-image marker comes behind the headers, which may hold a thumbnail's."""
    return START_OF_SCAN in _header_markers(jpeg) and JPEG_END in jpeg.read()


def _header_markers(jpeg: BinaryIO) -> Iterator[int]:
    """The markers of a JPEG's segments up to that of its first scan or its end.

    As in libjpeg, bytes between segments are passed over.
    """
    jpeg.seek(len(JPEG_START) - 1)
    while (marker := _next_marker(jpeg)) is not None:
        yield marker
        if marker in (END_OF_IMAGE, START_OF_SCAN):
            return
        if marker not in WITHOUT_LENGTH:
            length = int.from_bytes(jpeg.read(2), "big")  # of the segment, these two bytes with it
            jpeg.seek(max(length - 2, 0), io.SEEK_CUR)


def _next_marker(jpeg: BinaryIO) -> int | None:
    """Reads past the next marker: its byte after any number of 0xFF, no zero."""
    while byte := jpeg.read(1):
        filled = byte == b"\xff"
        while byte == b"\xff":
            byte = jpeg.read(1)
        if filled and byte not in (b"", b"\0"):
            return byte[0]
    return None


def _pillow_fault(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            image.verify()
    except PILLOW_ERRORS as error:
        return f"broken image: {error}"
    return None
