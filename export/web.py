"""A folder with a page that classifies images in the browser, on the device that shows it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.files import atomic_folder
from effnetv2_tf.export.loading import Exportable
from effnetv2_tf.export.onnx import DEFAULT_OPSET, export_onnx
from effnetv2_tf.export.web_runtime import PACKAGE, WebRuntime

MODEL_FILE = "model.onnx"
METADATA_FILE = "metadata.json"
_RUNTIME_FOLDER = "onnxruntime"
_PAGE = resources.files("effnetv2_tf.export") / "web_page"


def export_web(
    exportable: Exportable,
    path: str | Path,
    runtime: WebRuntime,
    *,
    opset: int = DEFAULT_OPSET,
    image_size: int | None = None,
) -> Path:
    """Writes the folder `path`: page, network, labels and preparation, and onnxruntime-web.

    The network is a float32 ONNX file that takes one image of a fixed size and normalises
    pixels itself; `metadata.json` has what `Exportable.metadata` has. All of it must come from
    one web server; nothing is fetched from elsewhere. An older page in `path` is replaced.

    Args:
      exportable: a classifier of images with one or three channels.
      path: of the folder.
      runtime: see `load_runtime`.
      opset: of the ONNX standard.
      image_size: side in pixels; None for the evaluation size.

    Returns:
      The path.

    Raises:
      UsageError: if the network cannot be shown so, or `path` holds something else.
      TrainingFailure: if the network cannot be converted.
      OSError: if the folder cannot be written.
    """
    path = Path(path)
    check_exportable(exportable)
    check_target(path)
    size = image_size or exportable.preparation.image_size
    exportable = replace(exportable, preparation=exportable.preparation.at_size(size))
    metadata = exportable.metadata()
    metadata["runtime"] = f"{PACKAGE} {runtime.version}"
    with tempfile.TemporaryDirectory() as scratch:
        # Before the older page goes, since it takes a while.
        model = Path(scratch) / MODEL_FILE
        export_onnx(exportable, model, opset=opset, batch_size=1, image_size=size)
        with _set_aside(path), atomic_folder(path) as folder:
            shutil.copyfile(model, folder / MODEL_FILE)
            text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
            (folder / METADATA_FILE).write_text(text, encoding="utf-8")
            for file in _PAGE.iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
            (folder / _RUNTIME_FOLDER).mkdir()
            for name, content in runtime.files.items():
                (folder / _RUNTIME_FOLDER / name).write_bytes(content)
    return path


def check_exportable(exportable: Exportable) -> None:
    """Raises a UsageError unless there are classes to show, of images that browsers have."""
    if not exportable.graph.is_classifier:
        raise UsageError(
            "--formats=web: expected a network that ends with a probability for each class, "
            f"received one whose outputs are {exportable.graph.output_name}"
        )
    if exportable.graph.channels not in (1, 3):
        raise UsageError(
            "--formats=web: expected a network for images with 1 or 3 channels, "
            f"received {exportable.graph.channels}"
        )


def check_target(path: Path) -> None:
    """Raises a UsageError if `path` is something else than a page that may be replaced."""
    if path.exists() and not (path / METADATA_FILE).is_file():
        raise UsageError(
            f"--output_dir: {path} exists and is no exported page; move it away, or choose "
            "another folder"
        )


@contextlib.contextmanager
def _set_aside(path: Path) -> Iterator[None]:
    """Renames an older page while a new one is put in place; brings it back if that fails."""
    if not path.exists():
        yield
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.replace(path, aside)
    try:
        yield
    except BaseException:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside)
