"""The IDX file format of MNIST and its successors, plain or gzipped.

Big-endian: magic number 0x000008NN (unsigned bytes, NN dimensions), NN sizes of 4 bytes, the data.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from effnetv2_tf.data.sources.base import DataError

UNSIGNED_BYTES = 0x08


def read_idx(path: Path, num_dimensions: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes.

    Args:
        path: the file; a name that ends in .gz is decompressed.
        num_dimensions: 3 for images [N, H, W], 1 for labels [N].

    Returns:
        uint8 array with `num_dimensions` dimensions.

    Raises:
        DataError: if the magic number, the dimensions or the length of the file are wrong.
    """
    content = _read_bytes(path)
    magic = UNSIGNED_BYTES << 8 | num_dimensions
    header_bytes = 4 + 4 * num_dimensions
    if len(content) < header_bytes or struct.unpack(">I", content[:4])[0] != magic:
        raise DataError(
            "not the expected IDX file",
            expected=f"magic number {magic:#010x}",
            received=f"0x{content[:4].hex()}" if content else "an empty file",
            path=path,
            suggestion="check that images and labels are not swapped",
        )
    shape = struct.unpack(f">{num_dimensions}I", content[4:header_bytes])
    data = np.frombuffer(content, np.uint8, offset=header_bytes)
    if data.size != math.prod(shape):
        raise DataError(
            "truncated IDX file" if data.size < math.prod(shape) else "IDX file is too long",
            expected=f"{math.prod(shape)} bytes of data for shape {list(shape)}",
            received=str(data.size),
            path=path,
            suggestion="download or copy the file again",
        )
    return data.reshape(shape)


def _read_bytes(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            "unreadable gzip file",
            expected="a complete gzip file",
            received=f"{path.stat().st_size} bytes: {error}",
            path=path,
            suggestion="download or copy the file again",
        ) from error
