"""Weights of this package's own networks: `.keras`, `.weights.h5` and older `.h5` files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.specs import NetworkSpec
from effnetv2_tf.weights import hdf5
from effnetv2_tf.weights.mapping import Origin, Origins, WeightFile
from effnetv2_tf.weights.variants import variable_shapes

SOURCE = "effnetv2_tf"
_NO_WEIGHT = "state of the optimizer or of metrics"
_ALIASES = {"swish": "silu"}  # the name in Keras 2
# Names in Keras's layout by classes; a block's inner layers go by their attributes there.
_CLASSES = {"stem": "conv2d", "head": "pointwise_conv2d", "classifier": "dense"}
_BLOCK_CLASSES = {"mbconv": "mb_conv", "fused": "fused_mb_conv"}


def is_own(names: Iterable[str]) -> bool:
    """Whether a file whose arrays have these names holds a network of this package."""
    return any(
        part.startswith(("mb_conv", "fused_mb_conv", "stage1_block1"))
        for name in names
        for part in name.split("/")
    )


def read(path: Path, arrays: dict[str, Any], spec: NetworkSpec) -> WeightFile:
    """The file's tensors; of a whole model also its preprocessing, padding and epsilon.

    Args:
      path: of the file.
      arrays: what `hdf5.read_arrays` read from it.
      spec: of the network that takes the weights.
    """
    tensors, others = hdf5.layer_tensors(arrays)
    if not hdf5.is_by_class(arrays):  # layer/layer/variable: the first is the group
        tensors = {name.partition("/")[2]: array for name, array in tensors.items()}
    file = WeightFile(
        source=SOURCE,
        path=str(path),
        tensors={**tensors, **others},
        left_out=dict.fromkeys(others, _NO_WEIGHT),
    )
    configs = hdf5.layer_configurations(path)
    return file if configs is None else _with_configuration(file, spec, path, configs)


def _with_configuration(
    file: WeightFile, spec: NetworkSpec, path: Path, configs: dict[str, Any]
) -> WeightFile:
    """The file with what its record of layers says beside the tensors."""
    _check_activation(configs.get("stem_norm", {}).get("activation"), spec, path)
    if "normalization" in configs:
        normalization = configs["normalization"]
        preprocessing = replace(
            spec.preprocessing,
            mean=_numbers(normalization["mean"]),
            std=_numbers(normalization["std"]),
        )
        file = replace(file, preprocessing=preprocessing)
    else:
        file = replace(file, takes_normalized=True)
    return replace(
        file,
        padding=configs.get("stage1_block1", {}).get("padding", "same"),
        batch_norm_epsilon=configs.get("stem_norm", {}).get("epsilon"),
    )


def _check_activation(recorded: str | None, spec: NetworkSpec, path: Path) -> None:
    """Refuses the weights of a network with another activation, whose tensors look the same."""
    theirs, ours = (_ALIASES.get(name or "", name) for name in (recorded, spec.activation))
    if recorded is not None and theirs != ours:
        raise UsageError(
            f"{path}: was trained with activation {recorded!r}, but the network has "
            f"{spec.activation!r}: build the network from "
            f"dataclasses.replace(spec, activation={recorded!r})"
        )


def _numbers(value: Any) -> tuple[float, ...]:
    """A tuple as Keras records it: as a list, or with a word on its kind."""
    return tuple(value["items"] if isinstance(value, dict) else value)


def origins(spec: NetworkSpec, file: WeightFile) -> Origins:
    """Where each of the network's variables is in a file that `read` read."""
    paths = list(variable_shapes(spec))
    if not hdf5.is_by_class(file.tensors):
        return {path: Origin(path) for path in paths}
    numbering = hdf5.ClassNumbering()
    groups: dict[str, str] = {}
    found: Origins = {}
    for path in paths:
        layer, variable = path.rsplit("/", 1)
        outer, _, inner = layer.partition("/")
        if outer not in groups:
            groups[outer] = numbering.next_layer(_class_name(spec, outer))
        group = f"{groups[outer]}/{inner}" if inner else groups[outer]
        found[path] = Origin(numbering.variable(group, variable))
    return found


def _class_name(spec: NetworkSpec, layer: str) -> str:
    """The class of `stem`, `head_norm` or `stage3_block2`, as Keras writes it."""
    if layer in _CLASSES:
        return _CLASSES[layer]
    if layer.endswith("_norm"):
        if spec.proxy_normalization:
            return "proxy_norm"
        return "batch_norm" if spec.normalization == "batch" else "group_norm"
    stage = int(layer.partition("_")[0].removeprefix("stage"))
    return _BLOCK_CLASSES[spec.stages[stage - 1].block]
