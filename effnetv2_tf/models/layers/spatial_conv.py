"""Convolutions over pixels, which train with compiled operations."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels import operations


@keras_compat.register_serializable("effnetv2_tf")
class SpatialConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, which trains with the compiled operation of `kernels`.

    There is one for kernels of 3x3 with stride 1 or 2 and "same" padding, without bias, activation,
    groups or dilation, channels last, in float32; everything else is Keras's. Arguments and shapes
    are those of `keras.layers.Conv2D`.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        # Not at inference: whoever serves an exported network does not have the operation.
        if training and self._is_plain_3x3():
            compiled = operations.conv3x3_for(inputs.dtype)
            if compiled:
                kernel = tf.convert_to_tensor(self.kernel)
                return compiled(x=inputs, kernel=kernel, stride=self.strides[0])
        return super().call(inputs)

    def _is_plain_3x3(self) -> bool:
        return self.kernel_size == (3, 3) and self.groups == 1 and _is_plain(self)


@keras_compat.register_serializable("effnetv2_tf")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D`, which trains with the compiled operation of `kernels`.

    There is one for kernels of 3x3 and 5x5 with stride 1 or 2 and "same" padding, without bias,
    activation, dilation or several results for a channel, channels last, in float32; everything
    else is Keras's. Arguments and shapes are those of `keras.layers.DepthwiseConv2D`.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training and self._has_operation():  # see SpatialConv2D
            compiled = operations.depthwise_conv_for(inputs.dtype)
            if compiled:
                kernel = tf.convert_to_tensor(self.kernel)
                return compiled(x=inputs, kernel=kernel, stride=self.strides[0])
        return super().call(inputs)

    def _has_operation(self) -> bool:
        return (
            self.kernel_size in ((3, 3), (5, 5)) and self.depth_multiplier == 1 and _is_plain(self)
        )


def _is_plain(layer: Any) -> bool:
    """Whether a convolution is nothing else, and its padding what the operations make."""
    return (
        layer.strides in ((1, 1), (2, 2))
        and layer.padding == "same"
        and layer.dilation_rate == (1, 1)
        and layer.data_format == "channels_last"
        and not layer.use_bias
        and layer.activation in (None, keras.activations.linear)
    )
