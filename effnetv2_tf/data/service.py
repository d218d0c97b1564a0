"""A tf.data service: other machines make the training batches.

What holds for the order of the data, with `n` workers of the service:

* `n` = 1: the batches are the same and come in the same order as without the service.
* `n` > 1: the batches are the same and each comes once, but those that are made at the same
  time (or the epochs, of sources that are read from beginning to end) overtake one another.
* If a worker of the service dies, the batches it had been dealt are lost, and the stage ends
  with as many batches of a second pass.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from effnetv2_tf.data.decoding import grey_pixel, is_decodable
from effnetv2_tf.data.encoded import decode_pixels
from effnetv2_tf.data.service_address import check_address
from effnetv2_tf.data.sources import BadRecords, DataError

CONNECT_SECONDS = 10.0


def check_reachable(address: str) -> None:
    """Raises a DataError at once if nothing listens; TensorFlow would try for an hour."""
    try:
        socket.create_connection(check_address(address), CONNECT_SECONDS).close()
    except OSError as error:
        raise DataError(
            "tf.data service cannot be reached",
            expected="a dispatcher that listens",
            received=str(error),
            path=address,
            suggestion="start one with python -m effnetv2_tf.data_service --port=...",
        ) from error


def distribute(batches: tf.data.Dataset, address: str, bad_records: BadRecords) -> tf.data.Dataset:
    """The same batches, made by the workers of a tf.data service.

    What the dataset begins with (a `tf.data.Dataset.range`) is dealt out among the workers.

    Args:
      batches: of what the network takes, or of (names of bad records, that).
      address: of the dispatcher, `grpc://host:port`.
      bad_records: where the named records are counted, on this machine.
    """
    remote = batches.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC, service=address
        )
    )
    spec = batches.element_spec
    if not isinstance(spec[1], tuple):
        return remote

    def add(names: np.ndarray) -> np.bool_:
        for name in names:
            bad_records.add_image(name.decode(errors="replace"))
        bad_records.check()
        return np.bool_(True)

    def count(names: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        counted = tf.cond(
            tf.size(names) > 0,
            lambda: tf.numpy_function(add, [names], tf.bool, stateful=True),
            lambda: tf.constant(True),
        )
        with tf.control_dependencies([counted]):
            return tuple(tf.identity(tensor) for tensor in batch)

    return remote.map(count)


def decode_uncounted(
    encoded: tf.Tensor,
    name: tf.Tensor,
    channels: int,
    bad_records: BadRecords,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`decode_image` in TensorFlow's operations alone, as other machines need it.

    Args:
      encoded: scalar string, the file's bytes.
      name: scalar string, the record's.
      channels: 1 or 3.
      bad_records: which knows the images that are refused; none is counted.
      decode: from bytes to uint8 (height, width, channels); `decode_pixels` by default.

    Returns:
      `(image, valid)`: uint8 (height, width, channels), one grey pixel if not valid; bool.
    """
    valid = is_decodable(encoded, name, bad_records)
    encoded = tf.where(valid, encoded, grey_pixel(channels))
    return decode(encoded) if decode else decode_pixels(encoded, channels), valid
