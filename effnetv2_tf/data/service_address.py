"""The address of a tf.data service, for those who need not load TensorFlow to read a recipe."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"grpc://(?P<host>[^/:\s]+):(?P<port>\d{1,5})")


def check_address(address: str) -> tuple[str, int]:
    """Host and port of `grpc://host:port`.

    Raises:
      ValueError: if it is something else.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(f"expected grpc://host:port, received {address!r}")
    return match["host"], int(match["port"])
