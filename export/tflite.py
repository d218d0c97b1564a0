"""TFLite (LiteRT) files: float32, float16, dynamic-range, int8 and 16x8, built-in ops only."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

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
    batch_size: int | None = None,
    image_size: int | None = None,
    preprocessing: bool = True,
) -> Path:
    """Writes one .tflite file with labels and normalisation as metadata.

    The input is float32, for int8 uint8: pixels in [0, 255] as they are. Its default shape is
    one image of the evaluation size; through `resize_tensor_input` the file takes any batch and,
    if the network does, any image size. One of a network that is not folded, and whose converted
    form allows no other shape, has that shape alone.

    Args:
      exportable: what to export.
      path: of the file.
      precision: one of `PRECISIONS`.
      representative: for int8 and 16x8: uint8 (count, size, size, channels), prepared images
        like those that the network will meet.
      batch_size: None for any.
      image_size: side in pixels; None for any, the evaluation size by default.
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
    content = _convert(graph.function(tf.float32, batch_size or 1, size), precision, representative)
    if precision == INT8:
        _check_takes_pixels(content)
    any_batch = batch_size is None
    any_size = any_batch and image_size is None and graph.image_shape[0] is None
    if graph.note and any_batch and not _runs_at(content, 2, size + any_size):
        any_batch = any_size = False
    content = add_metadata(
        content,
        exportable,
        image_size=size,
        any_batch=any_batch,
        any_size=any_size,
        preprocessing=preprocessing,
    )
    return write_bytes(Path(path), content)


def _runs_at(content: bytes, batch_size: int, image_size: int) -> bool:
    """Whether a file takes such images, though it was converted with one of another size."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    (details,) = interpreter.get_input_details()
    shape = (batch_size, image_size, image_size, details["shape"][-1])
    try:
        interpreter.resize_tensor_input(details["index"], shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(details["index"], np.zeros(shape, details["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError):
        return False
    return True


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
    check_calibrated("tflite", precision, preprocessing)


def check_calibrated(flag: str, precision: str, preprocessing: bool) -> None:
    """Raises a UsageError where pixels would be measured, and others calculated with.

    Args:
      flag: that asks for the file, for the message.
      precision: of the file.
      preprocessing: whether the file normalises pixels itself.
    """
    if precision in CALIBRATED and not preprocessing:
        raise UsageError(
            f"--{flag}={precision}: expected the normalisation in the file, received "
            "--nopreprocessing"
        )


def _convert(function: Any, precision: str, representative: np.ndarray | None) -> bytes:
    # By way of a SavedModel, which gives the file a signature with named tensors.
    with (
        tempfile.TemporaryDirectory() as folder,
        tensorflow_errors_as_os_errors(Path(folder)),
    ):
        # As in `savedmodel`: without the gradients, which cannot always be saved.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(tf.Module(), folder, {"serving_default": function}, options)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        _configure(converter, precision, representative)
        try:
            with warnings.catch_warnings():
                # TensorFlow's calibrator warns of itself.
                warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter")
                return converter.convert()
        except (RuntimeError, ValueError, ConverterError) as error:
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
        for image in (*images, *_whole_range(images)):
            yield {INPUT_NAME: image[None].astype(np.float32)}

    return generate


def _whole_range(images: np.ndarray) -> list[np.ndarray]:
    """An image with a black and a white pixel, if there is none or none: pixels are fed as such.

    The converter takes the measured range of its input for the range of uint8.
    """
    if images.min() == 0 and images.max() == 255:
        return []
    image = images[0].copy()
    image[0, 0], image[-1, -1] = 0, 255
    return [image]


def _check_takes_pixels(content: bytes) -> None:
    """Raises a TrainingFailure if a file's uint8 input is no pixel in [0, 255]."""
    from ai_edge_litert.interpreter import Interpreter

    (details,) = Interpreter(model_content=content).get_input_details()
    scale, zero_point = details["quantization"]
    if not np.isclose(scale, 1.0, rtol=1e-3) or zero_point != 0:
        raise TrainingFailure(
            f"TFLite int8: expected an input that takes pixels as they are (scale 1, zero point "
            f"0), received scale {scale:g}, zero point {zero_point}"
        )
