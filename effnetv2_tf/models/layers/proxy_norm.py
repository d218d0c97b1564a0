"""Proxy-normalised activation over group or layer normalisation."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.group_norm import GroupNorm, normalize_groups

PROXY_SAMPLES = 200
PROXY_EPSILON = 0.03
# The two parameters that weight decay acts on, see `training.coupled_l2.CoupledL2`.
PROXY_GAMMA, PROXY_BETA = "proxy_gamma", "proxy_beta"


@keras_compat.register_serializable("effnetv2_tf")
class ProxyNorm(GroupNorm):
    """Group normalisation, activation, and the normalisation of that by a Gaussian proxy.

    Labatie et al., arXiv 2106.03743: normalising single images keeps a network's
    expressivity but lets channels drift to nearly constant values; batch norm prevents that
    with the batch's statistics, this layer with those of a proxy for the distribution of a
    channel. With y the normalised inputs, without affine:

      z = act(gamma y + beta)
      p_i = act(gamma Y_i + beta), Y_i = (1 + proxy_gamma) q_i + proxy_beta
      output = (z - mean_i p_i) / sqrt(variance_i p_i + 0.03)

    where q_i are 200 quantiles of the standard Gaussian and the variance is biased. All four
    parameters belong to a channel and get gradients through the proxy too. gamma starts at
    1, the others at 0. Everything is float32 under any precision.

    Args:
      activation: name of a Keras activation.
      groups: number of groups of the normalisation; 1 is layer normalisation.
      epsilon: added to the variance of the images, not the proxy's.

    Input and output: (batch, height, width, channels).
    """

    def __init__(
        self, activation: str, groups: int = 1, epsilon: float = 1e-3, **kwargs: Any
    ) -> None:
        if activation in (None, "linear"):
            raise ValueError(
                "ProxyNorm: expected an activation, for without one its proxy is the "
                f"normalisation itself. Received: activation={activation!r}. Use GroupNorm."
            )
        super().__init__(groups=groups, epsilon=epsilon, activation=activation, **kwargs)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        shape = (int(input_shape[-1]),)
        self.proxy_gamma = self.add_float32_weight(PROXY_GAMMA, shape=shape, initializer="zeros")
        self.proxy_beta = self.add_float32_weight(PROXY_BETA, shape=shape, initializer="zeros")

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        y = normalize_groups(inputs, self.groups, self.epsilon)  # (b, h, w, c)
        z = self._activate(y * gamma + beta)
        scale, offset = self.proxy_scale_and_offset()
        return tf.cast(z * scale + offset, inputs.dtype)

    def proxy_scale_and_offset(self) -> tuple[tf.Tensor, tf.Tensor]:
        """`(scale, offset)`, each (channels,): output = z * scale + offset."""
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        quantiles = tf.constant(gaussian_quantiles(), tf.float32)[:, None]  # (samples, 1)
        samples = (1.0 + tf.convert_to_tensor(self.proxy_gamma)) * quantiles
        samples = samples + tf.convert_to_tensor(self.proxy_beta)  # (samples, c)
        proxies = self._activate(samples * gamma + beta)
        mean = tf.reduce_mean(proxies, axis=0)  # (c,)
        variance = tf.reduce_mean(tf.square(proxies - mean), axis=0)
        scale = tf.math.rsqrt(variance + PROXY_EPSILON)
        return scale, -mean * scale

    def get_config(self) -> dict:
        config = super().get_config()
        del config["center"]  # always
        return config


def gaussian_quantiles(count: int = PROXY_SAMPLES) -> np.ndarray:
    """The quantiles at (i + 1/2) / count, i = 0 ... count - 1, of the standard Gaussian."""
    gaussian = NormalDist()
    return np.array([gaussian.inv_cdf((i + 0.5) / count) for i in range(count)])
