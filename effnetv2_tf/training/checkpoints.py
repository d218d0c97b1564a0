"""Checkpoints: one file each, written whole or not at all, checked when read.

A checkpoint is a NumPy `.npz` archive (a zip file, whose entries carry checksums) of plain
arrays by name, so it depends neither on the Keras version nor on the distribution strategy.
"""

from __future__ import annotations

import json
import logging
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnetv2_tf.errors import UsageError
from effnetv2_tf.files import atomic_file

_METADATA = "metadata.json"
# What reading an altered zip file or array may raise; NotImplementedError is a RuntimeError.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
)
_PATTERN = re.compile(r"step-(\d{10})\.npz")


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
      arrays: by name, e.g. `model/stem/kernel`.
      metadata: plain values; `step` is always among them.
      path: of the file.
    """

    arrays: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any]
    path: Path

    @property
    def step(self) -> int:
        """Optimizer steps made."""
        return int(self.metadata["step"])


def write_checkpoint(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Writes a checkpoint file; an interrupted write leaves the old file, or none."""
    text = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    entries: dict[str, Any] = {_METADATA: text, **arrays}
    with atomic_file(path) as file:
        np.savez(file, **entries)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads and verifies a checkpoint file.

    Raises:
      UsageError: if the file is missing, cut short, altered, or no checkpoint.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
        metadata = json.loads(arrays.pop(_METADATA).tobytes())
        return Checkpoint(arrays, metadata, path)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such checkpoint") from error
    except _DAMAGE as error:
        raise UsageError(f"{path}: damaged, or not a checkpoint of this package") from error


class CheckpointFolder:
    """The checkpoints of a run: the newest few by step, and the best.

    Args:
      folder: made if need be.
      keep_last: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.folder = folder
        self.keep_last = keep_last

    def save(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> Path:
        """Writes the checkpoint of `metadata["step"]` and removes those too old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{metadata['step']:010d}.npz"
        write_checkpoint(path, arrays, metadata)
        for old in self.by_step()[: -self.keep_last]:
            old.unlink(missing_ok=True)
        return path

    def save_best(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> Path:
        """Writes the best checkpoint, in place of the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(self.best, arrays, metadata)
        return self.best

    def remove_leftovers(self) -> None:
        """Removes what a killed process had begun to write; for the folder's only user."""
        for leftover in self.folder.glob(".*.npz.*.tmp"):
            leftover.unlink(missing_ok=True)

    @property
    def best(self) -> Path:
        return self.folder / "best.npz"

    def by_step(self) -> list[Path]:
        """The checkpoints by step, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _PATTERN.fullmatch(path.name))

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; warns of those that are not."""
        for path in reversed(self.by_step()):
            try:
                return read_checkpoint(path)
            except UsageError as error:
                logging.getLogger(__name__).warning("%s; taking the one before", error)
        return None
