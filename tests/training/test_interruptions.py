"""SIGTERM, kills at random moments, two runs in one folder, a disk that is full."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from effnetv2_tf.errors import RunStopped
from effnetv2_tf.training.checkpoints import CheckpointFolder, read_checkpoint
from effnetv2_tf.training.interruptions import StopOnSignal

RECIPE = """
name: interruptions
seed: 5
model:
  name: efficientnetv2-b0
  stem_filters: 8
  head_filters: 16
  stages: [{block: fused, stride: 1, expansion: 1, filters: 8, repeats: 1}]
data:
  source: digits
  augmentation: {crop: pad, flip: true, policy: none}
  eval_crop: none
training: {epochs: 4, batch_size: 256, ema_decay: 0.9}
progressive: {stages: 2, image_size: [8, 12], dropout_rate: [0.1, 0.2]}
learning_rate: {per_256: 0.02, warmup_epochs: 1}
checkpoints: {every_steps: 1, keep_last: 2}
"""
STEPS_PER_EPOCH = 1437 // 256

# Sends itself a signal at a chosen moment: kind, "train" or "test", and the how-many-th batch.
PROGRAM = """
import os, resource, signal, sys
import keras
from effnetv2_tf import programs
from effnetv2_tf.training import checkpoints
from effnetv2_tf.training.recipe_files import load_recipe
from effnetv2_tf.training.trainer import Trainer

# Shells have what they start in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
recipe, folder, kind, number, where, moment = sys.argv[1:]
sys.argv = sys.argv[:1]
seen = {"train": 0, "test": 0, "write": 0}

def reached(what):
    seen[what] += 1
    if what == where and seen[what] == int(moment):
        for _ in range(2 if kind == "twice" else 1):
            os.kill(os.getpid(), int(number))

class Moments(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        reached("train")
    def on_test_batch_begin(self, batch, logs=None):
        reached("test")

savez = checkpoints.np.savez
def torn_savez(file, **entries):
    half = dict(list(entries.items())[: len(entries) // 2])
    if where == "write" and seen["write"] + 1 == int(moment):
        savez(file, **half)
        file.flush()
    reached("write")
    savez(file, **entries)
checkpoints.np.savez = torn_savez

def main():
    if kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    trainer = Trainer(load_recipe(recipe), folder, verbose=0)
    trainer.callbacks.insert(0, Moments())
    trainer.run()
    print("finished")

programs.run(main)
"""


def _train(folder, kind="plain", number=0, where="none", moment=0):
    recipe = folder.parent / "recipe.yaml"
    recipe.write_text(RECIPE)
    arguments = [str(recipe), str(folder), kind, str(int(number)), where, str(moment)]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )


def _succeed(*arguments):
    return _ended(0, *arguments)


def _ended(code, *arguments):
    done = _train(*arguments)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout


def _last(folder):
    return CheckpointFolder(folder / "checkpoints").latest()


def _assert_same_end(folder, reference):
    ours, theirs = _last(folder), _last(reference)
    assert ours.step == theirs.step == 4 * STEPS_PER_EPOCH
    different = [
        name
        for name, array in ours.arrays.items()
        if not np.array_equal(array, theirs.arrays[name])
    ]
    assert not different
    times = {"train_seconds", "images_per_second"}
    rows = [
        [{k: v for k, v in row.items() if k not in times} for row in run.metadata["rows"]]
        for run in (ours, theirs)
    ]
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert "finished" in _succeed(folder)
    return folder


@pytest.mark.parametrize(
    ("where", "moment", "step", "resumes"),
    [
        ("train", 8, 8, "Going on at step 8: epoch 2, stage 1"),
        ("test", 1, 5, "Going on at step 5: evaluation of epoch 1"),
        pytest.param(  # an epoch's last step
            "train", 10, 10, "Going on at step 10: evaluation of epoch 2", marks=pytest.mark.slow
        ),
        pytest.param(  # the last batch of all
            "test", 8, 20, "Going on at step 20: evaluation of epoch 4", marks=pytest.mark.slow
        ),
    ],
)
def test_sigterm(uninterrupted, tmp_path, where, moment, step, resumes):
    folder = tmp_path / "run"
    output = _ended(143, folder, "signal", signal.SIGTERM, where, moment)
    assert f"Stopped by SIGTERM after step {step}; a checkpoint is saved" in output
    assert "finished" not in output
    assert _last(folder).step == step
    output = _succeed(folder)
    assert resumes in output
    assert "finished" in output
    _assert_same_end(folder, uninterrupted)


def test_ctrl_c(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    done = _train(folder, "signal", signal.SIGINT, "train", 8)
    assert done.returncode == 130, done.stderr[-3000:]
    assert "Stopping after this step; Ctrl-C again stops at once." in done.stdout
    assert "interrupted after step 8; a checkpoint is saved" in done.stderr
    assert "Traceback" not in done.stderr
    assert _last(folder).step == 8
    assert "Going on at step 8: epoch 2, stage 1" in _succeed(folder)
    _assert_same_end(folder, uninterrupted)


def test_ctrl_c_twice(tmp_path):
    done = _train(tmp_path / "run", "twice", signal.SIGINT, "train", 8)
    assert done.returncode == 130, done.stderr[-3000:]
    assert "interrupted after step 7; the same command goes on from step-0000000007" in done.stderr


def _kill_and_resume(folder, uninterrupted, where, moment):
    done = _train(folder, "signal", signal.SIGKILL, where, moment)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    _succeed(folder)
    _assert_same_end(folder, uninterrupted)
    assert not list((folder / "checkpoints").glob("*.tmp"))
    assert not list((folder / "checkpoints").glob(".*.tmp"))


@pytest.mark.parametrize(("where", "moment"), [("train", 13), ("write", 7)])
def test_kills(uninterrupted, tmp_path, where, moment):
    _kill_and_resume(tmp_path / "run", uninterrupted, where, moment)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_kills_at_random_moments(uninterrupted, tmp_path, seed):
    rng = np.random.default_rng(seed)
    where = ("train", "test", "write")[seed % 3]
    moments = {"train": 4 * STEPS_PER_EPOCH, "test": 8, "write": 4 * STEPS_PER_EPOCH}
    _kill_and_resume(
        tmp_path / "run", uninterrupted, where, int(rng.integers(1, moments[where] + 1))
    )


def test_two_runs_in_one_folder_are_refused(tmp_path):
    from effnetv2_tf.training.interruptions import only_run_in

    folder = tmp_path / "run"
    folder.mkdir()
    with only_run_in(folder):
        done = _train(folder)
    assert done.returncode == 2
    assert re.search(r"error: --model_dir: another process is training in .*run", done.stderr)
    assert not (folder / "checkpoints").exists()


def test_a_full_disk_loses_nothing(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    _ended(143, folder, "signal", signal.SIGTERM, "train", 8)
    before = (folder / "checkpoints" / "step-0000000008.npz").read_bytes()
    done = _train(folder, "full")
    assert done.returncode == 1
    assert re.search(r"error: .*File too large", done.stderr), done.stderr[-2000:]
    # NumPy 1 leaves a half-written archive open, and Python complains while collecting it.
    assert "Traceback" not in done.stderr.partition("Exception ignored in")[0]
    assert (folder / "checkpoints" / "step-0000000008.npz").read_bytes() == before
    assert read_checkpoint(folder / "checkpoints" / "step-0000000008.npz").step == 8
    _succeed(folder)
    _assert_same_end(folder, uninterrupted)


@pytest.mark.parametrize("steps_per_execution", [1, 2, 4])
def test_workers_ask_each_other_in_every_few_calls(steps_per_execution):
    """Keras tells the number of the last batch: 1, 3, 5 and so on with two steps a call."""
    asked = []

    def any_worker(own):
        asked.append(batch)
        return batch >= 8 * steps_per_execution

    stop = StopOnSignal(any_worker, every_calls=8)
    stop.on_epoch_begin(0)
    with pytest.raises(RunStopped, match="another worker"):
        for call in range(1, 100):
            batch = call * steps_per_execution - 1
            stop.on_train_batch_end(batch)
    assert asked == [steps_per_execution - 1, 9 * steps_per_execution - 1]
