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


def is_valid_image(encoded: tf.Tensor) -> tf.Tensor:
    """Whether `encoded` begins and ends as a JPEG, PNG, GIF or BMP file does.

    Args:
        encoded: scalar string tensor, the bytes of a file.

    Returns:
        Scalar bool tensor; False for empty bytes. Runs in the graph, raises nothing.
    """
    length = tf.strings.length(encoded)
    head = tf.io.decode_raw(tf.strings.substr(encoded, 0, HEAD_BYTES), tf.uint8)
    tail_start = tf.maximum(length - TAIL_BYTES, 0)
    tail = tf.io.decode_raw(tf.strings.substr(encoded, tail_start, TAIL_BYTES), tf.uint8)
    jpeg = _starts_with(head, JPEG_START) & _contains(tail, JPEG_END)
    png = _starts_with(head, PNG_START) & _contains(tail, PNG_END)
    gif_start = _starts_with(head, GIF_STARTS[0]) | _starts_with(head, GIF_STARTS[1])
    gif = gif_start & _ends_with_before_zeros(tail, GIF_END)
    bmp = _starts_with(head, BMP_START) & (_little_endian(head[2:6]) <= tf.cast(length, tf.int64))
    return jpeg | png | gif | bmp


def _starts_with(head: tf.Tensor, prefix: bytes) -> tf.Tensor:
    start = head[: len(prefix)]
    same_length = tf.equal(tf.size(start), len(prefix))
    padded = tf.pad(start, [[0, len(prefix) - tf.size(start)]])
    return same_length & tf.reduce_all(padded == tf.constant(list(prefix), tf.uint8))


def _contains(data: tf.Tensor, pattern: bytes) -> tf.Tensor:
    positions = tf.maximum(tf.size(data) - len(pattern) + 1, 0)
    found = tf.ones([positions], tf.bool)
    for offset, byte in enumerate(pattern):
        found &= data[offset : offset + positions] == byte
    return tf.reduce_any(found)


def _ends_with_before_zeros(data: tf.Tensor, last: bytes) -> tf.Tensor:
    used = tf.boolean_mask(data, data != 0)
    return tf.reduce_any(used[-1:] == last[0])


def _little_endian(data: tf.Tensor) -> tf.Tensor:
    place_values = tf.constant([1, 256, 65536, 16777216], tf.int64)[: tf.size(data)]
    return tf.reduce_sum(tf.cast(data, tf.int64) * place_values)


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
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        return f"broken image: {error}"
    return None
