"""SavedModel for TensorFlow Serving: a numbered folder with two signatures."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.compiled_steps import with_compiled_operations
from effnetv2_tf.export.deploy_graph import INPUT_NAME
from effnetv2_tf.export.files import LABELS_FILE, atomic_folder, labels_text
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.loading import Exportable

BYTES_INPUT = "image_bytes"
BYTES_SIGNATURE = "serving_bytes"
DEFAULT_SIGNATURE = "serving_default"
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
_TOP_LABELS = 5
_CHANNELS_OF_FILES = (1, 3)


def version_folder(base: Path, version: int | None = None) -> Path:
    """`base`/`version`, checked to be free; without a version, the one after the highest.

    Raises:
      UsageError: if that version exists; the message has the next free number.
    """
    taken = [int(p.name) for p in base.iterdir() if p.name.isdecimal()] if base.is_dir() else []
    free = max(taken, default=0) + 1
    path = base / str(free if version is None else version)
    if path.exists():
        raise UsageError(
            f"--version: {path} exists already; expected a new version, e.g. --version={free}"
        )
    return path


def export_savedmodel(
    exportable: Exportable,
    base: str | Path,
    version: int | None = None,
    *,
    input_dtype: tf.DType = tf.float32,
    batch_size: int | None = None,
    image_size: int | None = None,
    preprocessing: bool = True,
    warmup: bool = True,
    compiled: bool = False,
) -> tuple[Path, list[str]]:
    """Writes `base`/`version` in the layout that TensorFlow Serving watches.

    Signatures: `serving_default` takes `image` (batch, height, width, channels) and returns
    the network's outputs; `serving_bytes` (for classifiers of 1 or 3 channels) takes
    `image_bytes`, a vector of encoded JPEG or PNG files, and returns `probabilities` (batch,
    classes) and the likeliest five `classes` and `labels` (batch, 5), best first; of a network
    with one probability, whether it is over 0.5, as class 0 or 1 (batch, 1).

    Args:
      exportable: what to export.
      base: `--model_base_path` of the server.
      version: number of the new folder; None for the one after the highest.
      input_dtype: float32 or uint8, of `serving_default`.
      batch_size: None for any.
      image_size: of `serving_default`, in pixels; None for any.
      preprocessing: whether `serving_default` normalises pixels itself. `serving_bytes`
        always does.
      warmup: whether to write requests that the server runs before it takes traffic.
      compiled: computes with the compiled operations: faster on CPUs, for processes that have
        called `effnetv2_tf.kernels.load()` before they load the SavedModel.

    Returns:
      The folder, and notes for the user.

    Raises:
      UsageError: if the version exists, the arguments exclude each other, or the operations are
        not compiled.
      OSError: if the folder cannot be written.
    """
    path = version_folder(Path(base), version)
    notes = write_savedmodel(
        exportable,
        path,
        input_dtype=input_dtype,
        batch_size=batch_size,
        image_size=image_size,
        preprocessing=preprocessing,
        warmup=warmup,
        compiled=compiled,
    )
    return path, notes


def write_savedmodel(
    exportable: Exportable,
    path: Path,
    *,
    input_dtype: tf.DType = tf.float32,
    batch_size: int | None = None,
    image_size: int | None = None,
    preprocessing: bool = True,
    warmup: bool = True,
    compiled: bool = False,
) -> list[str]:
    """Writes a SavedModel as a folder of any name; see `export_savedmodel`.

    Returns:
      Notes for the user.
    """
    if not preprocessing and input_dtype != tf.float32:
        raise UsageError("--input_dtype: expected float32 with --nopreprocessing, received uint8")
    if not preprocessing:
        exportable.graph.check_normalization_is_apart()
    if compiled:
        exportable = replace(exportable, graph=with_compiled_operations(exportable.graph))
    notes = []
    with tempfile.TemporaryDirectory() as scratch, atomic_folder(path) as folder:
        module = tf.Module(name="exported")
        signatures = _signatures(exportable, input_dtype, batch_size, image_size, preprocessing)
        if BYTES_SIGNATURE in signatures:
            labels = Path(scratch) / LABELS_FILE
            labels.write_text(labels_text(exportable.labels), encoding="utf-8")
            module.labels = tf.saved_model.Asset(str(labels))
        # Without gradients: nobody trains it, and those of functions cannot always be saved.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(folder), signatures, options)
        if warmup:
            requests = _warmup_requests(exportable, signatures)
            notes += write_warmup(folder / WARMUP_FILE, exportable.graph.name, requests)
    return notes


def _signatures(
    exportable: Exportable,
    input_dtype: tf.DType,
    batch_size: int | None,
    image_size: int | None,
    preprocessing: bool,
) -> dict[str, Any]:
    """Both signatures around one function, so that the file holds the weights once."""
    graph = exportable.graph
    infer = graph.body().function(tf.float32, batch_size, image_size)
    infer = infer.get_concrete_function()
    outside = graph.normalization

    def normalized(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(images, tf.float32) if outside is None else outside(images)

    @tf.autograph.experimental.do_not_convert
    def serve_images(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return infer(normalized(image) if preprocessing else image)

    shape = infer.structured_input_signature[0][0].shape
    images = tf.TensorSpec(shape, input_dtype, name=INPUT_NAME)
    signatures = {DEFAULT_SIGNATURE: tf.function(serve_images, input_signature=[images])}
    if not graph.is_classifier or graph.channels not in _CHANNELS_OF_FILES:
        return signatures

    preparation = _served_preparation(exportable, image_size)
    side = preparation.image_size
    prepared = tf.TensorSpec((side, side, preparation.channels), tf.uint8)

    @tf.autograph.experimental.do_not_convert  # no branches on tensors here or below
    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(preparation.prepare, image_bytes, fn_output_signature=prepared)
        probabilities = infer(normalized(pixels))[graph.output_name]
        classes = _likeliest(probabilities)
        labels = tf.gather(tf.constant(exportable.labels), classes)
        return {graph.output_name: probabilities, "classes": classes, "labels": labels}

    files = tf.TensorSpec([batch_size], tf.string, name=BYTES_INPUT)
    signatures[BYTES_SIGNATURE] = tf.function(serve_bytes, input_signature=[files])
    return signatures


def _likeliest(probabilities: tf.Tensor) -> tf.Tensor:
    """Up to five classes, best first; of a single probability, 1 or 0 for yes or no."""
    classes = probabilities.shape[-1]
    if classes == 1:
        return tf.cast(probabilities > 0.5, tf.int32)
    return tf.math.top_k(probabilities, min(_TOP_LABELS, classes), sorted=True).indices


def _served_preparation(exportable: Exportable, image_size: int | None) -> ImagePreparation:
    preparation = exportable.preparation
    return preparation if image_size is None else preparation.at_size(image_size)


def _warmup_requests(
    exportable: Exportable, signatures: dict[str, Any]
) -> list[tuple[str, str, np.ndarray]]:
    """(signature, input, value): one grey image for each signature."""
    spec = signatures[DEFAULT_SIGNATURE].input_signature[0]
    size = exportable.preparation.image_size
    shape = [side or default for side, default in zip(spec.shape, (1, size, size, 0), strict=True)]
    grey = np.full(shape, 128, spec.dtype.as_numpy_dtype)
    requests = [(DEFAULT_SIGNATURE, INPUT_NAME, grey)]
    if BYTES_SIGNATURE in signatures:
        image = np.full((size, size, exportable.preparation.channels), 128, np.uint8)
        encoded = np.array([tf.io.encode_jpeg(image).numpy()] * shape[0], object)
        requests.append((BYTES_SIGNATURE, BYTES_INPUT, encoded))
    return requests


def write_warmup(
    path: Path, model_name: str, requests: list[tuple[str, str, np.ndarray]]
) -> list[str]:
    """Writes the requests as TensorFlow Serving reads them: TFRecords of `PredictionLog`.

    Returns:
      Notes for the user: one if tensorflow-serving-api, which has the protos, is missing.
    """
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        return ["no warm-up requests: pip install tensorflow-serving-api to have them"]
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, name, value in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())
    return []
