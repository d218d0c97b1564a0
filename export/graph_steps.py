"""The steps of a deploy graph: plain TensorFlow operations on constant weights.

Each step is a frozen dataclass that maps (batch, height, width, channels) to the same with
other sizes, unless its docstring says otherwise. Weights are float32 NumPy arrays, so they
become constants of whatever graph a step is traced into: runtimes then lay them out once,
when the graph is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf.models.layers.activations import hard_silu

Step = Callable[[tf.Tensor], tf.Tensor]


def _silu(x: tf.Tensor) -> tf.Tensor:
    # tf.nn.silu carries a custom gradient, a function call that the converters do not want.
    return x * tf.sigmoid(x)


def _gelu(x: tf.Tensor) -> tf.Tensor:
    # tf.nn.gelu has 1 - erf as an operation, which ONNX does not know.
    return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))


_ACTIVATIONS: Mapping[str, Step] = {
    "gelu": _gelu,
    "hard_silu": hard_silu,
    "hard_swish": hard_silu,
    "linear": tf.identity,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "sigmoid": tf.sigmoid,
    "silu": _silu,
    "swish": _silu,  # the name in Keras 2
    "softmax": tf.nn.softmax,
}


def activate(x: tf.Tensor, name: str) -> tf.Tensor:
    """Applies a Keras activation, by name."""
    if name == "linear":
        return x
    return _ACTIVATIONS[name](x) if name in _ACTIVATIONS else keras.activations.get(name)(x)


@dataclass(frozen=True)
class Normalization:
    """(pixels - mean) / std in float32, for pixels of any real type.

    Attributes:
      mean: one number, or one for every channel, in units of pixels in [0, 255].
      std: likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        scale, offset = self.scale_and_offset()
        return tf.cast(x, tf.float32) * scale + offset

    def scale_and_offset(self) -> tuple[tf.Tensor, tf.Tensor]:
        """What pixels are multiplied with, and what is added."""
        offset = [-m / s for m, s in zip(self.mean, self.std, strict=True)]
        return tf.constant([1.0 / std for std in self.std]), tf.constant(offset)


@dataclass(frozen=True)
class Padding:
    """Zeros around an image.

    Attributes:
      amounts: (above, below), (left, right).
    """

    amounts: tuple[tuple[int, int], tuple[int, int]]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.pad(x, [(0, 0), *self.amounts, (0, 0)])


@dataclass(frozen=True, eq=False)
class Convolution:
    """A dense or group convolution, its bias and its activation.

    Attributes:
      kernel: (height, width, in / groups, out); groups follow from it.
      bias: (out,).
      strides: of rows and columns.
      padding: "SAME" or "VALID".
      activation: name of a Keras activation.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    activation: str = "linear"

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.conv2d(x, self.kernel, self.strides, self.padding)
        return activate(tf.nn.bias_add(x, self.bias), self.activation)


@dataclass(frozen=True, eq=False)
class DepthwiseConvolution:
    """A depthwise convolution; as `Convolution`, with a kernel (height, width, in, multiplier)."""

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    activation: str = "linear"

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        strides = (1, *self.strides, 1)
        x = tf.nn.depthwise_conv2d(x, self.kernel, strides, self.padding)
        return activate(tf.nn.bias_add(x, self.bias), self.activation)


@dataclass(frozen=True, eq=False)
class GroupNormalization:
    """Normalisation of each image by groups of channels, activation, scale and offset.

    Attributes:
      groups: number of groups, each with its own mean and (biased) variance over rows, columns
        and channels.
      epsilon: added to the variance.
      gamma: (channels,), factor of the normalised image.
      beta: (channels,), added to that.
      activation: name of a Keras activation.
      scale: (channels,), factor of the activation: 1 / standard deviation of a proxy. None for
        plain group normalisation.
      offset: (channels,), added to that; None likewise.
    """

    groups: int
    epsilon: float
    gamma: np.ndarray
    beta: np.ndarray
    activation: str = "linear"
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        centred = x - self._means(x)
        # Of tf.square LiteRT's converter makes an operation that does not run in 16 bits.
        inverse = tf.math.rsqrt(self._means(centred * centred) + self.epsilon)
        # The factors are multiplied first: that saves a pass over the image.
        z = activate(centred * (inverse * self.gamma) + self.beta, self.activation)
        return z if self.scale is None else z * self.scale + self.offset

    def _means(self, x: tf.Tensor) -> tf.Tensor:
        """(b, 1, 1, c); for one group (b, 1, 1, 1)."""
        if self.groups == 1:
            return tf.reduce_mean(x, axis=[1, 2, 3], keepdims=True)
        channels, size = len(self.gamma), len(self.gamma) // self.groups
        means = tf.reshape(tf.reduce_mean(x, axis=[1, 2]), [-1, self.groups, size])
        means = tf.reduce_mean(means, axis=2, keepdims=True)  # (b, groups, 1)
        # By broadcasting: not every runtime can tile where the batch may vary.
        means = means * tf.ones([1, 1, size])
        return tf.reshape(means, [-1, 1, 1, channels])


@dataclass(frozen=True)
class SqueezeExcitation:
    """Scales channels by a gate computed from their means by two 1x1 convolutions."""

    reduce: Convolution
    expand: Convolution

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        gate = tf.reduce_mean(x, axis=[1, 2], keepdims=True)  # (b, 1, 1, c)
        return x * self.expand(self.reduce(gate))


@dataclass(frozen=True)
class Block:
    """Steps in a row, with or without a connection that skips them."""

    branch: tuple[Step, ...]
    has_skip: bool

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        inputs = x
        for step in self.branch:
            x = step(x)
        return x + inputs if self.has_skip else x


@dataclass(frozen=True)
class GlobalPooling:
    """Mean or maximum over rows and columns: to (batch, channels)."""

    maximum: bool = False

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return (tf.reduce_max if self.maximum else tf.reduce_mean)(x, axis=[1, 2])


@dataclass(frozen=True, eq=False)
class Dense:
    """A dense layer and its activation: (batch, in) to (batch, out)."""

    kernel: np.ndarray
    bias: np.ndarray
    activation: str = "linear"

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return activate(tf.nn.bias_add(tf.matmul(x, self.kernel), self.bias), self.activation)


class KerasNetwork:
    """A whole Keras model, its variables frozen to constants: the step for foreign models.

    Args:
      model: from one float32 tensor of images to one tensor.
    """

    def __init__(self, model: Any) -> None:
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        shape = tuple(model.inputs[0].shape)
        function = tf.function(lambda x: model(x, training=False))
        traced = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
        self._frozen = convert_variables_to_constants_v2(traced)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nest.flatten(self._frozen(x))[0]
