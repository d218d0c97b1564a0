"""Which BMP files TensorFlow's decoder reads rightly.

It takes 24 and 32 bits a pixel as colours, and 8 as grey levels: of a file with a palette of other
colours it returns the numbers of the colours, without a word. So it does with colours in another
order than blue, green and red.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

BMP_START = b"BM"  # then the length of the file: 4 bytes, little-endian; 0 in some files
HEADER_BYTES = 14 + 124 + 1024  # of the file, the longest of the image, and a palette

# Where in the file: 4, 2, 4 and 4 bytes, and masks of 4 bytes for red, green and blue.
_INFO_LENGTH, _BITS, _COMPRESSION, _COLORS, _MASKS = 14, 28, 30, 46, 54
_UNCOMPRESSED, _MASKED = 0, 3
_USUAL_MASKS = (0xFF0000, 0xFF00, 0xFF)
_INFO = 14 + 40  # the shortest header that has these
_COLOR_BITS = (24, 32)


def bmp_fault(header: bytes, length: int) -> str | None:
    """Says what is wrong with a file, or None.

    Args:
      header: its first `HEADER_BYTES`.
      length: of the whole file.
    """
    if len(header) < _INFO or length < _number(header, len(BMP_START), 4):
        return "truncated BMP, shorter than its header says"
    bits, compression = _number(header, _BITS, 2), _number(header, _COMPRESSION, 4)
    masks = tuple(_number(header, _MASKS + 4 * i, 4) for i in range(len(_USUAL_MASKS)))
    if compression != _UNCOMPRESSED and (compression, masks) != (_MASKED, _USUAL_MASKS):
        kind = "an unusual order of colours" if compression == _MASKED else "compressed pixels"
        return f"BMP with {kind}, which TensorFlow does not read: save it as PNG"
    if bits in _COLOR_BITS or (bits == 8 and _is_grey(_palette(header))):
        return None
    kind = "colours of a palette" if bits <= 8 else f"{bits} bits a pixel"
    return f"BMP with {kind}, which TensorFlow does not read: save it as PNG"


def is_readable_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Whether `bmp_fault` finds nothing; in the graph, for a scalar string of a whole file."""
    start = tf.strings.substr(encoded, 0, HEADER_BYTES)
    data = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)
    data = tf.pad(data, [[0, HEADER_BYTES - tf.size(data)]])

    def number(place: int, count: int) -> tf.Tensor:
        return tf.reduce_sum(data[place : place + count] * [256**i for i in range(count)])

    length = tf.cast(tf.strings.length(encoded), tf.int64)
    is_whole = (length >= _INFO) & (number(len(BMP_START), 4) <= length)
    bits, colors = number(_BITS, 2), number(_COLORS, 4)
    first = tf.minimum(_INFO_LENGTH + number(_INFO_LENGTH, 4), HEADER_BYTES - 1024)
    palette = tf.reshape(data[first : first + 1024], [256, 4])
    levels = tf.range(256, dtype=tf.int64)[:, tf.newaxis]
    unused = levels >= tf.where(colors == 0, tf.constant(256, tf.int64), colors)
    is_grey = tf.reduce_all((palette[:, :3] == levels) | unused)
    is_color = tf.reduce_any(bits == tf.constant(_COLOR_BITS, tf.int64))
    compression = number(_COMPRESSION, 4)
    masks = [number(_MASKS + 4 * i, 4) == mask for i, mask in enumerate(_USUAL_MASKS)]
    is_plain = (compression == _UNCOMPRESSED) | (
        (compression == _MASKED) & tf.reduce_all(tf.stack(masks))
    )
    return is_whole & is_plain & (is_color | ((bits == 8) & is_grey))


def _number(data: bytes, place: int, count: int) -> int:
    return int.from_bytes(data[place : place + count], "little")


def _palette(header: bytes) -> np.ndarray:
    """uint8 (colours, 4): blue, green, red and nothing of each."""
    first = _INFO_LENGTH + _number(header, _INFO_LENGTH, 4)
    colors = _number(header, _COLORS, 4) or 256
    return np.frombuffer(header[first : first + 4 * min(colors, 256)], np.uint8).reshape(-1, 4)


def _is_grey(palette: np.ndarray) -> bool:
    """Whether each colour is the grey level of its number."""
    return len(palette) > 0 and bool((palette[:, :3] == np.arange(len(palette))[:, None]).all())
