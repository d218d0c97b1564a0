"""Layers one after the other, as one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat


class LayerChain(keras_compat.Layer):
    """Each layer takes what the one before gives; none of them is the identity.

    A part of other layers, which rebuild it from their own configuration.

    Args:
      layers: in order; each has a name of its own.

    Input and output: as the first and the last layer's.
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chain = list(layers)

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape)
        for layer in self.chain:
            keras_compat.build_within(layer, shape)
            shape = tuple(layer.compute_output_shape(shape))
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = inputs
        for layer in self.chain:
            x = layer(x)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape = tuple(input_shape)
        for layer in self.chain:
            shape = tuple(layer.compute_output_shape(shape))
        return shape
