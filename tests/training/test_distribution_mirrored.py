"""Two replicas on two virtual CPUs, against one device: in processes of their own.

Virtual devices must be made before TensorFlow computes anything.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from effnetv2_tf.training.checkpoints import CheckpointFolder

RECIPE = """
name: mirrored
seed: 3
model:
  name: efficientnetv2-b0
  stem_filters: 8
  stem_stride: 1
  head_filters: 16
  dropout_rate: 0.0
  drop_path_rate: 0.0
  synchronized_batch_norm: true
  stages:
    - {block: fused, stride: 2, expansion: 1, filters: 8, repeats: 1}
    - {block: mbconv, stride: 1, expansion: 2, filters: 8, repeats: 2, se_ratio: 0.25}
data:
  source: digits
  augmentation: {crop: pad, flip: true, policy: none}
  eval_crop: none
  eval_batch_size: 98
training: {epochs: 2, batch_size: 128, ema_decay: 0.9}
progressive: {stages: 2, image_size: [8, 12], mixup_alpha: [0.1, 0.2]}
learning_rate: {per_256: 0.02, decay: cosine, warmup_epochs: 1}
"""
STEPS = 2 * (1437 // 128)  # 22, in two stages

PROGRAM = """
import json, sys
from pathlib import Path
from effnetv2_tf.training.distribution import choose_strategy

folder, replicas, stop_at, *overrides = sys.argv[1:]
devices = [f"CPU:{i}" for i in range(int(replicas))]
strategy, reason = choose_strategy("mirrored" if len(devices) > 1 else "auto", devices=devices)

import keras
from effnetv2_tf.errors import RunStopped
from effnetv2_tf.training.recipe_files import load_recipe
from effnetv2_tf.training.trainer import Trainer

trainer = Trainer(load_recipe(Path(folder).parent / "recipe.yaml", overrides), folder, strategy, 0)


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if trainer.progressive.next_step == int(stop_at):
            raise RunStopped("the test")


trainer.callbacks.append(Stop())
try:
    trainer.run()
except RunStopped:
    pass
print(json.dumps({"reason": reason, "rows": trainer.records.rows}))
"""


def _train(folder, replicas, stop_at=-1, *overrides):
    (folder.parent / "recipe.yaml").write_text(RECIPE)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(replicas), str(stop_at), *overrides],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _checkpoint(folder):
    return CheckpointFolder(folder / "checkpoints").latest()


def _assert_same_weights(folder, reference):
    ours, theirs = _checkpoint(folder), _checkpoint(reference)
    assert ours.step == theirs.step == STEPS
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, array in theirs.arrays.items():
        if not name.startswith("random/"):
            np.testing.assert_allclose(ours.arrays[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def one_replica(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    return folder, _train(folder, 1)


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    return folder, _train(folder, 2)


@pytest.mark.slow
def test_the_weights_after_two_stages_are_the_same(one_replica, two_replicas):
    """Model, optimizer and averages; 22 steps with mixup, which is drawn for the global batch."""
    _assert_same_weights(two_replicas[0], one_replica[0])


@pytest.mark.slow
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_clipped_norm_is_that_of_the_global_batch(tmp_path, weight_decay):
    # The gradients' norm is about 1 here, so most steps are clipped.
    overrides = ["optimizer.name=sgd", "optimizer.gradient_clip_norm=0.2"]
    overrides += [f"optimizer.weight_decay={weight_decay}"]
    folders = [tmp_path / "one" / "run", tmp_path / "two" / "run"]
    for replicas, folder in enumerate(folders, start=1):
        folder.parent.mkdir()
        _train(folder, replicas, -1, *overrides)
    _assert_same_weights(*folders)


@pytest.mark.slow
def test_the_reported_losses_and_metrics_are_the_same(one_replica, two_replicas):
    """360 test images in batches of 98: the last 66 fill one replica and a part of the other."""
    for row, expected in zip(two_replicas[1]["rows"], one_replica[1]["rows"], strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "val_top_5_accuracy"):
            assert row[name] == pytest.approx(expected[name], rel=1e-3), (row["epoch"], name)


@pytest.mark.slow
def test_what_was_chosen_is_said(two_replicas):
    assert two_replicas[1]["reason"] == "Training on 2 mirrored replicas: CPU:0, CPU:1 (--devices)."


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [(2, 1), (1, 2)])
def test_a_checkpoint_goes_on_under_another_strategy(one_replica, tmp_path, replicas):
    """Stopped in the middle of the second stage's epoch, whose metrics go on too."""
    folder = tmp_path / "run"
    _train(folder, replicas[0], STEPS - 4)
    assert _checkpoint(folder).step == STEPS - 4
    rows = _train(folder, replicas[1])["rows"]
    _assert_same_weights(folder, one_replica[0])
    assert rows[-1]["accuracy"] == pytest.approx(one_replica[1]["rows"][-1]["accuracy"], rel=1e-3)


@pytest.mark.slow
def test_an_evaluation_batch_that_leaves_a_replica_empty(one_replica, tmp_path):
    """The last batch holds 2 of 360 images: the first replica's share, and none for the second."""
    folder = tmp_path / "run"
    row = _train(folder, 2, -1, "data.eval_batch_size=358")["rows"][-1]
    expected = one_replica[1]["rows"][-1]
    for name in ("val_loss", "val_accuracy"):
        assert row[name] == pytest.approx(expected[name], rel=1e-3)


@pytest.mark.slow
def test_dropout_moves_and_differs_between_replicas(tmp_path):
    rates = ("progressive.dropout_rate=[0.1, 0.4]", "progressive.drop_path_rate=[0.1, 0.2]")
    result = _train(tmp_path / "run", 2, -1, *rates)
    assert [row["dropout_rate"] for row in result["rows"]] == pytest.approx([0.1, 0.4])
    assert all(np.isfinite(row["loss"]) for row in result["rows"])


@pytest.mark.slow
def test_run_eagerly_is_heeded(two_cpus):
    """A step that Python runs line by line has values to look at."""
    two_cpus(
        """
        import keras
        from effnetv2_tf import ProgressiveLearning, StageSchedule

        schedule = StageSchedule.progressive(
            epochs=1, num_examples=8, batch_size=4, image_size=(8, 8), num_stages=1)
        one = (tf.ones((8, 8, 1)), 0.0)
        progressive = ProgressiveLearning(
            schedule, lambda stage: tf.data.Dataset.from_tensors(one).repeat().batch(4))
        eager = []

        class Model(keras.Sequential):
            def train_step(self, data):
                eager.append(tf.executing_eagerly())
                return super().train_step(data)

        with strategy.scope():
            model = Model([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
            model.compile("sgd", "mse", run_eagerly=True)
        model.fit(progressive.fit_dataset(), callbacks=[progressive], verbose=0)
        assert eager == [True] * 4, eager
        assert progressive.next_step == 2
        """
    )
