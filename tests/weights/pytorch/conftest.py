"""A writer of PyTorch's files that needs no PyTorch."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import pytest

_TYPES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclass(eq=False)
class TorchStorage:
    """A flat array, and the name of its type if NumPy's does not tell."""

    numbers: np.ndarray
    kind: str = ""


@dataclass(eq=False)
class TorchTensor:
    """A tensor as torch.save sees it; strides in numbers, None for C order."""

    storage: TorchStorage
    shape: tuple
    offset: int = 0
    strides: tuple | None = None
    is_parameter: bool = False


def tensor(array, **arguments):
    """The array as a contiguous tensor with a storage of its own."""
    return TorchTensor(TorchStorage(np.ravel(array)), np.shape(array), **arguments)


def _fake_torch():
    """Modules with the names that torch.save's pickles refer to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in {*_TYPES.values(), "BFloat16Storage"}:
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    torch._utils = utils
    return {"torch": torch, "torch._utils": utils}


@dataclass
class _Storages:
    """The storages in the order in which a pickle came upon them."""

    found: list = field(default_factory=list)

    def key(self, storage):
        if storage not in self.found:
            self.found.append(storage)
        return str(self.found.index(storage))


class _Pickler(pickle.Pickler):
    def __init__(self, file, storages, legacy):
        super().__init__(file, protocol=2)
        self.storages, self.legacy = storages, legacy

    def persistent_id(self, obj):
        if not isinstance(obj, TorchStorage):
            return None
        kind = getattr(sys.modules["torch"], obj.kind or _TYPES[obj.numbers.dtype.name])
        identity = ("storage", kind, self.storages.key(obj), "cpu", obj.numbers.size)
        return (*identity, None) if self.legacy else identity

    def reducer_override(self, obj):
        if isinstance(obj, np.ndarray | np.generic):
            obj = tensor(obj)
        if not isinstance(obj, TorchTensor):
            return NotImplemented
        utils, hooks = sys.modules["torch._utils"], OrderedDict()
        if obj.is_parameter:
            plain = TorchTensor(obj.storage, obj.shape, obj.offset, obj.strides)
            return utils._rebuild_parameter, (plain, True, hooks)
        strides = obj.strides
        if strides is None:
            strides = tuple(int(np.prod(obj.shape[axis + 1 :])) for axis in range(len(obj.shape)))
        arguments = (obj.storage, obj.offset, tuple(obj.shape), strides, False, hooks)
        return utils._rebuild_tensor_v2, arguments


def _pickled(contents, legacy):
    storages, buffer = _Storages(), io.BytesIO()
    with mock.patch.dict(sys.modules, _fake_torch()):
        _Pickler(buffer, storages, legacy).dump(contents)
    return buffer.getvalue(), storages.found


def _save_zip(path, contents, byte_order):
    data, storages = _pickled(contents, legacy=False)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", {"<": "little", ">": "big"}[byte_order])
        for key, storage in enumerate(storages):
            numbers = storage.numbers.astype(storage.numbers.dtype.newbyteorder(byte_order))
            archive.writestr(f"archive/data/{key}", numbers.tobytes())
        archive.writestr("archive/version", "3\n")


def _save_legacy(path, contents):
    data, storages = _pickled(contents, legacy=True)
    sizes = {"short": 2, "int": 4, "long": 8}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, system):
            pickle.dump(value, file, protocol=2)
        file.write(data)
        pickle.dump([str(key) for key in range(len(storages))], file, protocol=2)
        for storage in storages:
            file.write(storage.numbers.size.to_bytes(8, "little"))
            file.write(storage.numbers.tobytes())


def save(path, contents, legacy=False, byte_order="<"):
    """Writes what torch.save(contents, path) would; arrays become tensors."""
    if legacy:
        _save_legacy(path, contents)
    else:
        _save_zip(path, contents, byte_order)
    return path


@pytest.fixture(scope="session")
def torch_format():
    """`save(path, contents)`, and the `Tensor` and `Storage` that contents may be made of."""
    return types.SimpleNamespace(save=save, tensor=tensor, Tensor=TorchTensor, Storage=TorchStorage)
