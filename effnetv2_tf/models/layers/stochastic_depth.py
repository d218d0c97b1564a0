"""Stochastic depth: dropping whole residual branches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.scheduled_rate import RandomDrop


@keras_compat.register_serializable("effnetv2_tf")
class StochasticDepth(RandomDrop):
    """Zeroes a residual branch per sample (Huang et al., arXiv 1603.09382).

    `rate` is the probability of *dropping* (1 - survival probability); see `RandomDrop`.
    Unlike dropout, a sample's branch is dropped or kept as a whole.

    Input and output: (batch, ...).
    """

    def noise_shape(self, inputs: tf.Tensor) -> Any:
        ones = [1] * (len(inputs.shape) - 1)
        if inputs.shape[0] is not None:
            return [inputs.shape[0], *ones]
        return tf.concat([tf.shape(inputs)[:1], ones], axis=0)
