"""Weights of this package's own networks: `.keras`, `.weights.h5` and older `.h5` files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    if configs is not None:
        return _with_configuration(file, spec, path, configs)
    return replace(file, notes=_note_on_norms(spec, path))


def _note_on_norms(spec: NetworkSpec, path: Path) -> tuple[str, ...]:
    """Of a file without configurations: what it cannot tell."""
    if spec.normalization == "batch":
        return ()
    groups = f" of {spec.normalization_groups} groups" if spec.normalization == "group" else ""
    return (
        f"{path} does not say whether it is of a network with group or layer norms, whose tensors "
        f"look the same; it is taken for {spec.normalization!r}{groups}. A .keras file says it.",
    )


def _with_configuration(
    file: WeightFile, spec: NetworkSpec, path: Path, configs: dict[str, Any]
) -> WeightFile:
    """The file with what its record of layers says beside the tensors."""
    _check_same_function(configs, spec, path)
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


def _check_same_function(configs: dict[str, Any], spec: NetworkSpec, path: Path) -> None:
    """Refuses the weights of a network that does otherwise with tensors that look the same."""
    for layer, key, argument, ours in _decisive_settings(spec):
        theirs = configs.get(layer, {}).get(key, ours)
        if key == "strides" and not isinstance(theirs, int):
            theirs = int(_numbers(theirs)[0])
        if _plain(theirs) != _plain(ours):
            given = "..." if argument == "stages" else repr(theirs)
            raise UsageError(
                f"{path}: was trained with {key} {theirs!r}, but the network has {ours!r} in "
                f"{layer!r}: build the network from dataclasses.replace(spec, {argument}={given})"
            )


def _decisive_settings(spec: NetworkSpec) -> Iterator[tuple[str, str, str, Any]]:
    """(layer, key of its record, field of the spec, value) of what no tensor's shape shows."""
    yield "stem", "strides", "stem_stride", spec.stem_stride
    yield "stem_norm", "activation", "activation", spec.activation
    norms = {}
    if spec.normalization != "batch":  # whose epsilon is set on the model
        norms = {
            "normalization": spec.normalization,
            "normalization_groups": spec.normalization_groups,
            "batch_norm_epsilon": spec.batch_norm_epsilon,
        }
    for number, stage in enumerate(spec.stages, start=1):
        layer = f"stage{number}_block1"
        yield layer, "stride", "stages", stage.stride
        for key, value in norms.items():
            yield layer, key, key, value


def _plain(value: Any) -> Any:
    """What may be compared: names as Keras 3 has them."""
    return _ALIASES.get(value, value) if isinstance(value, str) else value


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
