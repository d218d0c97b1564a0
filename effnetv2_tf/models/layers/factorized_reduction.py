"""Halving a feature map without convolving over space, and without losing pixels' columns."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.batch_norm import BatchNorm
from effnetv2_tf.models.layers.pointwise_conv import PointwiseConv2D


@keras_compat.register_serializable("effnetv2_tf")
class FactorizedReduction(keras_compat.Layer):
    """ReLU; 1x1 convolutions of the pixels at even and at odd places; batch norm.

    NASNet's way to bring an earlier feature map to half its size (arXiv 1707.07012, appendix
    A.4): every second pixel, and those one row and one column further, each give half of the
    channels. Where a side is odd, the further ones end in a row or column of zeros.

    Args:
      filters: output channels, at least 2; the even places get the smaller half.
      batch_norm_momentum: share of the old moving statistics kept at each step.
      batch_norm_epsilon: added to the variance.
      synchronized: whether replicas share batch statistics.

    Input: (batch, height, width, channels); output: (batch, ceil(height / 2),
    ceil(width / 2), filters).
    """

    def __init__(
        self,
        filters: int,
        batch_norm_momentum: float = 0.9997,
        batch_norm_epsilon: float = 1e-3,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(filters, int) or filters < 2:
            raise ValueError(
                "FactorizedReduction: `filters` must be an integer of at least 2. Received: "
                f"{filters!r}."
            )
        self.filters = filters
        self.batch_norm_momentum = batch_norm_momentum
        self.batch_norm_epsilon = batch_norm_epsilon
        self.synchronized = synchronized
        policy = self.dtype_policy
        self.even = PointwiseConv2D(filters // 2, dtype=policy, name="even")
        self.odd = PointwiseConv2D(filters - filters // 2, dtype=policy, name="odd")
        self.norm = BatchNorm(
            batch_norm_momentum,
            batch_norm_epsilon,
            synchronized=synchronized,
            dtype=policy,
            name="norm",
        )

    def build(self, input_shape: Any) -> None:
        for layer in (self.even, self.odd):
            keras_compat.build_within(layer, tuple(input_shape))
        keras_compat.build_within(self.norm, self.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        x = tf.nn.relu(inputs)
        shifted = tf.pad(x[:, 1:, 1:, :], [(0, 0), (0, 1), (0, 1), (0, 0)])
        even = self.even(x[:, ::2, ::2, :])  # (b, ceil(h / 2), ceil(w / 2), filters / 2)
        odd = self.odd(shifted[:, ::2, ::2, :])
        return self.norm(tf.concat([even, odd], axis=-1), training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        sides = (None if side is None else -(-side // 2) for side in input_shape[1:3])
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "batch_norm_momentum": self.batch_norm_momentum,
            "batch_norm_epsilon": self.batch_norm_epsilon,
            "synchronized": self.synchronized,
        }
