"""Dropout whose rate can be scheduled."""

from __future__ import annotations

import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.scheduled_rate import RandomDrop


@keras_compat.register_serializable("effnetv2_tf")
class Dropout(RandomDrop):
    """Dropout as `keras.layers.Dropout`, but the rate may change without a new trace.

    Progressive learning moves it from stage to stage (EfficientNetV2, section 4.2).

    Input and output: any shape.
    """

    def noise_shape(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.shape(inputs)
