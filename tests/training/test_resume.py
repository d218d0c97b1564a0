"""Kill -9 in the middle of stage 2, the same command again: the same weights, bit for bit."""

import csv
import json
import os
import re
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from effnetv2_tf.training.checkpoints import CheckpointFolder, read_checkpoint
from effnetv2_tf.training.state import averaged_weights, weights_by_name

RECIPE = """
name: resume
seed: 3
model:
  name: efficientnetv2-b0
  stem_filters: 8
  stem_stride: 1
  head_filters: 32
  stages:
    - {block: fused, stride: 2, expansion: 1, filters: 8, repeats: 1}
    - {block: mbconv, stride: 1, expansion: 2, filters: 8, repeats: 1, se_ratio: 0.25}
data:
  source: digits
  augmentation: {crop: pad, flip: true, policy: none}
  eval_crop: none
training:
  epochs: 4
  batch_size: 128
  ema_decay: 0.9
progressive:
  stages: 2
  image_size: [8, 12]
  mixup_alpha: [0.1, 0.2]
  dropout_rate: [0.1, 0.3]
  drop_path_rate: [0.1, 0.2]
learning_rate: {per_256: 0.02, decay: cosine, warmup_epochs: 1}
checkpoints: {every_steps: 4, keep_last: 3}
"""
STEPS_PER_EPOCH = 1437 // 128
FIRST_OF_STAGE_2 = 2 * STEPS_PER_EPOCH
TIMES = {"train_seconds", "images_per_second"}

PROGRAM = """
import os, signal, sys
import keras
from effnetv2_tf.training.recipe_files import load_recipe
from effnetv2_tf.training.trainer import Trainer

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if trainer.progressive.next_step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

folder, kill_at, *overrides = sys.argv[1:]
kill_at = int(kill_at)
recipe = load_recipe(os.path.join(os.path.dirname(folder), "recipe.yaml"), overrides)
trainer = Trainer(recipe, folder, verbose=0)
trainer.callbacks.append(Kill())
trainer.run()
"""


def _train(folder, kill_at=-1, *overrides):
    (folder.parent / "recipe.yaml").write_text(RECIPE)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(kill_at), *overrides],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )


def _succeed(*arguments):
    done = _train(*arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _kill(folder, step):
    done = _train(folder, step)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    return CheckpointFolder(folder / "checkpoints")


def _rows(folder):
    with (folder / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def _assert_same_run(folder, reference):
    assert _rows(folder) == _rows(reference)
    names = [path.name for path in CheckpointFolder(reference / "checkpoints").by_step()]
    ours = read_checkpoint(folder / "checkpoints" / names[-1])
    theirs = read_checkpoint(reference / "checkpoints" / names[-1])
    assert ours.step == theirs.step == 4 * STEPS_PER_EPOCH
    assert ours.arrays.keys() == theirs.arrays.keys()
    different = [
        f"{name}: {np.abs(array - theirs.arrays[name]).max()}"
        for name, array in ours.arrays.items()
        if not np.array_equal(array, theirs.arrays[name])
    ]
    assert not different


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    _succeed(folder)
    return folder


def test_kill_in_the_middle_of_stage_2(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    killed_at = FIRST_OF_STAGE_2 + 6
    checkpoint = _kill(folder, killed_at).latest()
    assert FIRST_OF_STAGE_2 < checkpoint.step < killed_at  # lies within an epoch
    output = _succeed(folder)
    assert f"Going on at step {checkpoint.step}: epoch 3, stage 2 (12 px)" in output
    _assert_same_run(folder, uninterrupted)


@pytest.mark.slow
def test_two_kills_and_a_torn_checkpoint(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    _kill(folder, 6)
    checkpoints = _kill(folder, FIRST_OF_STAGE_2 + 10).by_step()
    os.truncate(checkpoints[-1], checkpoints[-1].stat().st_size // 2)
    output = _succeed(folder)
    before = int(re.findall(r"\d+", checkpoints[-2].name)[0])
    assert f"Going on at step {before}:" in output
    _assert_same_run(folder, uninterrupted)


def test_the_artefacts_of_the_run(uninterrupted):
    summary = json.loads((uninterrupted / "summary.json").read_text())
    rows = _rows(uninterrupted)
    assert summary["steps"] == 4 * STEPS_PER_EPOCH
    assert summary["accuracy"] == pytest.approx(float(rows[-1]["val_accuracy"]))
    assert summary["seed"] == 3
    assert [stage["image_size"] for stage in summary["stages"]] == [8, 12]
    assert [row["image_size"] for row in rows] == ["8.0", "8.0", "12.0", "12.0"]
    assert [float(row["dropout_rate"]) for row in rows] == pytest.approx([0.1, 0.1, 0.3, 0.3])
    assert (uninterrupted / "curves.png").read_bytes()[:4] == b"\x89PNG"
    model = keras.models.load_model(uninterrupted / "model.keras")
    assert getattr(model, "optimizer", None) is None  # it loads whatever optimizer the run had
    last = CheckpointFolder(uninterrupted / "checkpoints").latest()
    averaged = averaged_weights(last.arrays, model)
    for name, weight in weights_by_name(model).items():
        np.testing.assert_array_equal(weight.numpy(), averaged[name], err_msg=name)
    best = read_checkpoint(uninterrupted / "checkpoints" / "best.npz")
    assert best.metadata["best"]["value"] == max(float(row["val_accuracy"]) for row in rows)


@pytest.mark.slow
def test_a_finished_run_and_a_changed_recipe(uninterrupted):
    before = _rows(uninterrupted)
    output = _succeed(uninterrupted)
    assert f"training is complete ({4 * STEPS_PER_EPOCH} steps)" in output
    assert _rows(uninterrupted) == before
    done = _train(uninterrupted, -1, "training.epochs=5", "checkpoints.keep_last=9")
    assert done.returncode == 1
    last_line = done.stderr.strip().splitlines()[-1]
    assert "holds a run of another recipe: training.epochs differ" in last_line
