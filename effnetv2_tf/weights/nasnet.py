"""Weights into this package's NASNets: of keras.applications, and of NASNets saved before.

keras.applications has NASNet-A only, and its networks leave the normalisation of pixels to
the caller: `x / 127.5 - 1`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.genotypes import NASNET_A, Cell
from effnetv2_tf.models.layers import InputNormalization, NASNetCell
from effnetv2_tf.models.nasnet import build_nasnet
from effnetv2_tf.models.nasnet_specs import CENTRED_127_5, NASNETS, NASNetSpec
from effnetv2_tf.models.specs import Preprocessing
from effnetv2_tf.weights import hdf5, keras_published
from effnetv2_tf.weights.mapping import (
    Origin,
    Origins,
    WeightFile,
    load_tensors,
    variables_by_path,
)
from effnetv2_tf.weights.report import WeightReport

SOURCE = "keras.applications"
_OWN_SOURCE = "effnetv2_tf"
_NO_WEIGHT = "state of the optimizer or of metrics"
_EPSILON = 1e-3
_A_LAYER_OF_THEIRS = "reduction_conv_1_stem_1"
# Row of our family to the constructor in keras.applications and its files, with and without top.
PUBLISHED = {
    "nasnet-mobile": ("NASNetMobile", "NASNet-mobile", "nasnet_mobile"),
    "nasnet-large": ("NASNetLarge", "NASNet-large", "nasnet_large"),
}
_URL = "https://storage.googleapis.com/tensorflow/keras-applications/nasnet"
_LAYERS = {"stem": "stem_conv1", "stem_norm": "stem_bn1", "classifier": "predictions"}
_CLASSIFIER = ("classifier/kernel", "classifier/bias")
# A layer of ours inside a cell to theirs; {kind} is "normal" or "reduction".
_CELL_LAYERS = {
    "project/conv": "{kind}_conv_1",
    "project/norm": "{kind}_bn_1",
    "align/even": "adjust_conv_1",
    "align/odd": "adjust_conv_2",
    "align/conv": "adjust_conv_projection",
    "align/norm": "adjust_bn",
}
_OPERATION_LAYERS = {
    "depthwise1": "separable_conv_1",
    "pointwise1": "separable_conv_1",
    "norm1": "separable_conv_1_bn",
    "depthwise2": "separable_conv_2",
    "pointwise2": "separable_conv_2",
    "norm2": "separable_conv_2_bn",
}
# How Keras calls layers and numbers their variables in files by classes.
_CLASS_GROUPS = {
    keras.layers.Conv2D: "conv2d",
    keras.layers.SeparableConv2D: "separable_conv2d",
    keras.layers.BatchNormalization: "batch_normalization",
    keras.layers.Dense: "dense",
}
_VARIABLE_ORDER = {
    "kernel": 0,
    "pointwise_kernel": 1,
    "bias": 1,
    "gamma": 0,
    "beta": 1,
    "moving_mean": 2,
    "moving_variance": 3,
}


def is_source(model: keras.Model) -> bool:
    """Whether a live model is a NASNet of keras.applications."""
    return {"stem_conv1", _A_LAYER_OF_THEIRS} <= {layer.name for layer in model.layers}


def from_keras_nasnet(
    source_model: keras.Model, model: keras.Model | None = None
) -> tuple[keras.Model, WeightReport]:
    """Takes the weights of a live NASNet of keras.applications.

    Args:
      source_model: for which `is_source`, for example
        `keras.applications.NASNetMobile(weights=...)`, with its own top or without.
      model: of this package, that takes the weights; None to build the one that fits, of any
        image size and, like `source_model`, for pixels that are normalised already.

    Returns:
      The model, and the report of every tensor.

    Raises:
      UsageError: if `source_model` has other widths than NASNetMobile and NASNetLarge and no
        `model` is given, or `model` does not fit it; `model` is as it was.
    """
    file = read_model(source_model)
    if model is None:
        model = _fitting_network(source_model)
    return model, load_tensors(model, origins(model), file)


def read_model(source_model: keras.Model) -> WeightFile:
    """The tensors of a live model of keras.applications."""
    tensors = {
        f"{layer.name}/{_variable_name(variable)}": keras_compat.tf_variable(variable).numpy()
        for layer in source_model.layers
        for variable in layer.weights
    }
    return WeightFile(
        source=SOURCE,
        path=source_model.name,
        tensors=tensors,
        preprocessing=CENTRED_127_5,
        batch_norm_epsilon=float(source_model.get_layer("stem_bn1").epsilon),
    )


def _variable_name(variable: Any) -> str:
    return keras_compat.variable_path(variable).rsplit("/", 1)[-1]


def _fitting_network(source_model: keras.Model) -> keras.Model:
    """A network of this package that takes the weights of this live model."""
    layers = {layer.name: layer for layer in source_model.layers}
    stem, width = layers["stem_conv1"], layers[_A_LAYER_OF_THEIRS].filters
    rows = [
        spec
        for spec in NASNETS.values()
        if (spec.stem_filters, spec.filters // spec.filter_multiplier**2) == (stem.filters, width)
        and f"reduction_conv_1_reduce_{spec.cells_per_stack}" in layers
    ]
    if not rows:
        raise UsageError(
            f"`source_model` {source_model.name!r} is none of {', '.join(PUBLISHED)}. Build a "
            "network with build_nasnet, and pass it as `model`."
        )
    channels = tuple(stem.kernel.shape)[2]
    arguments: dict[str, Any] = {"input_shape": (None, None, channels)}
    if "predictions" in layers:
        top = layers["predictions"]
        arguments |= {"classes": top.units, "classifier_activation": top.activation}
    else:
        arguments |= {"include_top": False, "pooling": _pooling_of(source_model)}
    return build_nasnet(rows[0], include_preprocessing=False, **arguments)


def _pooling_of(source_model: keras.Model) -> str | None:
    last = source_model.layers[-1]
    if isinstance(last, keras.layers.GlobalAveragePooling2D):
        return "avg"
    return "max" if isinstance(last, keras.layers.GlobalMaxPooling2D) else None


def is_nasnet(model: keras.Model) -> bool:
    """Whether a model is one of this package's NASNets."""
    return any(isinstance(layer, NASNetCell) for layer in model.layers)


def published(model: keras.Model) -> tuple[WeightFile, Origins]:
    """The ImageNet weights of keras.applications, and where each variable is in them.

    Raises:
      UsageError: if there are none for this network, or they cannot be fetched.
    """
    file = read_model(_fetch(model))
    return file, origins(model)


def read_file(model: keras.Model, path: Path) -> tuple[WeightFile, Origins]:
    """The tensors of a file for a NASNet, and where each of its variables is in them.

    Args:
      model: for which `is_nasnet`.
      path: of a file in HDF5, or `.keras`, of this package or of keras.applications.

    Raises:
      UsageError: if the file is damaged or holds no NASNet.
    """
    arrays = hdf5.read_arrays(path)
    parts = {part for name in arrays for part in name.split("/")}
    if parts & {"nas_net_cell", "stack1_cell1"}:
        file = _read_own(path, model, arrays)
        return file, {name: Origin(name) for name in [*variables_by_path(model), *_CLASSIFIER]}
    if parts & {_A_LAYER_OF_THEIRS, "separable_conv2d"}:
        file = _read_keras(path, model, arrays)
        return file, origins(model)
    raise UsageError(
        f"Weights file {str(path)!r} is of a Keras model that is no NASNet of this package or of "
        f"keras.applications. Its arrays begin with {[*arrays][:3]}."
    )


def _read_keras(path: Path, model: keras.Model, arrays: dict[str, Any]) -> WeightFile:
    tensors, others = hdf5.layer_tensors(arrays)
    if hdf5.is_by_class(arrays):
        tensors = _by_name(tensors, model)
    else:  # from layer/scope/layer/kernel to layer/kernel
        tensors = {f"{n.partition('/')[0]}/{n.rpartition('/')[2]}": v for n, v in tensors.items()}
    return WeightFile(
        source=SOURCE,
        path=str(path),
        tensors={**tensors, **others},
        left_out=dict.fromkeys(others, _NO_WEIGHT),
        preprocessing=CENTRED_127_5,
        batch_norm_epsilon=_EPSILON,
    )


def _by_name(tensors: dict[str, Any], model: keras.Model) -> dict[str, Any]:
    """From `separable_conv2d_3/vars/0` to `separable_conv_1_normal_left1_0/kernel`.

    Keras numbers the layers in the order of its graph: building theirs is how to know it.
    """
    reference = _keras_constructor(model)(weights=None)
    numbering = hdf5.ClassNumbering()
    names = {}
    for layer in reference.layers:
        if not layer.weights:
            continue
        group = numbering.next_layer(_CLASS_GROUPS[type(layer)])
        for variable in layer.weights:
            name = _variable_name(variable)
            names[f"{group}/vars/{_VARIABLE_ORDER[name]}"] = f"{layer.name}/{name}"
    return {names.get(name, name): array for name, array in tensors.items()}


def _row_of(model: keras.Model) -> NASNetSpec:
    """The row of the family that keras.applications has too.

    Raises:
      UsageError: if it has none such.
    """
    count = _cells_per_stack(model)
    for spec in NASNETS.values():
        last = model.get_layer(f"stack3_cell{count}")
        if (spec.cells_per_stack, spec.penultimate_filters) == (count, last.output_filters):
            return spec
    raise UsageError(
        f"keras.applications has {', '.join(PUBLISHED)}. Received: model {model.name!r} with "
        f"{count} cells in a stack. Pass a file of this package, or an .h5 file by layer names."
    )


def _keras_constructor(model: keras.Model) -> Any:
    return getattr(keras.applications, PUBLISHED[_row_of(model).name][0])


def _cells_per_stack(model: keras.Model) -> int:
    return sum(layer.name.startswith("stack1_cell") for layer in model.layers)


def _fetch(model: keras.Model) -> keras.Model:
    """The model of keras.applications with ImageNet weights, which Keras fetches and caches."""
    _, remote, local = PUBLISHED[_row_of(model).name]
    build = _keras_constructor(model)
    include_top = "classifier/kernel" in variables_by_path(model)
    suffixes = (".h5", ".h5") if include_top else ("-no-top.h5", "_no_top.h5")
    return keras_published.fetched(
        lambda: build(weights="imagenet", include_top=include_top),
        f"{_URL}/{remote}{suffixes[0]}",
        f"{local}{suffixes[1]}",
    )


def _check_classes(path: Path, model: keras.Model, arrays: dict[str, Any]) -> None:
    """Says what to pass where the classifier alone differs, which Keras says at great length."""
    names = ("layers/dense/vars/1", "classifier/classifier/bias:0", "classifier/classifier/bias")
    classes = next((len(arrays[name]) for name in names if name in arrays), None)
    expected = {v.shape[0] for n, v in variables_by_path(model).items() if n == "classifier/bias"}
    if classes is not None and expected and {classes} != expected:
        raise UsageError(
            f"Weights file {str(path)!r} ({_OWN_SOURCE}) does not fit model {model.name!r}: it has "
            f"{classes} classes, the model {expected.pop()}. Pass classes={classes} or "
            "include_top=False."
        )


def _read_own(path: Path, model: keras.Model, arrays: dict[str, Any]) -> WeightFile:
    """A file that a NASNet of this package saved; Keras finds the layers in it."""
    _check_classes(path, model, arrays)
    try:
        if zipfile.is_zipfile(path):
            saved = keras.models.load_model(path, compile=False)
        else:
            saved = model.__class__.from_config(model.get_config())
            saved.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(
            f"Weights file {str(path)!r} ({_OWN_SOURCE}) does not fit model {model.name!r}: "
            f"{error}. Build the network that was saved: the same genotype, widths, classes "
            "and top."
        ) from error
    is_whole = zipfile.is_zipfile(path)  # with the layers' configurations
    if is_whole and _cells(saved) != _cells(model):
        raise UsageError(
            f"Weights file {str(path)!r} ({_OWN_SOURCE}) does not fit model {model.name!r}: its "
            "cells are of another genotype or number. Build the network that was saved."
        )
    # By their order: Keras 2 names the variables of a model that it builds anew otherwise.
    names = list(dict.fromkeys([*variables_by_path(model), *_CLASSIFIER]))
    names += [f"further variable {number}" for number in range(len(saved.weights) - len(names))]
    values = {
        name: keras_compat.tf_variable(variable).numpy()
        for name, variable in zip(names, saved.weights, strict=False)
    }
    _, others = hdf5.layer_tensors(arrays)
    return WeightFile(
        source=_OWN_SOURCE,
        path=str(path),
        tensors={**values, **others},
        left_out=dict.fromkeys(others, _NO_WEIGHT),
        preprocessing=_saved_preprocessing(saved) if is_whole else None,
        batch_norm_epsilon=saved.get_layer("stem_norm").epsilon if is_whole else None,
    )


def _cells(model: keras.Model) -> list[Cell]:
    return [layer.cell for layer in model.layers if isinstance(layer, NASNetCell)]


def _saved_preprocessing(saved: keras.Model) -> Preprocessing | None:
    """The normalisation inside a network."""
    layers = [layer for layer in saved.layers if isinstance(layer, InputNormalization)]
    return Preprocessing(layers[0].mean, layers[0].std) if layers else None


def origins(model: keras.Model) -> Origins:
    """Where each of the network's variables is in a model or a file of keras.applications.

    Raises:
      UsageError: if the network is no NASNet-A as they have it.
    """
    _check_is_nasnet_a(model)
    per_stack = _cells_per_stack(model)
    found: Origins = {}
    for path in dict.fromkeys([*variables_by_path(model), *_CLASSIFIER]):
        layer, variable = path.rsplit("/", 1)
        name = _LAYERS.get(layer) or _layer_in_cell(layer, per_stack)
        if layer.rpartition("/")[2].startswith("pointwise"):
            variable = "pointwise_kernel"
        found[path] = Origin(f"{name}/{variable}")
    return found


def _layer_in_cell(layer: str, per_stack: int) -> str:
    """The name there of `stack1_cell2/block1_left/norm1`: `separable_conv_1_bn_normal_left1_1`."""
    cell, _, inner = layer.partition("/")
    kind, block_id = _cell_id(cell, per_stack)
    if inner in _CELL_LAYERS:
        return f"{_CELL_LAYERS[inner].format(kind=kind)}_{block_id}"
    branch, _, part = inner.partition("/")
    number, side = branch.removeprefix("block").split("_")
    if (kind, branch) == ("reduction", "block5_left"):  # it is called so there
        number = "4"
    return f"{_OPERATION_LAYERS[part]}_{kind}_{side}{number}_{block_id}"


def _cell_id(cell: str, per_stack: int) -> tuple[str, str]:
    """Kind and number there of `stem_cell1`, `reduction1` or `stack2_cell1`."""
    if cell.startswith("stem_cell"):
        return "reduction", f"stem_{cell.removeprefix('stem_cell')}"
    if cell.startswith("reduction"):
        return "reduction", f"reduce_{int(cell.removeprefix('reduction')) * per_stack}"
    stack, repeat = (int(part) for part in cell.removeprefix("stack").split("_cell"))
    before = (stack - 1) * per_stack + (stack > 1)  # the first reduction cell counts as one
    return "normal", str(before + repeat - 1)


def _check_is_nasnet_a(model: keras.Model) -> None:
    cells = [layer for layer in model.layers if isinstance(layer, NASNetCell)]
    if any("auxiliary" in layer.name for layer in model.layers):
        raise UsageError(
            f"Model {model.name!r} has an auxiliary head, which {SOURCE} has not. Load the "
            "weights into without_auxiliary_head(model): its layers are the same."
        )
    kinds = {1: NASNET_A.normal, 2: NASNET_A.reduction}
    others = [layer.name for layer in cells if layer.cell != kinds[layer.stride]]
    if others or model.get_layer("stem").strides != (2, 2) or cells[1].stride != 2:
        what = f"cell {others[0]!r} of another genotype" if others else "another stem"
        raise UsageError(
            f"{SOURCE} has NASNet-A with two reduction cells in its stem. Received: model "
            f"{model.name!r} with {what}."
        )
