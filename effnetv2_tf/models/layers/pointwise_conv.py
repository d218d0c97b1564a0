"""1x1 convolution computed as a matrix product."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers.activations import get_activation
from effnetv2_tf.models.layers.initializers import conv_initializer


@keras_compat.register_serializable("effnetv2_tf")
class PointwiseConv2D(keras_compat.Layer):
    """1x1 convolution with stride 1, the same function as `Conv2D(filters, 1)`.

    TensorFlow's gradients of 1x1 convolutions are slow on CPUs, those of matrix products
    are fast. The kernel has Conv2D's shape (1, 1, in, filters), so weights interchange.

    Args:
      filters: output channels.
      use_bias: whether to add a bias.
      activation: name of a Keras activation applied to the result; None for none.
      kernel_initializer: as in Keras; the reference's by default.

    Input: (batch, height, width, channels) or, of single pixels, (batch, channels); output:
    the same with `filters` channels.
    """

    def __init__(
        self,
        filters: int,
        use_bias: bool = False,
        activation: str | None = None,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(filters, int) or filters < 1:
            raise ValueError(
                f"PointwiseConv2D: `filters` must be a positive integer. Received: {filters!r}."
            )
        self.filters = filters
        self.use_bias = use_bias
        self.activation = activation
        self._activate = get_activation(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer or conv_initializer())

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(1, 1, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
        )
        self.bias = (
            self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
            if self.use_bias
            else None
        )
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        # Not at inference: whoever serves an exported network does not have the operation.
        compiled = operations.pointwise_conv_for(inputs.dtype) if training else None
        if compiled:
            kernel = tf.convert_to_tensor(self.kernel)
            return self._activate(self._add_bias(compiled(x=inputs, kernel=kernel)))
        rows = inputs if inputs.shape.rank == 2 else _as_rows(inputs)  # (b*h*w, in)
        outputs = tf.matmul(rows, _as_rows(tf.convert_to_tensor(self.kernel)))  # (b*h*w, filters)
        outputs = self._add_bias(outputs)
        if inputs.shape.rank != 2:
            outputs = _shaped_as(outputs, inputs)
        return self._activate(outputs)

    def _add_bias(self, outputs: tf.Tensor) -> tf.Tensor:
        if self.bias is None:
            return outputs
        return tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias, outputs.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "use_bias": self.use_bias,
            "activation": self.activation,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _as_rows(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[-1]])


def _shaped_as(rows: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    outputs = tf.reshape(rows, _replace_last(like, rows.shape[-1]))
    outputs.set_shape([*like.shape[:-1], rows.shape[-1]])
    return outputs


def _replace_last(inputs: tf.Tensor, size: int) -> Any:
    """The shape of `inputs` with another last dimension; static wherever that is known."""
    static = inputs.shape.as_list()[:-1]
    if static.count(None) <= 1:
        return [-1 if side is None else side for side in static] + [size]
    # One addition rather than a slice and a concatenation: five operations less in the graph.
    return tf.add(tf.shape(inputs), [*[0] * len(static), size - inputs.shape[-1]])
