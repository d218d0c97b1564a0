"""TFLite (LiteRT) files: float32, float16, dynamic-range, int8 and 16x8, built-in ops only."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_tf.errors import TrainingFailure, UsageError, suggestion
from effnetv2_tf.export.deploy_graph import INPUT_NAME
from effnetv2_tf.export.files import tensorflow_errors_as_os_errors, write_bytes
from effnetv2_tf.export.loading import Exportable
from effnetv2_tf.export.tflite_metadata import add_metadata

FLOAT32, FLOAT16, DYNAMIC, INT8, INT16X8 = "float32", "float16", "dynamic", "int8", "int16x8"
PRECISIONS = (FLOAT32, FLOAT16, DYNAMIC, INT8, INT16X8)
CALIBRATED = (INT8, INT16X8)
MINIMUM_CALIBRATION_IMAGES = 32


def export_tflite(
    exportable: Exportable,
    path: str | Path,
    precision: str = FLOAT32,
    *,
    representative: np.ndarray | None = None,
    resizable: bool = True,
    image_size: int | None = None,
    preprocessing: bool = True,
) -> Path:
    """Writes one .tflite file with labels and normalisation as metadata.

    The input is float32, for int8 uint8: pixels in [0, 255] as they are. Its default shape is
    one image of the evaluation size; `resizable` files take any batch and image size through
    `resize_tensor_input`.

    Args:
      exportable: what to export.
      path: of the file.
      precision: one of `PRECISIONS`.
      representative: for int8 and 16x8: uint8 (count, size, size, channels), prepared images
        like those that the network will meet.
      resizable: whether the input may be given another shape.
      image_size: side of the default shape in pixels; None for the evaluation size.
      preprocessing: whether the file normalises pixels itself.

    Returns:
      The path.

    Raises:
      UsageError: for an unknown precision or too few representative images.
      TrainingFailure: if the converter refuses the network.
      OSError: if the file cannot be written.
    """
    _check(precision, representative, preprocessing)
    graph = exportable.graph if preprocessing else exportable.graph.without_normalization()
    size = image_size or exportable.preparation.image_size
    content = _convert(graph.function(tf.float32, 1, size), precision, representative)
    content = add_metadata(
        content, exportable, image_size=size, resizable=resizable, preprocessing=preprocessing
    )
    return write_bytes(Path(path), content)


def _check(precision: str, representative: np.ndarray | None, preprocessing: bool) -> None:
    if precision not in PRECISIONS:
        hint = suggestion(precision, PRECISIONS) or f"; known: {', '.join(PRECISIONS)}"
        raise UsageError(f"--tflite: unknown precision {precision!r}{hint}")
    if precision not in CALIBRATED:
        return
    count = 0 if representative is None else len(representative)
    if count < MINIMUM_CALIBRATION_IMAGES:
        raise UsageError(
            f"--tflite={precision}: expected at least {MINIMUM_CALIBRATION_IMAGES} "
            f"representative images to measure ranges on, received {count}; "
            "give more with --images=FOLDER, or choose float16 or dynamic"
        )
    if not preprocessing:
        raise UsageError(f"--tflite={precision}: expected preprocessing in the graph")


def _convert(function: Any, precision: str, representative: np.ndarray | None) -> bytes:
    # By way of a SavedModel, which gives the file a signature with named tensors.
    with (
        tempfile.TemporaryDirectory() as folder,
        tensorflow_errors_as_os_errors(Path(folder)),
    ):
        tf.saved_model.save(tf.Module(), folder, {"serving_default": function})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        _configure(converter, precision, representative)
        try:
            with warnings.catch_warnings():
                # TensorFlow's calibrator warns of itself.
                warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter")
                return converter.convert()
        except (RuntimeError, ValueError) as error:
            raise TrainingFailure(f"TFLite {precision}: the converter failed: {error}") from error


def _configure(converter: Any, precision: str, representative: np.ndarray | None) -> None:
    operations = tf.lite.OpsSet
    converter.target_spec.supported_ops = [operations.TFLITE_BUILTINS]
    if precision == FLOAT32:
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    elif precision == INT8:
        converter.representative_dataset = _calibration(representative)
        converter.target_spec.supported_ops = [operations.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
    elif precision == INT16X8:
        converter.representative_dataset = _calibration(representative)
        converter.target_spec.supported_ops = [
            operations.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]


def _calibration(images: np.ndarray | None) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    """Images one by one, as the converter asks for them."""
    assert images is not None  # _check has seen them

    def generate() -> Iterator[dict[str, np.ndarray]]:
        for image in images:
            yield {INPUT_NAME: image[None].astype(np.float32)}

    return generate
