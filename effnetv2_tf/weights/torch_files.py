"""Files of PyTorch's tensors: `.safetensors`, and `.pth`, `.pt` and `.bin` read safely.

No PyTorch is needed, and no code in a file is run: see `pytorch_pickle`.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol

import numpy as np

from effnetv2_tf.errors import UsageError
from effnetv2_tf.weights.pytorch_pickle import (
    BFLOAT16,
    RefusedName,
    StateDictUnpickler,
    Storage,
    TensorRecord,
    decode_numbers,
    unpickle,
)

# Where training scripts (timm's, torchvision's, and many that follow them) keep state dicts.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict")
_RAW_WEIGHTS = ("state_dict", "model", "model_state_dict")
# Prefixes of wrappers: DataParallel, DistributedDataParallel, AveragedModel; torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file before PyTorch 1.6
_LEGACY_VERSION = 1001
# What a malformed pickle or archive may raise; NotImplementedError is a RuntimeError.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
_SAFETENSORS_TYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": BFLOAT16,
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


@dataclass(frozen=True)
class StateDict:
    """A network's tensors as PyTorch lays them out.

    Attributes:
      tensors: by name, without the prefixes of wrappers; bfloat16 as float32.
      container: the checkpoint's entry that held them, `"state_dict_ema"`; empty if the file
        holds nothing else.
      architecture: the name of the network as timm's training script notes it beside the state
        dict; empty if there is none.
    """

    tensors: dict[str, np.ndarray]
    container: str = ""
    architecture: str = ""


def read_state_dict(path: str | Path, prefer_averages: bool = True) -> StateDict:
    """Reads the state dict of a file.

    Args:
      path: a `.safetensors` file, or one that `torch.save` wrote in either of its formats: a
        state dict, or a checkpoint with one under a usual name.
      prefer_averages: whether a checkpoint's moving averages (`state_dict_ema`, `model_ema`)
        are read rather than the raw weights, where it has both.

    Raises:
      UsageError: if there is no such file, it is no such file, it is damaged, or it asks for
        code to be run.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"Weights file {str(path)!r}: there is no such file.")
    if is_safetensors(path):
        return StateDict(_without_wrappers(path, _read_safetensors(path)))
    try:
        with path.open("rb") as file:
            archive = _open_archive(file)
            container, records = _find_state_dict(path, archive.contents, prefer_averages)
            architecture = archive.contents.get("arch") if container else None
            tensors = _read_tensors(archive, records)
    except RefusedName as error:
        raise UsageError(
            f"Weights file {str(path)!r}: expected tensors by name, received a pickle that asks "
            f"for {str(error)!r}, which could run code. Save the state dict alone, "
            "torch.save(model.state_dict(), path), or as .safetensors."
        ) from error
    except UsageError:
        raise
    except _DAMAGE as error:
        _refuse_damaged(path, error)
    name = architecture if isinstance(architecture, str) else ""
    return StateDict(_without_wrappers(path, tensors), container, name)


class _Archive(Protocol):
    contents: Any

    def numbers(self, storage: Storage) -> np.ndarray:
        """All numbers of a storage."""


def _open_archive(file: BinaryIO) -> _Archive:
    is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    file.seek(0)
    return _ZipArchive(file) if is_zip else _LegacyArchive(file)


class _ZipArchive:
    """What torch.save writes since 1.6: a pickle and an entry for every storage."""

    def __init__(self, file: BinaryIO) -> None:
        self._archive = zipfile.ZipFile(file)
        names = self._archive.namelist()
        pickles = [name for name in names if f"/{name}".endswith("/data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("a zip archive, but torch.save did not write it")
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}constants.pkl" in names:
            raise pickle.UnpicklingError("a TorchScript archive; save model.state_dict() instead")
        self.contents = unpickle(io.BytesIO(self._archive.read(pickles[0])))
        self._byte_order = "<"
        if f"{self._folder}byteorder" in names:
            written = self._archive.read(f"{self._folder}byteorder")
            self._byte_order = {b"little": "<", b"big": ">"}[written]

    def numbers(self, storage: Storage) -> np.ndarray:
        entry = self._archive.getinfo(f"{self._folder}data/{storage.key}")
        if entry.file_size != storage.num_bytes:
            raise pickle.UnpicklingError(
                f"storage {storage.key!r} has {entry.file_size} bytes instead of "
                f"{storage.num_bytes}"
            )
        return decode_numbers(self._archive.read(entry), storage.dtype, self._byte_order)


class _LegacyArchive:
    """What torch.save wrote before 1.6: pickles, then the storages one after the other."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        if unpickle(file) != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("a pickle, but torch.save did not write it")
        version = unpickle(file)
        if version != _LEGACY_VERSION:
            raise pickle.UnpicklingError(f"version {version!r} of the format, not 1001")
        unpickle(file)  # sizes of C's types on the machine that wrote it
        unpickler = StateDictUnpickler(file)
        self.contents = unpickler.load()
        self._starts: dict[str, int] = {}
        length = os.fstat(file.fileno()).st_size
        for key in unpickle(file):
            storage = unpickler.storages[key]
            size = int.from_bytes(file.read(8), "little", signed=True)
            self._starts[key] = file.tell()
            if size != storage.size or file.tell() + storage.num_bytes > length:
                raise EOFError(f"it ends before storage {key!r} of {storage.num_bytes} bytes")
            file.seek(storage.num_bytes, os.SEEK_CUR)

    def numbers(self, storage: Storage) -> np.ndarray:
        self._file.seek(self._starts[storage.key])
        return decode_numbers(self._file.read(storage.num_bytes), storage.dtype)


def _find_state_dict(
    path: Path, contents: Any, prefer_averages: bool
) -> tuple[str, dict[str, TensorRecord]]:
    """The name of the entry with the state dict, and the state dict."""
    if not isinstance(contents, Mapping):
        raise UsageError(
            f"Weights file {str(path)!r}: expected tensors by name, received a "
            f"{type(contents).__name__}."
        )
    order = (*_AVERAGES, *_RAW_WEIGHTS) if prefer_averages else (*_RAW_WEIGHTS, *_AVERAGES)
    for container in order:
        if isinstance(contents.get(container), Mapping):
            return container, _checked_records(path, contents[container])
    if not any(isinstance(value, TensorRecord) for value in contents.values()):
        received = ", ".join(map(repr, contents)) or "nothing"
        raise UsageError(
            f"Weights file {str(path)!r}: expected tensors by name, or a checkpoint with such "
            f"under one of {', '.join(map(repr, order))}; received a dict of {received}."
        )
    return "", _checked_records(path, contents)


def _checked_records(path: Path, contents: Mapping[Any, Any]) -> dict[str, TensorRecord]:
    for name, value in contents.items():
        if not isinstance(name, str) or not isinstance(value, TensorRecord):
            raise UsageError(
                f"Weights file {str(path)!r}: expected tensors by name, received entry "
                f"{name!r} of type {type(value).__name__}. Save model.state_dict() alone."
            )
    return dict(contents)


def _read_tensors(archive: _Archive, records: dict[str, TensorRecord]) -> dict[str, np.ndarray]:
    """The records' values; tensors that share a storage are read together."""
    tensors: dict[str, np.ndarray] = {}
    by_storage: dict[str, list[str]] = {}
    for name, record in records.items():
        by_storage.setdefault(record.storage.key, []).append(name)
    for names in by_storage.values():
        numbers = archive.numbers(records[names[0]].storage)
        tensors |= {name: records[name].cut_from(numbers) for name in names}
    return {name: tensors[name] for name in records}


def _without_wrappers(path: Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same by names without the prefixes that wrappers of a module put before them."""
    stripped: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        short = name
        while prefix := next((p for p in _WRAPPERS if short.startswith(p)), ""):
            short = short.removeprefix(prefix)
        if short in stripped:
            raise UsageError(
                f"Weights file {str(path)!r}: two tensors are {short!r} once the prefixes "
                f"{' and '.join(map(repr, _WRAPPERS))} are removed."
            )
        stripped[short] = tensor
    return stripped


def is_safetensors(path: Path) -> bool:
    """By the suffix, or the content: the header's length in 8 bytes, then JSON."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as error:
        raise UsageError(
            f"Weights file {str(path)!r}: the package safetensors, which reads it, is not "
            "installed. Run pip install 'effnetv2_tf[torch-weights]'."
        ) from error
    try:
        entries = deserialize(path.read_bytes())
    except SafetensorError as error:
        _refuse_damaged(path, error)
    tensors = {}
    for name, entry in sorted(entries):
        if entry["dtype"] not in _SAFETENSORS_TYPES:
            raise UsageError(
                f"Weights file {str(path)!r}: tensor {name!r} has type {entry['dtype']}; "
                f"expected one of {', '.join(_SAFETENSORS_TYPES)}."
            )
        numbers = decode_numbers(bytes(entry["data"]), _SAFETENSORS_TYPES[entry["dtype"]])
        tensors[name] = numbers.reshape(entry["shape"])
    return tensors


def _refuse_damaged(path: Path, error: BaseException) -> NoReturn:
    with path.open("rb") as file:
        beginning = file.read(24)
    raise UsageError(
        f"Weights file {str(path)!r}: expected a state dict of PyTorch, received "
        f"{path.stat().st_size} bytes that begin with {beginning!r}: {error or 'cut short'}. "
        "Download or save it again if it is one."
    ) from error
