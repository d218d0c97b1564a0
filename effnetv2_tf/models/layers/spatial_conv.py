"""Convolution over pixels."""

from __future__ import annotations

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels import operations


@keras_compat.register_serializable("effnetv2_tf")
class SpatialConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, which trains with the compiled operation of `kernels`.

    There is one for kernels of 3x3 with stride 1 and "same" padding, without bias, activation,
    groups or dilation, channels last, in float32; everything else is Keras's. Arguments and shapes
    are those of `keras.layers.Conv2D`.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        # Not at inference: whoever serves an exported network does not have the operation.
        if training and self._is_plain_3x3():
            compiled = operations.conv3x3_for(inputs.dtype)
            if compiled:
                return compiled(x=inputs, kernel=tf.convert_to_tensor(self.kernel))
        return super().call(inputs)

    def _is_plain_3x3(self) -> bool:
        geometry = (self.kernel_size, self.strides, self.dilation_rate, self.padding)
        return (
            geometry == ((3, 3), (1, 1), (1, 1), "same")
            and self.groups == 1
            and self.data_format == "channels_last"
            and not self.use_bias
            and self.activation in (None, keras.activations.linear)
        )
