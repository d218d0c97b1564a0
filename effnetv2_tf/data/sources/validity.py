"""Cheap tests whether bytes are a complete image file, on disk and inside the TensorFlow graph.

They look at both ends of a file only. Damage in the middle shows when the image is decoded.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import tensorflow as tf
from PIL import Image

HEAD_BYTES = 8
TAIL_BYTES = 1024  # an end marker may be followed by padding or other trailing bytes up to here
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
GIF_STARTS, GIF_END = (b"GIF87a", b"GIF89a"), b"\x3b"
BMP_START = b"BM"  # then the length of the file: 4 bytes, little-endian; 0 in some files

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
    gif = _starts_with(encoded, GIF_STARTS[0]) | _starts_with(encoded, GIF_STARTS[1])
    return tf.case(
        [
            (_starts_with(encoded, JPEG_START), lambda: _ends_with(encoded, JPEG_END)),
            (_starts_with(encoded, PNG_START), lambda: _ends_with(encoded, PNG_END)),
            (gif, lambda: tf.reduce_any(_without_zeros(_tail(encoded))[-1:] == GIF_END[0])),
            (_starts_with(encoded, BMP_START), lambda: _has_declared_length(encoded)),
        ],
        default=lambda: tf.constant(False),
    )


def _starts_with(encoded: tf.Tensor, prefix: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(prefix)), prefix)


def _ends_with(encoded: tf.Tensor, marker: bytes) -> tf.Tensor:
    """Whether the last `TAIL_BYTES` contain the marker."""
    tail = _tail(encoded)
    positions = tf.maximum(tf.size(tail) - len(marker) + 1, 0)
    matches = [tail[i : i + positions] == byte for i, byte in enumerate(marker)]
    return tf.reduce_any(tf.reduce_all(matches, axis=0))


def _tail(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.maximum(tf.strings.length(encoded) - TAIL_BYTES, 0)
    return tf.io.decode_raw(tf.strings.substr(encoded, start, TAIL_BYTES), tf.uint8)


def _without_zeros(data: tf.Tensor) -> tf.Tensor:
    return tf.boolean_mask(data, data != 0)


def _has_declared_length(bmp: tf.Tensor) -> tf.Tensor:
    field = tf.io.decode_raw(tf.strings.substr(bmp, len(BMP_START), 4), tf.uint8)
    place_values = tf.constant([1, 256, 65536, 16777216], tf.int64)[: tf.size(field)]
    declared = tf.reduce_sum(tf.cast(field, tf.int64) * place_values)
    return declared <= tf.cast(tf.strings.length(bmp), tf.int64)


def find_fault(path: Path) -> str | None:
    """Says what is wrong with an image file, or None if it looks complete.

    The kind is told by the content, not by the name, as TensorFlow's decoders do. A JPEG costs two
    short reads; PNG chunks are checked against their CRC.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            length = file.seek(0, io.SEEK_END)
            file.seek(max(length - TAIL_BYTES, 0))
            tail = file.read()
    except OSError as error:
        return "missing file" if isinstance(error, FileNotFoundError) else f"unreadable: {error}"
    if not length:
        return "empty file"
    if head.startswith(JPEG_START):
        return None if JPEG_END in tail else "truncated JPEG, no end-of-image marker"
    if head.startswith(GIF_STARTS) and not tail.rstrip(b"\0").endswith(GIF_END):
        return "truncated GIF, no trailer"
    if head.startswith(BMP_START) and length < struct.unpack("<I", head[2:6].ljust(4, b"\0"))[0]:
        return "truncated BMP, shorter than its header says"
    if not head.startswith((PNG_START, BMP_START, *GIF_STARTS)):
        return "not an image: no JPEG, PNG, GIF or BMP signature"
    return _pillow_fault(path)


def _pillow_fault(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            image.verify()
    except PILLOW_ERRORS as error:
        return f"broken image: {error}"
    return None
