"""PyTorch's pickles without PyTorch, and without running what is pickled.

A pickle is a program: whoever loads one in full runs what its writer wanted. The unpickler
here knows the few names that a state dict consists of and refuses every other one, so that
nothing but the functions of this module is ever called. Tensors come out as records of where
their numbers lie; `torch_files` reads them.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from typing import Any, BinaryIO, NamedTuple

import numpy as np

# Codes of NumPy's types, byte order left out; it has none for this one.
BFLOAT16 = "bfloat16"
_STORAGE_TYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class RefusedName(pickle.UnpicklingError):
    """The pickle asks for something that no state dict needs."""


# The objects a pickle can get hold of are tuples and slotted objects, because it can also set
# attributes of whatever has any.
class StorageType(NamedTuple):
    """The type of a storage's numbers, a NumPy code or `BFLOAT16`."""

    dtype: str


class Storage(NamedTuple):
    """A run of numbers in the file that tensors are cut from.

    Attributes:
      key: its name in the file.
      dtype: a NumPy code or `BFLOAT16`.
      size: how many numbers.
    """

    key: str
    dtype: str
    size: int

    @property
    def num_bytes(self) -> int:
        """Length in the file."""
        return self.size * (2 if self.dtype == BFLOAT16 else np.dtype(self.dtype).itemsize)


class TensorRecord(NamedTuple):
    """A tensor: which numbers of its storage, in which order.

    Attributes:
      storage: that holds its numbers.
      offset: of the first one.
      shape: of the tensor.
      strides: from one element to the next along each axis, in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def cut_from(self, numbers: np.ndarray) -> np.ndarray:
        """The tensor as an array of its own, given all numbers of its storage."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, numbers.dtype)
        strides = [stride * numbers.itemsize for stride in self.strides]
        return np.array(
            np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides), order="C"
        )


class _RebuildTensor:
    """Stands for torch._utils._rebuild_tensor and its second version."""

    __slots__ = ()

    def __call__(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *_of_autograd: Any
    ) -> TensorRecord:
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError(f"a tensor without a storage: {storage!r}")
        sizes = (offset, *shape, *strides)
        if len(shape) != len(strides) or not all(isinstance(n, int) and n >= 0 for n in sizes):
            raise pickle.UnpicklingError(f"a tensor of shape {shape!r} and strides {strides!r}")
        count = math.prod(shape)
        steps = zip(shape, strides, strict=True)
        last = offset + sum((side - 1) * stride for side, stride in steps)
        # More elements than numbers would let a small file fill the memory.
        if count and (last >= storage.size or count > storage.size):
            raise pickle.UnpicklingError(
                f"a tensor of shape {tuple(shape)} that reaches past its storage of "
                f"{storage.size} numbers"
            )
        return TensorRecord(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter:
    """Stands for torch._utils._rebuild_parameter: a parameter is its tensor."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_of_autograd: Any) -> Any:
        return tensor


class StateDictUnpickler(pickle.Unpickler):
    """Reads state dicts and checkpoints of plain values; refuses everything else by name.

    Attributes:
      storages: all that the pickle spoke of, by key.

    Args:
      file: positioned at a pickle; afterwards at what follows it.

    Raises:
      RefusedName: if the pickle asks for anything else than tensors, parameters, ordered
        dicts, and argparse's namespace, which comes back empty of methods.
      pickle.UnpicklingError: if it is malformed; so may be the cause of many other errors.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
            ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
            ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
            # Training scripts keep their flags beside the weights. A class for this file alone,
            # since a pickle may set attributes of it.
            ("argparse", "Namespace"): type("Namespace", (), {}),
        }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the pickle."""
        if module in ("torch", "torch.cuda") and name in _STORAGE_TYPES:
            return StorageType(_STORAGE_TYPES[name])
        if (module, name) not in self._known:
            raise RefusedName(f"{module}.{name}")
        return self._known[module, name]

    def persistent_load(self, identity: Any) -> Storage:
        """The storage that a tensor is cut from."""
        kind, storage_type, key, _device, size, *views = identity
        well_formed = (
            kind == "storage"
            and isinstance(storage_type, StorageType)
            and isinstance(key, str)
            and isinstance(size, int)
            and size >= 0
            and views in ([], [None])  # views of storages ended with PyTorch 0.3
        )
        if not well_formed:
            raise pickle.UnpicklingError(f"an unknown kind of storage: {identity!r}")
        storage = Storage(key, storage_type.dtype, size)
        return self.storages.setdefault(key, storage)


def unpickle(file: BinaryIO) -> Any:
    """The next pickle of a file; see `StateDictUnpickler`."""
    return StateDictUnpickler(file).load()


def decode_numbers(data: bytes, dtype: str, byte_order: str = "<") -> np.ndarray:
    """Bytes to a flat array in the machine's byte order.

    Args:
      data: the bytes.
      dtype: a NumPy code or `BFLOAT16`; the latter becomes float32, without loss.
      byte_order: of the data: `"<"` or `">"`.
    """
    if dtype == BFLOAT16:
        upper_halves = np.frombuffer(data, f"{byte_order}u2").astype(np.uint32)
        return (upper_halves << 16).view(np.float32)
    return np.frombuffer(data, f"{byte_order}{dtype}").astype(dtype, copy=False)
