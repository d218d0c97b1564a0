"""Loading saved models; importing this module makes the package's classes known to Keras."""

from __future__ import annotations

from pathlib import Path

import keras

from effnetv2_tf.models import input_range, layers  # noqa: F401 - registers their classes


def load_model(path: str | Path) -> keras.Model:
    """Loads a `.keras` file of this package's networks, such as a run's `model.keras`.

    The same as `keras.models.load_model`, which knows the layers only once this package has
    been imported after Keras, or one of its names has been used.

    Raises:
      ValueError: if there is no such file, or it is no Keras model.
    """
    return keras.models.load_model(path)
