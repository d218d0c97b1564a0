"""Group normalisation; layer normalisation is the case of one group."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.activations import get_activation


@keras_compat.register_serializable("effnetv2_tf")
class GroupNorm(keras_compat.Layer):
    """Normalises each image over rows, columns and the channels of a group.

    act(gamma * (x - mean) / sqrt(variance + epsilon) + beta), with the biased variance (Wu &
    He, arXiv 1803.08494); with one group it is the layer normalisation of Ba et al., arXiv
    1607.06450, over rows, columns and channels. Statistics are float32 under any precision.
    An image's result does not depend on the batch it is in, in training either.

    Args:
      groups: number of groups; must divide the channels.
      epsilon: added to the variance.
      activation: name of a Keras activation applied to the result; None for none.
      center: whether there is a beta.

    Input and output: (batch, height, width, channels).
    """

    def __init__(
        self,
        groups: int = 1,
        epsilon: float = 1e-3,
        activation: str | None = None,
        center: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(groups, int) or groups < 1:
            raise ValueError(
                f"{type(self).__name__}: `groups` must be a positive integer. "
                f"Received: groups={groups!r}."
            )
        self.groups = groups
        self.epsilon = float(epsilon)
        self.activation = activation
        self._activate = get_activation(activation)
        self.center = center

    def build(self, input_shape: Any) -> None:
        channels = int(input_shape[-1])
        if channels % self.groups:
            divisors = [n for n in range(1, channels + 1) if channels % n == 0]
            raise ValueError(
                f"{type(self).__name__} {self.name!r}: `groups` must divide the channels. "
                f"Received: groups={self.groups}, {channels} channels. "
                f"Possible: {', '.join(map(str, divisors))}."
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        self.gamma = self.add_float32_weight("gamma", shape=(channels,), initializer="ones")
        self.beta = (
            self.add_float32_weight("beta", shape=(channels,), initializer="zeros")
            if self.center
            else None
        )
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        # `training` makes no difference; it is taken so that norms interchange.
        y = normalize_groups(inputs, self.groups, self.epsilon)  # (b, h, w, c)
        y = y * tf.convert_to_tensor(self.gamma)
        if self.beta is not None:
            y = y + tf.convert_to_tensor(self.beta)
        return tf.cast(self._activate(y), inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "groups": self.groups,
            "epsilon": self.epsilon,
            "activation": self.activation,
            "center": self.center,
        }


def normalize_groups(inputs: tf.Tensor, groups: int, epsilon: float) -> tf.Tensor:
    """(x - mean) / sqrt(variance + epsilon) over rows, columns and a group's channels.

    The gradient is written out: with the output at hand, which the next operation keeps
    anyway, it takes two means.

    Args:
      inputs: (batch, height, width, channels) of any real type.
      groups: number of groups, which divides the channels.
      epsilon: added to the biased variance.

    Returns:
      float32, of the same shape.
    """

    @tf.custom_gradient
    def normalize(x: tf.Tensor) -> Any:
        centred = x - _group_means(x, groups)
        variance = _group_means(centred * centred, groups)
        inverse = tf.math.rsqrt(variance + epsilon)
        y = centred * inverse

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            along_y = _group_means(dy * y, groups)
            return (dy - _group_means(dy, groups) - y * along_y) * inverse

        return y, gradient

    return normalize(tf.cast(inputs, tf.float32))


def _group_means(x: tf.Tensor, groups: int) -> tf.Tensor:
    """Each group's mean at the place of its channels: (b, 1, 1, c), or (b, 1, 1, 1) for one.

    Rows and columns first: their number may be unknown in the graph, that of channels is not.
    """
    means = tf.reduce_mean(x, axis=[1, 2], keepdims=True)  # (b, 1, 1, c)
    if groups == 1:
        return tf.reduce_mean(means, axis=3, keepdims=True)
    channels = x.shape[-1]
    means = tf.reshape(means, [-1, groups, channels // groups])
    means = tf.reduce_mean(means, axis=2, keepdims=True)  # (b, groups, 1)
    means = tf.tile(means, [1, 1, channels // groups])
    return tf.reshape(means, [-1, 1, 1, channels])
