"""Padding of strided convolutions other than TensorFlow's."""

from __future__ import annotations

from typing import Any

import keras


def symmetric_padding(
    kernel_size: int, stride: int, padding: str, dtype: Any, name: str
) -> keras.layers.ZeroPadding2D | None:
    """The layer that pads before a strided convolution as PyTorch's networks do.

    `kernel_size // 2` zeros on all four sides. TensorFlow's "same" puts fewer to the top and
    left where a side is even, so weights trained one way are off by a pixel the other way.
    Without a stride the two agree.

    Returns:
      The layer, or None where the convolution's own "same" padding is right.

    Raises:
      ValueError: for another `padding` than `"same"` or `"symmetric"`.
    """
    if padding not in ("same", "symmetric"):
        raise ValueError(f"`padding` must be 'same' or 'symmetric'. Received: {padding!r}.")
    if padding == "same" or stride == 1:
        return None
    return keras.layers.ZeroPadding2D(kernel_size // 2, dtype=dtype, name=name)
