"""Depthwise convolution."""

from __future__ import annotations

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels import operations


@keras_compat.register_serializable("effnetv2_tf")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D`, which trains with the compiled operation of `kernels`.

    There is one for kernels of 3x3 and 5x5 with stride 1 or 2 and "same" padding, without bias,
    activation, dilation or several results for a channel, channels last, in float32; everything
    else is Keras's. Arguments and shapes are those of `keras.layers.DepthwiseConv2D`.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        # Not at inference: whoever serves an exported network does not have the operation.
        if training and self._has_operation():
            compiled = operations.depthwise_conv_for(inputs.dtype)
            if compiled:
                kernel = tf.convert_to_tensor(self.kernel)
                return compiled(x=inputs, kernel=kernel, stride=self.strides[0])
        return super().call(inputs)

    def _has_operation(self) -> bool:
        return (
            tuple(self.kernel_size) in ((3, 3), (5, 5))
            and tuple(self.strides) in ((1, 1), (2, 2))
            and tuple(self.dilation_rate) == (1, 1)
            and self.padding == "same"
            and self.depth_multiplier == 1
            and self.data_format == "channels_last"
            and not self.use_bias
            and self.activation in (None, keras.activations.linear)
        )
