"""`load_weights`: looks at what a weights file is and hands it to its importer."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import keras

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.specs import NetworkSpec, Preprocessing
from effnetv2_tf.weights import automl, hdf5, keras_applications, keras_published, nasnet, own
from effnetv2_tf.weights.mapping import Origins, WeightFile, load_tensors, variables_by_path
from effnetv2_tf.weights.report import WeightReport
from effnetv2_tf.weights.torch_files import is_safetensors
from effnetv2_tf.weights.variants import matching_row, spec_of, variable_shapes

IMAGENET = "imagenet"
_LITE0 = "efficientnet-lite0"
_HDF5_SUFFIXES = (".h5", ".hdf5", ".keras")
_PYTORCH_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
_KNOWN = (
    "Expected 'imagenet', or the path of a file of this package or of keras.applications "
    "(.keras, .weights.h5, .h5), of PyTorch (.safetensors, .pth, .pt, .bin), or a TensorFlow "
    "checkpoint (its prefix or folder)."
)


def load_weights(
    model: keras.Model,
    weights: str | Path | None,
    spec: NetworkSpec | None = None,
    *,
    ema: bool | None = None,
    preprocessing: Preprocessing | None = None,
) -> WeightReport | None:
    """Loads weights into a network of this package, all of them or none.

    Args:
      model: from a constructor or `build_network`.
      weights: `"imagenet"`, or the path of a file of this package or of keras.applications
        (`.keras`, `.weights.h5`, `.h5`), of timm or torchvision (`.safetensors`, `.pth`,
        `.pt`, `.bin`), or a checkpoint of google/automl or tensorflow/tpu (its prefix or
        folder). None leaves the model as it is.
      spec: that the model was built from; None to read it off the model, as a NASNet's is
        always.
      ema: for checkpoints that hold moving averages beside the raw weights: which to take;
        None for the averages.
      preprocessing: what the weights were trained with, where the file does not say or its
        variant was trained otherwise than usual: AdvProp's checkpoints of V1 want
        `Preprocessing(mean=(127.5,), std=(127.5,))`. None for the file's.

    Returns:
      A report with a row for every tensor; None if `weights` is.

    Raises:
      UsageError: if the file is missing, damaged or of no known kind, or does not fit: the
        first tensor that does not, both shapes, and what to pass instead. The model is as it
        was.
    """
    if weights is None:
        return None
    if isinstance(weights, bool):
        raise UsageError(
            f"weights: expected None, {IMAGENET!r} or a file, received {weights}; a constructor's "
            "first arguments are `weights` and `include_top`, in keras.applications it is the "
            "other way round"
        )
    if not isinstance(weights, (str, os.PathLike)) or not str(weights):
        raise UsageError(f"weights: expected None, {IMAGENET!r} or a file, received {weights!r}")
    if nasnet.is_nasnet(model):
        file, origins = _open_nasnet(model, weights, ema)
    elif str(weights) == IMAGENET:
        file, origins = _published(model, spec or spec_of(model))
    else:
        file, origins = _open(Path(weights), spec or spec_of(model), ema)
    if preprocessing is not None:
        file = replace(file, preprocessing=preprocessing)
    return load_tensors(model, origins, file)


def _open(path: Path, spec: NetworkSpec, ema: bool | None) -> tuple[WeightFile, Origins]:
    """The file and where each variable is in it, by what the file is."""
    prefix = automl.find_prefix(path)
    if prefix is not None:
        file = automl.read(prefix, spec, ema=ema is not False)
        return file, automl.origins(spec, file)
    _check_is_file(path)
    if _is_pytorch(path):
        from effnetv2_tf.weights import pytorch

        file = pytorch.read(path, spec, prefer_averages=ema is not False)
        return file, pytorch.origins(spec, file)
    _check_no_choice(ema, path)
    return _open_keras(path, spec)


def _open_nasnet(
    model: keras.Model, weights: str | Path, ema: bool | None
) -> tuple[WeightFile, Origins]:
    """The file and where each variable is in it, for one of this package's NASNets."""
    _check_no_choice(ema, weights)
    if str(weights) == IMAGENET:
        _check_fits_imagenet(model)
        return nasnet.published(model)
    path = Path(weights)
    _check_is_file(path)
    _check_is_hdf5(path)
    return nasnet.read_file(model, path)


def _check_no_choice(ema: bool | None, weights: str | Path) -> None:
    if ema is not None:
        raise UsageError(
            f"`ema` chooses between averages and raw weights in checkpoints of google/automl and "
            f"PyTorch. Received: ema={ema} with weights={str(weights)!r}, which holds one set."
        )


def _open_keras(path: Path, spec: NetworkSpec) -> tuple[WeightFile, Origins]:
    _check_is_hdf5(path)
    arrays = hdf5.read_arrays(path)
    inner = hdf5.inner_model(arrays)
    if inner is not None:
        raise UsageError(
            f"Weights file {str(path)!r} holds a network inside another model (as {inner!r}). Load "
            "that model (keras.models.load_model, or load_weights of one that is built alike) and "
            "take the network out of it with get_layer."
        )
    if own.is_own(arrays):
        file = own.read(path, arrays, spec)
        return file, own.origins(spec, file)
    if keras_applications.is_one(arrays):
        file = keras_applications.read(path, arrays, spec)
        return file, keras_applications.origins(spec, file)
    raise UsageError(
        f"Weights file {str(path)!r} is of a Keras model that is neither this package's nor an "
        f"EfficientNet of keras.applications. Its arrays begin with {[*arrays][:3]}."
    )


def _check_is_file(path: Path) -> None:
    if path.is_file() and path.stat().st_size:
        return
    what = "no file" if not path.exists() else "a folder without a checkpoint"
    what = "an empty file" if path.is_file() else what
    raise UsageError(f"Received: weights={str(path)!r}, which is {what}. {_KNOWN}")


def _check_is_hdf5(path: Path) -> None:
    if not _is_hdf5(path):
        is_named_so = path.name.endswith(_HDF5_SUFFIXES)
        hint = ", though its name says so: it may be truncated" if is_named_so else ""
        raise UsageError(f"{str(path)!r} is no weights file{hint}. {_KNOWN}")


def _is_hdf5(path: Path) -> bool:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return hdf5.WEIGHTS_IN_ARCHIVE in archive.namelist()
    with path.open("rb") as file:
        return file.read(len(hdf5.SIGNATURE)) == hdf5.SIGNATURE


def _is_pytorch(path: Path) -> bool:
    """Whether PyTorch's reader should have the file; it says what is wrong with it."""
    if path.name.endswith(_PYTORCH_SUFFIXES):
        return True
    if path.name.endswith(_HDF5_SUFFIXES):
        return False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    return is_safetensors(path)


def _published(model: keras.Model, spec: NetworkSpec) -> tuple[WeightFile, Origins]:
    """The published ImageNet weights of the row that `spec` is."""
    row = matching_row(variable_shapes(spec).values())
    name = spec.name if row is None else row.name
    if name != _LITE0 and name not in keras_published.PUBLISHED:
        known = ", ".join([*keras_published.PUBLISHED, _LITE0])
        raise UsageError(
            f"weights='imagenet': there are published weights for {known}. Received: {name!r}. "
            "Pass the path of a weights file."
        )
    _check_fits_imagenet(model)
    if name == _LITE0:
        from effnetv2_tf.weights import lite0

        file = lite0.read()
        return file, lite0.origins(spec, file)
    source = keras_published.fetch(name, "classifier/kernel" in variables_by_path(model))
    file = keras_applications.read_model(source)
    return file, keras_applications.origins(spec, file)


def _check_fits_imagenet(model: keras.Model) -> None:
    """Says before a download what would not fit after it."""
    variables = variables_by_path(model)
    channels = variables["stem/kernel"].shape[2]
    if channels != 3:
        raise UsageError(
            "weights='imagenet': the weights are for images with 3 channels. Received: "
            f"{channels}. Pass input_shape=(None, None, 3)."
        )
    classifier = variables.get("classifier/bias")
    if classifier is not None and classifier.shape[0] != 1000:
        raise UsageError(
            "weights='imagenet': the weights have 1000 classes. Received: "
            f"classes={classifier.shape[0]}. Pass classes=1000, or include_top=False and add a "
            "classifier."
        )
