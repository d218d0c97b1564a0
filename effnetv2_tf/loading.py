"""Loading saved models; importing this module makes the package's classes known to Keras."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from effnetv2_tf.errors import UsageError
from effnetv2_tf.files import no_file
from effnetv2_tf.models import input_range, layers  # noqa: F401 - registers their classes
from effnetv2_tf.training import learning_rates, optimizers  # noqa: F401 - likewise


def load_model(
    path: str | Path,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> keras.Model:
    """Loads a `.keras` file with this package's networks in it, such as a run's `model.keras`.

    The same as `keras.models.load_model`, which knows the layers only once this package has
    been imported after Keras, or one of its names has been used. A file that Keras 3 has
    written does not load with Keras 2, and one of a compiled model from Keras 2 loads with
    Keras 3 without its optimizer alone (`compile=False`); `load_weights` takes either.

    Args:
      path: of a `.keras` or `.h5` file.
      custom_objects: what else is in it, by name.
      compile: whether the model is compiled as it was.
      safe_mode: whether code in the file is refused.

    Raises:
      ValueError: if there is no such file, or it is no Keras model.
    """
    return keras.models.load_model(
        path, custom_objects=custom_objects, compile=compile, safe_mode=safe_mode
    )


def open_keras_file(path: Path, flag: str, advice: str = "") -> keras.Model:
    """The model, not compiled, in a `.keras` file that a program's user has named.

    Args:
      path: of the file.
      flag: by which it was named, for messages.
      advice: what to do about a file with code in it, which is refused.

    Raises:
      UsageError: if the file is missing, damaged, or has classes that are not registered.
    """
    if not path.is_file():
        raise UsageError(f"{flag}: expected a .keras file, {no_file(path)}")
    try:
        return load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        advice = advice if "safe_mode" in str(error) else ""
        raise UsageError(f"{flag}: {path} cannot be loaded: {error}{advice}") from error
