"""Checkpoint files: whole or refused, never a pickle, never a silent half."""

import logging
import os
import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from effnetv2_tf.errors import UsageError
from effnetv2_tf.files import write_text
from effnetv2_tf.training import checkpoints
from effnetv2_tf.training.checkpoints import (
    CheckpointFolder,
    read_checkpoint,
    write_checkpoint,
)

ARRAYS = {
    "model/stem/kernel": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4),
    "optimizer/0000": np.array(7, np.int64),
    "random/0000": np.array([1, 2], np.uint32),
    "ema/0001": np.array([], np.float32),
}


def _save(folder, *steps):
    for step in steps:
        folder.save(ARRAYS, {"step": step, "rows": [{"loss": step / 10}]})


def test_round_trip(tmp_path):
    metadata = {"step": 7, "rows": [{"loss": 0.1 + 0.2}], "best": None}
    write_checkpoint(tmp_path / "a.npz", ARRAYS, metadata)
    checkpoint = read_checkpoint(tmp_path / "a.npz")
    assert checkpoint.step == 7
    assert dict(checkpoint.metadata) == metadata
    assert list(checkpoint.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert checkpoint.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(checkpoint.arrays[name], array)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_torn_file_gives_way_to_the_one_before(tmp_path, caplog, share):
    folder = CheckpointFolder(tmp_path)
    _save(folder, 3, 6)
    torn = folder.by_step()[-1]
    os.truncate(torn, int(torn.stat().st_size * share))
    with caplog.at_level(logging.WARNING):
        checkpoint = folder.latest()
    assert checkpoint.step == 3
    assert f"{torn.name}: damaged" in caplog.text
    assert "taking the one before" in caplog.text


def test_no_checkpoint_at_all(tmp_path):
    assert CheckpointFolder(tmp_path / "none").latest() is None
    folder = CheckpointFolder(tmp_path)
    _save(folder, 3)
    os.truncate(folder.by_step()[0], 10)
    assert folder.latest() is None


@settings(max_examples=60)
@example(place=0.9485586915735457, mask=64)  # a version that zipfile does not know
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_an_altered_byte_is_noticed_or_harmless(tmp_path_factory, place, mask):
    path = tmp_path_factory.mktemp("altered") / "a.npz"
    write_checkpoint(path, ARRAYS, {"step": 7})
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= mask
    path.write_bytes(data)
    try:
        checkpoint = read_checkpoint(path)
    except UsageError as error:
        assert "damaged, or not a checkpoint" in str(error)
        return
    assert checkpoint.metadata == {"step": 7}
    for name, array in checkpoint.arrays.items():  # a name in the index may have changed
        if name in ARRAYS:
            np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("name: quickstart\n"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps({"step": 3})),
        lambda path: np.save(path.open("wb"), np.zeros(3)),
        lambda path: np.savez(path.open("wb"), weights=np.zeros(3)),
        lambda path: np.savez(path.open("wb"), **{"metadata.json": np.zeros(3, np.uint8)}),
    ],
    ids=["text", "empty", "pickle", "npy", "npz-without-metadata", "npz-bad-metadata"],
)
def test_files_that_are_no_checkpoints(tmp_path, write):
    path = tmp_path / "best.npz"
    write(path)
    with pytest.raises(UsageError, match=r"best\.npz: damaged, or not a checkpoint"):
        read_checkpoint(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"step-9\.npz: no such checkpoint"):
        read_checkpoint(tmp_path / "step-9.npz")


def test_pickled_arrays_are_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([Payload()], object), **{"metadata.json": np.zeros(1, np.uint8)})
    with pytest.raises(UsageError, match="not a checkpoint"):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "best.npz"
    write_checkpoint(path, ARRAYS, {"step": 1})
    old = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.np, "savez", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, ARRAYS, {"step": 2})
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["best.npz"]


def test_text_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "history.csv"
    write_text(path, "epoch\n1\n")
    write_text(path, "épochè\n")
    assert path.read_text(encoding="utf-8") == "épochè\n"
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]


def test_only_the_newest_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep_last=2)
    _save(folder, 3, 6)
    folder.save_best(ARRAYS, {"step": 6})
    _save(folder, 9, 12)
    names = sorted(path.name for path in folder.folder.iterdir())
    assert names == ["best.npz", "step-0000000009.npz", "step-0000000012.npz"]
    assert folder.latest().step == 12
    assert read_checkpoint(folder.best).step == 6


def test_foreign_files_are_left_alone(tmp_path):
    folder = CheckpointFolder(tmp_path, keep_last=1)
    (tmp_path / "step-1.npz").write_text("mine")
    (tmp_path / ".step-0000000005.npz.123.tmp").write_text("torn")
    _save(folder, 3, 6)
    assert [path.name for path in folder.by_step()] == ["step-0000000006.npz"]
    assert (tmp_path / "step-1.npz").read_text() == "mine"
