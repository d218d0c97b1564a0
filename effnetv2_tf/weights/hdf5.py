"""HDF5 weights as Keras writes them: `.h5` by layer names, `.weights.h5` by layer classes.

The older layout has a group for every layer, by its name, with the names of its variables:
`stem_conv/stem_conv/kernel:0`. The newer one, also inside `.keras` files, numbers the layers
of each class, and the variables of each layer: `layers/conv2d_3/vars/0`.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from effnetv2_tf.errors import UsageError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
WEIGHTS_IN_ARCHIVE = "model.weights.h5"
# Where the newer layout keeps a model's layers; Keras 2.13 and before called it otherwise.
_LAYER_CONTAINERS = ("layers/", "_layer_checkpoint_dependencies/")
_VARIABLE_ORDER = {
    "kernel": 0,
    "bias": 1,
    "gamma": 0,
    "beta": 1,
    "moving_mean": 2,
    "moving_variance": 3,
    "proxy_gamma": 2,
    "proxy_beta": 3,
}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an HDF5 file, or of the one in a `.keras` file, by their place in it.

    Raises:
      UsageError: if the file is damaged.
    """
    arrays: dict[str, np.ndarray] = {}

    def keep(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            array = np.asarray(node[()])
            # HDF5 has no bfloat16: Keras writes its two bytes as such.
            is_bfloat16 = array.dtype.kind == "V" and array.dtype.itemsize == 2
            arrays[name] = array.view(tf.bfloat16.as_numpy_dtype) if is_bfloat16 else array

    with _damage_reported(path), _open(path) as file:
        file.visititems(keep)
    return arrays


@contextlib.contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Raises a UsageError for what a damaged file leads to."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"Weights file {str(path)!r} is truncated or damaged: {error}. "
            "Copy or download it again."
        ) from error


def _open(path: Path) -> h5py.File:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return h5py.File(io.BytesIO(archive.read(WEIGHTS_IN_ARCHIVE)), "r")
    return h5py.File(path, "r")


def layer_configurations(path: Path) -> dict[str, Any] | None:
    """The layers' configurations by name, of a file that holds a whole model; else None.

    Raises:
      UsageError: if the file is damaged.
    """
    with _damage_reported(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                text = archive.read("config.json")
        else:
            with h5py.File(path, "r") as file:
                text = file.attrs.get("model_config")
        layers = None if text is None else json.loads(text).get("config", {}).get("layers")
    return None if layers is None else {x["config"]["name"]: x["config"] for x in layers}


def is_by_class(names: Iterable[str]) -> bool:
    """Whether arrays with these names are in the newer layout."""
    return any("/vars/" in name for name in names)


def inner_model(names: Iterable[str]) -> str | None:
    """What the newer layout calls a model within the model of these arrays, if there is one."""
    containers = "|".join(_LAYER_CONTAINERS)
    matches = (re.match(rf"(?:{containers})(\w+)/(?:{containers})", name) for name in names)
    return next((match[1] for match in matches if match), None)


def layer_tensors(
    arrays: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Separates a network's tensors from the rest of the file.

    Returns:
      The layers' tensors, named `layer_or_class/.../variable` in either layout, and the
      others under their full names: state of the optimizer and of metrics.
    """
    by_class = is_by_class(arrays)
    tensors, others = {}, {}
    for name, array in arrays.items():
        inner = name.removeprefix("model_weights/")
        if by_class:
            container = next((c for c in _LAYER_CONTAINERS if name.startswith(c)), None)
            if container is None:
                others[name] = array
            else:
                tensors[name.removeprefix(container)] = array
        elif inner.startswith(("optimizer_weights/", "top_level_model_weights/")):
            others[name] = array
        else:
            tensors[_without_suffix(inner)] = array
    return tensors, others


def _without_suffix(name: str) -> str:
    """One name under every Keras: no `:0`, and `kernel` for a depthwise convolution's."""
    name = name.removesuffix(":0")
    return name.replace("/depthwise_kernel", "/kernel")


class ClassNumbering:
    """Names of variables in the newer layout, for layers asked for in the model's order."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def next_layer(self, class_name: str) -> str:
        """The group of the next layer of a class: `conv2d`, `conv2d_1`, ..."""
        number = self._seen.get(class_name, 0)
        self._seen[class_name] = number + 1
        return f"{class_name}_{number}" if number else class_name

    @staticmethod
    def variable(layer: str, variable: str) -> str:
        """The name of a layer's `kernel`, `gamma` ..."""
        return f"{layer}/vars/{_VARIABLE_ORDER[variable]}"
