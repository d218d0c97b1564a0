"""Exports of trained networks: SavedModel, TFLite, ONNX, a web page, each checked where it runs.

`python -m effnetv2_tf.export` from the command line; from Python:

    from effnetv2_tf.export import export, load_model_dir
    report = export(load_model_dir("runs/mine"), "exported", ["savedmodel", "tflite", "onnx"])
    report = export(model, "exported")  # any Keras model of images

The names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effnetv2_tf.export.deploy_graph import DeployGraph, build_deploy_graph
    from effnetv2_tf.export.exporter import ExportOptions, export
    from effnetv2_tf.export.images import FolderImages, ImagePreparation
    from effnetv2_tf.export.loading import (
        Exportable,
        load_keras_file,
        load_model_dir,
        wrap_model,
    )
    from effnetv2_tf.export.onnx import export_onnx
    from effnetv2_tf.export.savedmodel import export_savedmodel
    from effnetv2_tf.export.tflite import export_tflite
    from effnetv2_tf.export.web import export_web
    from effnetv2_tf.export.web_runtime import load_runtime

_HOMES = {
    "deploy_graph": ("DeployGraph", "build_deploy_graph"),
    "exporter": ("ExportOptions", "export"),
    "images": ("FolderImages", "ImagePreparation"),
    "loading": ("Exportable", "load_keras_file", "load_model_dir", "wrap_model"),
    "onnx": ("export_onnx",),
    "savedmodel": ("export_savedmodel",),
    "tflite": ("export_tflite",),
    "web": ("export_web",),
    "web_runtime": ("load_runtime",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DeployGraph",
    "ExportOptions",
    "Exportable",
    "FolderImages",
    "ImagePreparation",
    "build_deploy_graph",
    "export",
    "export_onnx",
    "export_savedmodel",
    "export_tflite",
    "export_web",
    "load_keras_file",
    "load_model_dir",
    "load_runtime",
    "wrap_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
