"""Weights of keras.applications: EfficientNet B0-B7 and EfficientNetV2 B0-B3, S, M, L.

The networks agree in every layer. Two things to know:

- The V1 networks there pad strided convolutions by an explicit layer, which is TensorFlow's
  "same" for an input size that is known when the model is built. Built with sizes of None,
  they pad odd sizes as if these were even: then the results differ by that padding.
- Their V1 networks keep ImageNet's standard deviations where a variance belongs, and make
  up for it by a second `Rescaling` when built with `weights="imagenet"`. The file alone does
  not show that; here both are understood as what the weights were trained with.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import (
    CENTRED_128,
    IMAGENET_STATISTICS,
    NetworkSpec,
    Preprocessing,
)
from effnetv2_tf.weights import hdf5, nasnet
from effnetv2_tf.weights.mapping import Origin, Origins, WeightFile, load_tensors
from effnetv2_tf.weights.report import WeightReport
from effnetv2_tf.weights.variants import matching_row, spec_of, variable_shapes

SOURCE = "keras.applications"
_NORMALIZATION = "input normalisation, no variable of the network: see the notes"
_NO_WEIGHT = "state of the optimizer or of metrics"
_LAYERS = {
    "stem": "stem_conv",
    "stem_norm": "stem_bn",
    "head": "top_conv",
    "head_norm": "top_bn",
    "classifier": "predictions",
}
_BLOCK_LAYERS = {
    "expand": "expand_conv",
    "expand_norm": "expand_bn",
    "fused": "expand_conv",
    "fused_norm": "expand_bn",
    "depthwise": "dwconv",
    "depthwise_norm": "bn",
    "squeeze_excite/reduce": "se_reduce",
    "squeeze_excite/expand": "se_expand",
    "project": "project_conv",
    "project_norm": "project_bn",
}


def from_keras_applications(
    source_model: keras.Model, model: keras.Model | None = None
) -> tuple[keras.Model, WeightReport]:
    """Takes the weights of a live model of keras.applications.

    Args:
      source_model: for example `keras.applications.EfficientNetB0(weights=...)`, with its own
        top or without; a NASNet, see `nasnet.from_keras_nasnet`.
      model: of this package, that takes the weights; None to build the one that fits.

    Returns:
      The model, and the report of every tensor. Pixels go in as they did into `source_model`.

    Raises:
      UsageError: if `source_model` is no EfficientNet or NASNet of keras.applications, or
        `model` does not fit it; `model` is as it was.
    """
    if nasnet.is_source(source_model):
        return nasnet.from_keras_nasnet(source_model, model)
    file = read_model(source_model)
    if model is None:
        model = _fitting_network(source_model, file)
    return model, load_tensors(model, origins(spec_of(model), file), file)


def read_model(source_model: keras.Model) -> WeightFile:
    """The tensors of a live model, and what its layers do to pixels before the stem."""
    layers = {layer.name: layer for layer in source_model.layers}
    if "stem_conv" not in layers or "top_conv" not in layers:
        raise UsageError(
            "`source_model` must be an EfficientNet of keras.applications. Received: model "
            f"{source_model.name!r} with layers {[*layers][:4]} ..."
        )
    tensors = {
        f"{layer.name}/{_variable_name(variable)}": keras_compat.tf_variable(variable).numpy()
        for layer in source_model.layers
        for variable in layer.weights
    }
    norms = [x for x in source_model.layers if isinstance(x, keras.layers.Normalization)]
    normalization = {f"{x.name}/{_variable_name(v)}" for x in norms for v in x.weights}
    return WeightFile(
        source=SOURCE,
        path=source_model.name,
        tensors=tensors,
        left_out=dict.fromkeys(normalization, _NORMALIZATION),
        preprocessing=_preprocessing_of(source_model),
        padding="same",
        batch_norm_epsilon=float(layers["stem_bn"].epsilon),
    )


def _variable_name(variable: Any) -> str:
    return keras_compat.variable_path(variable).rsplit("/", 1)[-1]


def _preprocessing_of(source_model: keras.Model) -> Preprocessing | None:
    """What the layers before the stem do to pixels; None if they do nothing."""
    scale, offset = np.ones(1), np.zeros(1)
    for layer in source_model.layers:
        if layer.name == "stem_conv":
            break
        if isinstance(layer, keras.layers.Rescaling):
            factor = np.asarray(layer.scale, float)
            scale, offset = scale * factor, offset * factor + np.asarray(layer.offset, float)
        elif isinstance(layer, keras.layers.Normalization):
            mean, variance = np.ravel(layer.mean), np.ravel(layer.variance)
            factor = 1 / np.sqrt(variance)
            scale, offset = scale * factor, (offset - mean) * factor
        elif not isinstance(layer, keras.layers.InputLayer | keras.layers.ZeroPadding2D):
            raise UsageError(
                f"`source_model` {source_model.name!r} has layer {layer.name!r} "
                f"({type(layer).__name__}) before its stem, which this package's networks have "
                "not. Pass the model without it."
            )
    if np.all(scale == 1) and np.all(offset == 0):
        return None
    return _preprocessing(-offset / scale, 1 / scale)


def _preprocessing(mean: np.ndarray, std: np.ndarray) -> Preprocessing:
    """(pixels - mean) / std; a known one where it agrees but for rounding."""
    for known in (IMAGENET_STATISTICS, CENTRED_128):
        if np.allclose(mean, known.mean, rtol=1e-4) and np.allclose(std, known.std, rtol=1e-4):
            return known
    mean, std = np.broadcast_arrays(mean, std)
    return Preprocessing(tuple(map(float, mean)), tuple(map(float, std)))


def _fitting_network(source_model: keras.Model, file: WeightFile) -> keras.Model:
    """A network of this package that takes the file of this live model."""
    weights = [v.shape for name, v in file.tensors.items() if name not in file.left_out]
    row = matching_row(weights)
    if row is None:
        raise UsageError(
            f"`source_model` {source_model.name!r} has the tensors of no network in "
            "effnetv2_tf.models.families.SPECS. Build one with build_network, and pass it as "
            "`model`."
        )
    layers = {layer.name: layer for layer in source_model.layers}
    channels = file.tensors["stem_conv/kernel"].shape[2]
    arguments: dict[str, Any] = {"input_shape": (None, None, channels)}
    if "predictions" in layers:
        top = layers["predictions"]
        arguments |= {"classes": top.units, "classifier_activation": top.activation}
    else:
        pools = {"avg_pool": "avg", "max_pool": "max"}
        pooling = next((pools[name] for name in pools if name in layers), None)
        arguments |= {"include_top": False, "pooling": pooling}
    has_preprocessing = file.preprocessing is not None
    return build_network(row, include_preprocessing=has_preprocessing, **arguments)


def is_one(names: Iterable[str]) -> bool:
    """Whether a file whose arrays have these names holds an EfficientNet of keras.applications.

    The newer layout shows no layer names: there a network with depthwise convolutions and
    Keras's own batch norms is taken for one, and its shapes decide.
    """
    parts = {part for name in names for part in name.split("/")}
    has_names = bool(parts & {"stem_conv", "top_conv"})
    return has_names or parts >= {"depthwise_conv2d", "batch_normalization"}


def read(path: Path, arrays: dict[str, Any], spec: NetworkSpec) -> WeightFile:
    """The tensors of a `.h5` or `.weights.h5` file that a model of keras.applications saved.

    Args:
      path: of the file.
      arrays: what `hdf5.read_arrays` read from it.
      spec: of the network that takes the weights, which says what V2's files do not: their
        preprocessing.
    """
    by_class = hdf5.is_by_class(arrays)
    tensors, others = hdf5.layer_tensors(arrays)
    if not by_class:
        tensors = _by_layer(tensors, path)
    # Keras numbers this layer's name through the process that saved the file.
    normalization = {n.partition("/")[2]: n for n in tensors if n.startswith("normalization")}
    mean, variance = ("vars/0", "vars/1") if by_class else ("mean", "variance")
    stem = tensors.get("conv2d/vars/0" if by_class else "stem_conv/kernel")
    configs = hdf5.layer_configurations(path)
    takes_normalized = configs is not None and not any(
        name.startswith(("rescaling", "normalization")) for name in configs
    )
    return WeightFile(
        source=SOURCE,
        path=str(path),
        tensors={**tensors, **others},
        left_out={
            **dict.fromkeys(normalization.values(), _NORMALIZATION),
            **dict.fromkeys(others, _NO_WEIGHT),
        },
        preprocessing=None
        if takes_normalized
        else _stored_preprocessing(
            tensors.get(normalization.get(mean, "")),
            tensors.get(normalization.get(variance, "")),
            None if stem is None else stem.shape[-2],
            spec,
        ),
        padding="same",
        batch_norm_epsilon=1e-3,
        takes_normalized=takes_normalized,
    )


def _by_layer(tensors: dict[str, Any], path: Path) -> dict[str, Any]:
    """From `stem_conv/stem_conv/kernel` to `stem_conv/kernel`."""
    named = {f"{n.partition('/')[0]}/{n.rpartition('/')[2]}": v for n, v in tensors.items()}
    if len(named) < len(tensors):
        raise UsageError(
            f"Weights file {str(path)!r} holds a network inside another model. Load that model, "
            "take the network out of it, and pass it to from_keras_applications."
        )
    return named


def _stored_preprocessing(
    mean: np.ndarray | None, variance: np.ndarray | None, channels: int | None, spec: NetworkSpec
) -> Preprocessing | None:
    if mean is None or variance is None:  # V2: constants, by Keras's rule
        row = matching_row(variable_shapes(spec).values())
        usual = None if row is None else row.preprocessing
        return CENTRED_128 if usual == IMAGENET_STATISTICS and channels != 3 else usual
    deviations = np.asarray(IMAGENET_STATISTICS.std) / 255
    is_published = variance.shape == deviations.shape and np.allclose(variance, deviations)
    std = variance if is_published else np.sqrt(variance)
    return _preprocessing(mean * 255, std * 255)


def origins(spec: NetworkSpec, file: WeightFile) -> Origins:
    """Where each of the network's variables is in a model or a file of keras.applications."""
    by_class = hdf5.is_by_class(file.tensors)
    numbering = hdf5.ClassNumbering()
    # V2's depthwise convolutions have another name than V1's.
    is_v2 = any("dwconv2/" in name for name in file.tensors)
    groups: dict[str, str] = {}
    found: Origins = {}
    for path in variable_shapes(spec):
        layer, variable = path.rsplit("/", 1)
        if layer not in groups:
            groups[layer] = (
                numbering.next_layer(_class_name(layer))
                if by_class
                else _layer_name(spec, layer, is_v2)
            )
        group = groups[layer]
        name = numbering.variable(group, variable) if by_class else f"{group}/{variable}"
        found[path] = Origin(name)
    return found


def _class_name(layer: str) -> str:
    if layer.endswith("_norm"):
        return "batch_normalization"
    if layer.endswith("/depthwise"):
        return "depthwise_conv2d"
    return "dense" if layer == "classifier" else "conv2d"


def _layer_name(spec: NetworkSpec, layer: str, is_v2: bool) -> str:
    """The name there of `stage2_block1/expand`: `block2a_expand_conv`."""
    if layer in _LAYERS:
        return _LAYERS[layer]
    block, _, inner = layer.partition("/")
    stage, repeat = (int(part) for part in block.removeprefix("stage").split("_block"))
    name = _BLOCK_LAYERS[inner]
    stage_spec = spec.stages[stage - 1]
    if stage_spec.block == "fused" and stage_spec.expansion == 1:  # its only convolution
        name = {"fused": "project_conv", "fused_norm": "project_bn"}[inner]
    if inner == "depthwise" and is_v2:
        name = "dwconv2"
    return f"block{stage}{chr(ord('a') + repeat - 1)}_{name}"
