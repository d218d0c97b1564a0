"""TensorFlow checkpoints of the reference implementations.

EfficientNetV2 comes from github.com/google/automl (efficientnetv2/), V1 and Lite from
github.com/tensorflow/tpu (models/official/efficientnet/). Both name variables alike:

    efficientnetv2-s/stem/conv2d/kernel
    efficientnetv2-s/blocks_0/tpu_batch_normalization/gamma/ExponentialMovingAverage
    efficientnetv2-s/head/dense/bias

Blocks count through the whole network; a block's convolutions and norms are numbered in the
order of the graph. The published results are of the moving averages. Checkpoints of 1000
classes, of ImageNet-21k (classes=21843) and of the latter fine-tuned to 1000 load alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models import scaling
from effnetv2_tf.models.specs import NetworkSpec
from effnetv2_tf.weights.mapping import Origin, Origins, WeightFile
from effnetv2_tf.weights.variants import matching_row, variable_shapes

SOURCE = "google/automl"
_AVERAGE = "/ExponentialMovingAverage"
_STEM = "stem/conv2d/kernel"
_VARIABLES = (
    "kernel",
    "depthwise_kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
)
_OUTER = {
    "stem": "stem/conv2d",
    "stem_norm": "stem/tpu_batch_normalization",
    "head": "head/conv2d",
    "head_norm": "head/tpu_batch_normalization",
    "classifier": "head/dense",
}
_SQUEEZE_EXCITE = {
    "squeeze_excite/reduce": "se/conv2d",
    "squeeze_excite/expand": "se/conv2d_1",
}


class CheckpointTensor:
    """A checkpoint's tensor, read when numpy asks for it."""

    def __init__(self, reader: Any, prefix: str, name: str, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._reader = reader
        self._prefix = prefix
        self._name = name

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        try:
            array = self._reader.get_tensor(self._name)
        except (tf.errors.OpError, RuntimeError, IndexError) as error:
            raise UsageError(
                f"Checkpoint {self._prefix!r}: tensor {self._name!r} cannot be read, the file is "
                f"truncated or damaged: {error}. Copy or download it again."
            ) from error
        return np.asarray(array, dtype)


def find_prefix(path: Path) -> str | None:
    """The checkpoint that `path` means: a prefix, one of its files, or a folder with one.

    Returns:
      The prefix, as in `model.ckpt-109474`; None if there is no checkpoint.

    Raises:
      UsageError: if a folder has several and does not say which is the latest.
    """
    if not path.is_dir():
        prefix = path.with_name(path.name.removesuffix(".index").partition(".data-")[0])
        return str(prefix) if prefix.with_name(prefix.name + ".index").is_file() else None
    latest = tf.train.latest_checkpoint(str(path))
    if latest is not None:
        return latest
    prefixes = sorted(str(index.with_suffix("")) for index in path.glob("*.index"))
    if len(prefixes) > 1:
        raise UsageError(
            f"Folder {str(path)!r} has {len(prefixes)} checkpoints and no file 'checkpoint' that "
            f"names the latest. Pass one of them, such as {prefixes[-1]!r}."
        )
    return prefixes[0] if prefixes else None


def read(prefix: str, spec: NetworkSpec, ema: bool = True) -> WeightFile:
    """Opens a checkpoint; its tensors are read when they are used.

    Args:
      prefix: from `find_prefix`.
      spec: of the network that takes the weights.
      ema: whether moving averages are taken where there are some, or the raw weights.

    Returns:
      The file. A checkpoint does not record its preprocessing: it is the variant's usual one.

    Raises:
      UsageError: if it is damaged, or no checkpoint of the reference implementations.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"Checkpoint {prefix!r} is truncated or damaged: {error}. Copy or download it again."
        ) from error
    tensors = {
        name: CheckpointTensor(reader, prefix, name, tuple(shapes[name])) for name in sorted(shapes)
    }
    scope = _scope(shapes, prefix)
    left_out = {name: reason for name in tensors if (reason := _unused(name, tensors, scope, ema))}
    weights = [tensor.shape for name, tensor in tensors.items() if name not in left_out]
    row = matching_row(weights) or matching_row(variable_shapes(spec).values())
    return WeightFile(
        source=SOURCE,
        path=prefix,
        tensors=tensors,
        left_out=left_out,
        preprocessing=spec.preprocessing if row is None else row.preprocessing,
        padding="same",
        batch_norm_epsilon=1e-3,
    )


def _scope(names: Mapping[str, Any], prefix: str) -> str:
    """The network's name with a slash, that all its variables begin with."""
    stems = [name for name in names if name.endswith(_STEM)]
    if len(stems) == 1:
        return stems[0].removesuffix(_STEM)
    if any("/.ATTRIBUTES/" in name for name in names):
        raise UsageError(
            f"Checkpoint {prefix!r} names objects rather than variables, as Keras's "
            "save_weights and tf.train.Checkpoint do. Expected one of the published checkpoints; "
            "save a Keras model's weights as `.weights.h5`."
        )
    raise UsageError(
        f"Checkpoint {prefix!r} is no EfficientNet of google/automl or tensorflow/tpu: expected "
        f"one variable '.../{_STEM}', found {len(stems)}. Its variables begin with "
        f"{sorted(names)[:3]}."
    )


def _unused(name: str, names: Mapping[str, Any], scope: str, ema: bool) -> str:
    """Why a tensor is none of the network's weights; empty if it is one."""
    if not name.startswith(scope) or name == "global_step":
        return "state of the training, no variable of the network"
    base = name.removesuffix(_AVERAGE)
    is_average = base != name
    variable, _, slot = name.rpartition("/")
    if not is_average and slot not in _VARIABLES and variable.endswith(_VARIABLES):
        return f"the optimizer's {slot}"
    if ema and not is_average and f"{name}{_AVERAGE}" in names:
        return "its moving average is taken (ema=True)"
    if not ema and is_average:
        return "the raw weight is taken (ema=False)"
    return ""


def origins(spec: NetworkSpec, file: WeightFile) -> Origins:
    """Where each of the network's variables is in a checkpoint that `read` opened."""
    scope = _scope(file.tensors, file.path)
    layers = _layer_names(spec)
    found: Origins = {}
    for path in variable_shapes(spec):
        layer, variable = path.rsplit("/", 1)
        if layer.endswith("/depthwise"):
            variable = "depthwise_kernel"
        name = f"{scope}{layers[layer]}/{variable}"
        average = name + _AVERAGE
        takes_average = average in file.tensors and average not in file.left_out
        found[path] = Origin(average if takes_average else name)
    return found


def _layer_names(spec: NetworkSpec) -> dict[str, str]:
    """From our layers' paths to the reference's: `stage1_block1/expand` to `blocks_0/conv2d`."""
    names = dict(_OUTER)
    number = 0
    for stage_number, stage in enumerate(spec.stages, start=1):
        for repeat in range(scaling.scaled_stage(spec, stage)[1]):
            for layer, name in _inner_names(spec, stage_number).items():
                names[f"stage{stage_number}_block{repeat + 1}/{layer}"] = f"blocks_{number}/{name}"
            number += 1
    return names


def _inner_names(spec: NetworkSpec, stage_number: int) -> dict[str, str]:
    """The names of a block's layers, numbered in the order of the graph."""
    stage = spec.stages[stage_number - 1]
    if stage.block == "fused":
        convolutions = ["fused"] if stage.expansion == 1 else ["fused", "project"]
        norms = [f"{name}_norm" for name in convolutions]
    else:
        convolutions = ["project"] if stage.expansion == 1 else ["expand", "project"]
        norms = [f"{name}_norm" for name in (*convolutions[:-1], "depthwise", "project")]
    names = {"depthwise": "depthwise_conv2d", **_SQUEEZE_EXCITE}
    names |= {layer: _numbered("conv2d", i) for i, layer in enumerate(convolutions)}
    names |= {layer: _numbered("tpu_batch_normalization", i) for i, layer in enumerate(norms)}
    return names


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name
