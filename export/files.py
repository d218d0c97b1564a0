"""Writing artefacts whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.files import atomic_file

LABELS_FILE = "labels.txt"


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that gets its name when the block ends well, and is removed otherwise.

    Raises:
      UsageError: if `path` exists.
      OSError: if the folder cannot be written, also where TensorFlow writes into it.
    """
    if path.exists():
        raise UsageError(f"{path}: exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        with tensorflow_errors_as_os_errors(path):
            yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> Path:
    """Writes a file whole or not at all, in place of an older one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(content)
    return path


def folder_size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def labels_text(labels: tuple[str, ...]) -> str:
    """One label a line; line breaks inside a label become spaces."""
    return "".join(" ".join(label.splitlines()) + "\n" for label in labels)


@contextlib.contextmanager
def tensorflow_errors_as_os_errors(path: Path) -> Iterator[None]:
    """A full disk or a missing permission is the same error whoever noticed it."""
    failures = (
        tf.errors.ResourceExhaustedError,
        tf.errors.PermissionDeniedError,
        tf.errors.FailedPreconditionError,
        tf.errors.UnknownError,
        tf.errors.UnavailableError,
    )
    try:
        yield
    except failures as error:
        raise OSError(f"cannot write {path}: {error.message}") from error
