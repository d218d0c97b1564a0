"""Checks of what is asked for that need no TensorFlow, so that typing errors show at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effnetv2_tf.errors import UsageError, suggestion
from effnetv2_tf.files import no_file

SAVEDMODEL, COMPILED, TFLITE, ONNX, WEB = "savedmodel", "compiled", "tflite", "onnx", "web"
FORMATS = (SAVEDMODEL, COMPILED, TFLITE, ONNX, WEB)
DEFAULT_FORMATS = (SAVEDMODEL, TFLITE, ONNX)  # COMPILED needs a compiler, WEB npm


def check_formats(formats: Sequence[str]) -> None:
    """Raises a UsageError unless all formats are known, and there is one."""
    for name in formats:
        if name not in FORMATS:
            hint = suggestion(name, FORMATS) or f"; known: {', '.join(FORMATS)}"
            raise UsageError(f"--formats: unknown format {name!r}{hint}")
    if not formats:
        raise UsageError(f"--formats: expected at least one of {', '.join(FORMATS)}")


def check_run_folder(model_dir: Path) -> None:
    """Raises a UsageError unless the folder is one of a training run."""
    if not (model_dir / "recipe.yaml").is_file():
        raise UsageError(
            f"--model_dir: expected the folder of a training run, {model_dir} "
            f"{'has no recipe.yaml' if model_dir.is_dir() else 'does not exist'}"
        )


def check_keras_file(path: Path) -> None:
    """Raises a UsageError unless there is such a file."""
    if not path.is_file():
        hint = f"; --model_dir={path} exports the run" if (path / "recipe.yaml").is_file() else ""
        raise UsageError(f"--keras_file: expected a .keras file, {no_file(path)}{hint}")
