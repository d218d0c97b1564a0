"""Zeros around a feature map for a window that halves it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from effnetv2_tf import keras_compat


@keras_compat.register_serializable("effnetv2_tf")
class HalvingPad(keras_compat.Layer):
    """Pads with zeros as TensorFlow's "same" does for a window with stride 2.

    For pooling, where "same" itself leaves the padding out: the reference's NASNet pools over
    zeros. How many it takes depends on whether a side is even, also where the side is only
    known when the network runs.

    Args:
      window: side of the window, odd and at least 3.

    Input: (batch, height, width, channels); output: (batch, height + window - 2 or - 1, width
    + window - 2 or - 1, channels): the former for even sides.
    """

    def __init__(self, window: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(window, int) or window < 3 or window % 2 == 0:
            raise ValueError(
                f"HalvingPad: `window` must be an odd integer of at least 3. Received: {window!r}."
            )
        self.window = window

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        sizes = tf.shape(inputs)
        sides = [
            sizes[axis] if inputs.shape[axis] is None else inputs.shape[axis] for axis in (1, 2)
        ]
        after = self.window // 2
        rows, columns = ((after - 1 + side % 2, after) for side in sides)
        outputs = tf.pad(inputs, [(0, 0), rows, columns, (0, 0)])
        outputs.set_shape(self.compute_output_shape(inputs.shape))
        return outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *sides, channels = input_shape
        padded = (None if n is None else n + self.window - 2 + n % 2 for n in sides)
        return (batch, *padded, channels)

    def get_config(self) -> dict:
        return {**super().get_config(), "window": self.window}
