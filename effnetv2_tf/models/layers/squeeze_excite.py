"""Squeeze-and-excitation."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers.pointwise_conv import PointwiseConv2D


@keras_compat.register_serializable("effnetv2_tf")
class SqueezeExcite(keras_compat.Layer):
    """Scales each channel by a gate computed from the channels' means.

    Hu et al., arXiv 1709.01507; as in EfficientNet the squeezed width follows the *block's*
    input channels, hence an absolute number here.

    Args:
      filters: channels of the input.
      squeezed_filters: width between the two 1x1 convolutions, both with bias.
      activation: between them.

    In training with SiLU all of it is the compiled operation of `kernels`, where there is one.

    Input and output: (batch, height, width, channels).
    """

    def __init__(
        self, filters: int, squeezed_filters: int, activation: str = "silu", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.squeezed_filters = squeezed_filters
        self.activation = activation
        common = {"use_bias": True, "dtype": self.dtype_policy}
        self.reduce = PointwiseConv2D(
            squeezed_filters, activation=activation, name="reduce", **common
        )
        self.expand = PointwiseConv2D(filters, activation="sigmoid", name="expand", **common)

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != 4 or input_shape[-1] not in (None, self.filters):
            raise ValueError(
                f"SqueezeExcite: expected images (batch, height, width, {self.filters}). Received: "
                f"shape {tuple(input_shape)}."
            )
        keras_compat.build_within(self.reduce, (None, self.filters))
        keras_compat.build_within(self.expand, (None, self.squeezed_filters))
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        # Not at inference: whoever serves an exported network does not have the operation.
        if training and (compiled := operations.squeeze_excite_for(self.activation, inputs.dtype)):
            return compiled(x=inputs, **self._tensors()).y
        gate, x = _means_beside(inputs)  # (b, c), (b, h, w, c)
        gate = self.reduce(gate)  # (b, squeezed)
        gate = self.expand(gate)  # (b, c)
        return x * tf.reshape(gate, [-1, 1, 1, self.filters])  # (b, h, w, c)

    def _tensors(self) -> dict[str, tf.Tensor]:
        """The weights as arguments of the compiled operation."""
        return {
            f"{layer.name}_{name}": tf.convert_to_tensor(getattr(layer, name))
            for layer in (self.reduce, self.expand)
            for name in ("kernel", "bias")
        }

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "squeezed_filters": self.squeezed_filters,
            "activation": self.activation,
        }


@tf.custom_gradient
def _means_beside(x: tf.Tensor) -> Any:
    """The channels' means (b, c), and `x` itself.

    The two gradients are added here, in one pass; TensorFlow would spread the means' over
    the image, divide that, and add it to the other, in three.
    """
    means = tf.reduce_mean(x, axis=[1, 2])

    def gradient(d_means: tf.Tensor, dx: tf.Tensor) -> tf.Tensor:
        pixels = tf.size(x, tf.int64) // tf.maximum(tf.size(d_means, tf.int64), 1)
        pixels = tf.cast(pixels, d_means.dtype)
        return dx + tf.reshape(d_means / pixels, [-1, 1, 1, x.shape[-1]])

    return (means, tf.identity(x)), gradient
