"""Files of PyTorch's tensors: right values, and nothing in them is ever run."""

import argparse
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from effnetv2_tf.errors import UsageError
from effnetv2_tf.weights.torch_files import read_state_dict

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def _random(*shape, dtype="float32"):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


def _assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


@FORMATS
def test_every_type_of_number(torch_format, tmp_path, legacy):
    arrays = OrderedDict(
        float32=_random(3, 4),
        float64=_random(2, dtype="float64"),
        float16=_random(5, 1, dtype="float16"),
        int64=np.array([-1, 2**40]),
        bool=np.array([True, False]),
        scalar=np.array(7),
        empty=np.zeros((0, 3), "float32"),
    )
    path = torch_format.save(tmp_path / "a.pth", arrays, legacy)
    _assert_same(read_state_dict(path).tensors, arrays)


@FORMATS
def test_bfloat16_becomes_float32(torch_format, tmp_path, legacy):
    exact = np.array([1.0, -0.5, 3.140625, 2.0**-100], "float32")
    halves = (exact.view(np.uint32) >> 16).astype(np.uint16)
    storage = torch_format.Storage(halves, "BFloat16Storage")
    contents = {"a": torch_format.Tensor(storage, (2, 2))}
    path = torch_format.save(tmp_path / "a.pth", contents, legacy)
    _assert_same(read_state_dict(path).tensors, {"a": exact.reshape(2, 2)})


@FORMATS
def test_strides_offsets_and_shared_storages(torch_format, tmp_path, legacy):
    numbers = np.arange(24, dtype="float32")
    storage = torch_format.Storage(numbers)
    contents = {
        "transposed": torch_format.Tensor(storage, (6, 4), strides=(1, 6)),
        "slice": torch_format.Tensor(storage, (2, 3), offset=7, strides=(12, 2)),
        "last": torch_format.Tensor(storage, (1,), offset=23),
        "own": np.float32([5, 6]),
    }
    path = torch_format.save(tmp_path / "a.pth", contents, legacy)
    expected = {
        "transposed": numbers.reshape(4, 6).T,
        "slice": np.float32([[7, 9, 11], [19, 21, 23]]),
        "last": np.float32([23]),
        "own": np.float32([5, 6]),
    }
    _assert_same(read_state_dict(path).tensors, expected)


def test_big_endian_archives(torch_format, tmp_path):
    arrays = {"a": _random(3), "b": np.array([1, 2**33])}
    path = torch_format.save(tmp_path / "a.pth", arrays, byte_order=">")
    _assert_same(read_state_dict(path).tensors, arrays)


@FORMATS
def test_parameters_and_the_versions_of_modules(torch_format, tmp_path, legacy):
    """A state dict carries `_metadata` as an attribute."""
    state = OrderedDict(a=torch_format.tensor(_random(2), is_parameter=True))
    state._metadata = OrderedDict({"": {"version": 1}})
    path = torch_format.save(tmp_path / "a.pth", state, legacy)
    _assert_same(read_state_dict(path).tensors, {"a": _random(2)})


def _checkpoint():
    return {
        "epoch": 3,
        "arch": "tf_efficientnet_b0",
        "args": argparse.Namespace(lr=0.1, tags=["a"]),
        "optimizer": {"state": {0: {"step": np.float32(4)}}, "param_groups": []},
        "state_dict": {"module.a": np.float32([1])},
        "state_dict_ema": {"_orig_mod.module.a": np.float32([2]), "n_averaged": np.array(9)},
    }


@FORMATS
def test_checkpoints_of_training_scripts(torch_format, tmp_path, legacy):
    path = torch_format.save(tmp_path / "model_best.pth.tar", _checkpoint(), legacy)
    averages, raw = read_state_dict(path), read_state_dict(path, prefer_averages=False)
    assert (averages.container, raw.container) == ("state_dict_ema", "state_dict")
    _assert_same(averages.tensors, {"a": np.float32([2]), "n_averaged": np.array(9)})
    _assert_same(raw.tensors, {"a": np.float32([1])})


def test_one_name_for_two_tensors_is_refused(torch_format, tmp_path):
    path = torch_format.save(tmp_path / "a.pth", {"a": _random(1), "module.a": _random(1)})
    with pytest.raises(UsageError, match=r"a\.pth.*two tensors are 'a'"):
        read_state_dict(path)


# What must not happen.


class _Touch:
    """Unpickled in full, this makes a file."""

    def __init__(self, path, call=os.mkdir):
        self.path, self.call = path, call

    def __reduce__(self):
        return self.call, (str(self.path),)


@FORMATS
@pytest.mark.parametrize("place", ["value", "state_dict", "beside"])
def test_code_in_a_file_is_not_run(torch_format, tmp_path, legacy, place):
    mark = tmp_path / "mark"
    trap = _Touch(mark)
    contents = {
        "value": {"a": _random(2), "b": trap},
        "state_dict": {"state_dict": trap},
        "beside": {"args": trap, "state_dict": {"a": _random(2)}},
    }[place]
    pickle.loads(pickle.dumps(trap))
    assert mark.is_dir(), "the trap does not work"
    mark.rmdir()
    path = torch_format.save(tmp_path / "a.pth", contents, legacy)
    with pytest.raises(UsageError, match=r"a\.pth.*'(posix|nt)\.mkdir', which could run code"):
        read_state_dict(path)
    assert not mark.exists()


@pytest.mark.parametrize("position", range(4))
def test_code_in_the_other_pickles_of_an_old_file(torch_format, tmp_path, position):
    """The magic number, the version, the system's sizes and the storages' keys."""
    mark = tmp_path / "mark"
    path = torch_format.save(tmp_path / "a.pth", {"a": _random(2)}, legacy=True)
    with path.open("rb") as file:
        pickles = []
        for _ in range(3):
            start = file.tell()
            pickle.load(file)
            pickles.append((start, file.tell()))
    data = path.read_bytes()
    keys = pickle.dumps(["0"], protocol=2)
    pickles.append((data.index(keys), data.index(keys) + len(keys)))
    start, end = pickles[position]
    path.write_bytes(data[:start] + pickle.dumps(_Touch(mark), protocol=2) + data[end:])
    with pytest.raises(UsageError, match=r"mkdir', which could run code"):
        read_state_dict(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval",
        "builtins.getattr",
        "os.system",
        "torch.load",
        "torch._utils._rebuild_device_tensor_from_numpy",
        "collections.OrderedDict.fromkeys",
        "effnetv2_tf.files.write_text",
        "timm.models.efficientnet.EfficientNet",
    ],
)
def test_other_names_are_refused(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    data = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(UsageError, match=f"asks for '{name}'.*model.state_dict()"):
        read_state_dict(_zip_of(tmp_path, data))


def _zip_of(folder, data, **entries):
    path = folder / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize(
    "name", ["torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"]
)
@pytest.mark.parametrize(
    "state",
    [b"}X\x08\x00\x00\x00__call__K\x01s", b"N}X\x05\x00\x00\x00dtypeX\x01\x00\x00\x00Os\x86"],
)
def test_what_a_pickle_gets_cannot_be_changed(torch_format, tmp_path, name, state):
    """The BUILD opcode sets attributes of any object that has some."""
    module, attribute = name.split()
    data = b"\x80\x02" + f"c{module}\n{attribute}\n".encode() + state + b"b."
    with pytest.raises(UsageError):
        read_state_dict(_zip_of(tmp_path, data))
    path = torch_format.save(tmp_path / "b.pth", OrderedDict(a=_random(2)))
    _assert_same(read_state_dict(path).tensors, {"a": _random(2)})


# What is damaged or something else.


@FORMATS
def test_truncated_files(torch_format, tmp_path, legacy):
    path = torch_format.save(tmp_path / "a.pth", {"a": _random(9), "b": _random(3, 3)}, legacy)
    data = path.read_bytes()
    for length in [0, 1, 3, 10, 20, *range(30, len(data) - 1, 13), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UsageError, match=rf"a\.pth.*received {length} bytes.*again"):
            read_state_dict(path)


@pytest.mark.parametrize(
    ("shape", "offset", "strides"),
    [
        ((5,), 0, (1,)),
        ((4,), 1, (1,)),
        ((2, 2), 0, (3, 1)),
        ((10**9,), 0, (0,)),
        ((2,), -1, (1,)),
        ((2,), 2, (-1,)),
        ((2, 2), 0, (1,)),
    ],
)
def test_tensors_that_leave_their_storage(torch_format, tmp_path, shape, offset, strides):
    storage = torch_format.Storage(np.zeros(4, "float32"))
    contents = {"a": torch_format.Tensor(storage, shape, offset, strides)}
    path = torch_format.save(tmp_path / "a.pth", contents)
    with pytest.raises(UsageError, match=r"a\.pth.*a tensor of shape"):
        read_state_dict(path)


def test_an_archive_with_a_short_storage(torch_format, tmp_path):
    path = torch_format.save(tmp_path / "a.pth", {"a": _random(4)})
    with zipfile.ZipFile(path) as archive:
        data = archive.read("archive/data.pkl")
    with pytest.raises(UsageError, match="storage '0' has 12 bytes instead of 16"):
        read_state_dict(_zip_of(tmp_path, data, **{"data/0": bytes(12)}))


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"none\.pth.*no such file"):
        read_state_dict(tmp_path / "none.pth")


def test_a_torchscript_archive(tmp_path):
    path = _zip_of(tmp_path, pickle.dumps({}), **{"constants.pkl": b""})
    with pytest.raises(UsageError, match=r"TorchScript.*state_dict"):
        read_state_dict(path)


def test_files_that_are_something_else(tmp_path):
    npz = io.BytesIO()
    np.savez(npz, a=np.zeros(3))
    others = (
        b"<!DOCTYPE html><html>",
        b"version https://git-lfs",
        npz.getvalue(),
        pickle.dumps({}),
    )
    path = tmp_path / "a.bin"
    for content in others:
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.bin.*expected a state dict of PyTorch"):
            read_state_dict(path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([1, 2], "expected tensors by name, received a list"),
        ({"epoch": 3}, "received a dict of 'epoch'"),
        ({}, "received a dict of nothing"),
        ({"state_dict": {"a": 1}}, "received entry 'a' of type int"),
        ({"a": np.zeros(1), "epoch": 3}, "received entry 'epoch' of type int"),
    ],
)
def test_contents_that_are_no_state_dict(torch_format, tmp_path, contents, message):
    with pytest.raises(UsageError, match=message):
        read_state_dict(torch_format.save(tmp_path / "a.pth", contents))


# The format safetensors.


def _safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_safetensors(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    exact = np.array([1.0, -0.5], "float32")
    data = (
        _random(2, 3).tobytes()
        + np.array([7]).tobytes()
        + (exact.view("u4") >> 16).astype("u2").tobytes()
    )
    header = {
        "__metadata__": {"format": "pt"},
        "module.a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]},
        "c": {"dtype": "BF16", "shape": [2], "data_offsets": [32, 36]},
    }
    path = _safetensors(tmp_path / "model.safetensors", header, data)
    found = read_state_dict(path).tensors
    _assert_same(dict(sorted(found.items())), {"a": _random(2, 3), "b": np.array(7), "c": exact})
    for length in (0, 5, 40, len(path.read_bytes()) - 1):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(UsageError, match=r"model\.safetensors.*expected a state dict"):
            read_state_dict(path)


def test_a_type_of_safetensors_that_no_network_here_has(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    header = {"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    path = _safetensors(tmp_path / "model.safetensors", header, bytes(2))
    with pytest.raises(UsageError, match="tensor 'a' has type F8_E4M3; expected one of F64"):
        read_state_dict(path)


def test_without_the_package_safetensors(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path = _safetensors(tmp_path / "model.safetensors", {}, b"")
    with pytest.raises(UsageError, match=r"pip install 'effnetv2_tf\[torch-weights\]'"):
        read_state_dict(path)
