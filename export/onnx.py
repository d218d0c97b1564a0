"""ONNX files through tf2onnx: float32, and int8 (QDQ) through onnxruntime's quantiser."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_tf.errors import TrainingFailure, UsageError, suggestion
from effnetv2_tf.export.deploy_graph import INPUT_NAME
from effnetv2_tf.export.files import write_bytes
from effnetv2_tf.export.loading import Exportable
from effnetv2_tf.export.tflite import MINIMUM_CALIBRATION_IMAGES, check_calibrated

FLOAT32, INT8 = "float32", "int8"
PRECISIONS = (FLOAT32, INT8)
DEFAULT_OPSET = 18
_OPSETS = (13, 18)  # lowest with per-channel quantisation; highest that tf2onnx 1.17 writes
_DIMENSIONS = ("batch", "height", "width")


def export_onnx(
    exportable: Exportable,
    path: str | Path,
    precision: str = FLOAT32,
    *,
    opset: int = DEFAULT_OPSET,
    input_dtype: tf.DType = tf.float32,
    batch_size: int | None = None,
    image_size: int | None = None,
    preprocessing: bool = True,
    representative: np.ndarray | None = None,
) -> Path:
    """Writes one .onnx file; input `image` (batch, height, width, channels), named dimensions.

    Args:
      exportable: what to export.
      path: of the file.
      precision: `"float32"`, or `"int8"`: quantised weights and activations between
        QuantizeLinear and DequantizeLinear nodes, input and output float32.
      opset: of the ONNX standard.
      input_dtype: float32 or uint8.
      batch_size: None for any.
      image_size: side in pixels; None for any.
      preprocessing: whether the file normalises pixels itself.
      representative: for int8: uint8 (count, size, size, channels).

    Returns:
      The path.

    Raises:
      UsageError: for an unknown precision or opset, or too few representative images.
      TrainingFailure: if the result is no valid ONNX.
      OSError: if the file cannot be written.
    """
    _check(precision, representative, batch_size or 1, preprocessing)
    check_opset(opset)
    graph = exportable.graph if preprocessing else exportable.graph.without_normalization()
    function = graph.function(input_dtype, batch_size, image_size)
    model = _convert(function, opset)
    _name_dimensions(model)
    _add_metadata(model, exportable, preprocessing)
    if precision == INT8:
        assert representative is not None  # _check has seen them
        pixels = representative.astype(input_dtype.as_numpy_dtype)
        model = _quantize(model, pixels, batch_size or 1)
    return write_bytes(Path(path), _checked(model).SerializeToString())


def check_opset(opset: int) -> None:
    """Raises a UsageError for an opset that cannot be written."""
    if not _OPSETS[0] <= opset <= _OPSETS[1]:
        raise UsageError(f"--opset: expected {_OPSETS[0]} to {_OPSETS[1]}, received {opset}")


def _check(
    precision: str, representative: np.ndarray | None, batch_size: int, preprocessing: bool
) -> None:
    if precision not in PRECISIONS:
        hint = suggestion(precision, PRECISIONS) or f"; known: {', '.join(PRECISIONS)}"
        raise UsageError(f"--onnx: unknown precision {precision!r}{hint}")
    if precision != INT8:
        return
    count = 0 if representative is None else len(representative)
    needed = max(MINIMUM_CALIBRATION_IMAGES, batch_size)
    if count < needed:
        raise UsageError(
            f"--onnx=int8: expected at least {needed} representative images to measure ranges "
            f"on, received {count}; give more with --images=FOLDER"
        )
    check_calibrated("onnx", precision, preprocessing)


def _convert(function: Any, opset: int) -> Any:
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    try:
        with _failing_optimizers_fail():
            model, _ = tf2onnx.convert.from_function(
                function, input_signature=function.input_signature, opset=opset
            )
    except (RuntimeError, ValueError, AttributeError, LookupError, TypeError) as error:
        raise TrainingFailure(f"ONNX: tf2onnx failed: {error}") from error
    return model


@contextlib.contextmanager
def _failing_optimizers_fail() -> Iterator[None]:
    """Has tf2onnx raise where one of its optimizers fails.

    By default it logs the error and goes on with a deep copy of the graph that it makes before
    every pass; those copies were a third of the time that a conversion took.
    """
    name = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _name_dimensions(model: Any) -> None:
    """tf2onnx invents names for dynamic dimensions; these are readable, and agree."""
    for value in (*model.graph.input, *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        names = _DIMENSIONS if value.name == INPUT_NAME else _DIMENSIONS[:1]
        for dimension, name in zip(dimensions, names, strict=False):
            if not dimension.HasField("dim_value") or dimension.dim_value < 1:
                dimension.dim_param = name
    del model.graph.value_info[:]  # they use the invented names; checking infers them anew


def _add_metadata(model: Any, exportable: Exportable, preprocessing: bool) -> None:
    metadata = exportable.metadata()
    if not preprocessing:
        metadata["input"]["normalization"]["inside_the_model"] = False
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key = key
        entry.value = value if isinstance(value, str) else json.dumps(value)
    model.graph.name = exportable.graph.name
    model.doc_string = f"{exportable.graph.name}, from {exportable.origin}"


def _checked(model: Any) -> Any:
    """The model, after the standard's own checks.

    Raises:
      TrainingFailure: if they fail.
    """
    import onnx

    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise TrainingFailure(f"ONNX: the file is not valid: {error}") from error
    return model


class _Reader:
    """Feeds whole batches of calibration images; what onnxruntime calls a CalibrationDataReader."""

    def __init__(self, images: np.ndarray, batch_size: int) -> None:
        whole = len(images) // batch_size * batch_size
        self._batches = iter(images[:whole].reshape(-1, batch_size, *images.shape[1:]))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


def _quantize(model: Any, representative: np.ndarray, batch_size: int) -> Any:
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization import shape_inference
    except ImportError as error:
        raise UsageError(
            f"--onnx=int8: needs onnxruntime and what it quantizes with; pip install "
            f"'effnetv2_tf[export]' ({error})"
        ) from error
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / name for name in ("a", "b", "c"))
        onnx.save(model, source)
        shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            _Reader(representative, batch_size),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            # Not signed: for those, processors with AVX2 or AVX-512 but without VNNI add two
            # products in 16 bits, which overflows; the file is to be right on any.
            weight_type=quantization.QuantType.QUInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        )
        return onnx.load(target)
