"""Runs and weights that move between TensorFlow 2.15 with Keras 2 and the newest ones.

`make test-cross-stack` sets up both environments; the Python of the other one is named by the
environment variable EFFNETV2_TF_OTHER_PYTHON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

OTHER = os.environ.get("EFFNETV2_TF_OTHER_PYTHON")
pytestmark = [
    pytest.mark.cross_stack,
    pytest.mark.skipif(OTHER is None, reason="EFFNETV2_TF_OTHER_PYTHON names no other Python"),
]
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["to other", "from other"])

RECIPE = """
name: cross_stack
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
training: {epochs: 4, batch_size: 128, ema_decay: 0.9}
progressive:
  stages: 2
  image_size: [8, 12]
  mixup_alpha: [0.1, 0.2]
  dropout_rate: [0.1, 0.3]
  drop_path_rate: [0.1, 0.2]
learning_rate: {per_256: 0.02, decay: cosine, warmup_epochs: 1}
checkpoints: {every_steps: 4}
"""
STEPS_PER_EPOCH = 1437 // 128
STOP_AT = 2 * STEPS_PER_EPOCH + 6  # in the second stage

TRAIN = """
import os, signal, sys
import keras
from effnetv2_tf.training.recipe_files import load_recipe
from effnetv2_tf.training.trainer import Trainer

class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if trainer.progressive.next_step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGTERM)

trainer = Trainer(load_recipe(sys.argv[1], []), sys.argv[2], verbose=0)
trainer.callbacks.insert(0, Stop())
try:
    trainer.run()
except Exception as stopped:
    print(stopped)
"""

WEIGHTS = """
import sys
import keras, numpy as np
import effnetv2_tf

action, constructor, folder = sys.argv[1:]
keras.utils.set_random_seed(1 if action == "save" else 2)
model = getattr(effnetv2_tf, constructor)(weights=None, classes=7, classifier_activation=None)
images = np.random.default_rng(0).uniform(0, 255, (2, 65, 48, 3)).astype("float32")
if action == "save":
    weights = model.get_weights()
    model.set_weights([w + 0.01 * np.arange(w.size).reshape(w.shape) % 0.3 for w in weights])
    model.save_weights(f"{folder}/model.weights.h5")
else:
    effnetv2_tf.load_weights(model, f"{folder}/model.weights.h5")
np.save(f"{folder}/{action}.npy", model.predict(images, verbose=0))
"""


def _run(python, *arguments):
    done = subprocess.run(
        [python, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _pythons(reverse):
    here = Path(sys.executable)
    return (OTHER, here) if reverse else (here, OTHER)


@DIRECTIONS
def test_a_run_goes_on_and_is_exported_on_the_other_stack(tmp_path, reverse):
    first, second = _pythons(reverse)
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    output = _run(first, "-c", TRAIN, recipe, folder, STOP_AT)
    assert f"Stopped by SIGTERM after step {STOP_AT}" in output
    output = _run(second, "-c", TRAIN, recipe, folder, -1)
    assert f"Going on at step {STOP_AT}: epoch 3, stage 2 (12 px)" in output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 4 * STEPS_PER_EPOCH
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["epoch", "1", "2", "3", "4"]
    output = _run(second, "-m", "effnetv2_tf.export", f"--model_dir={folder}")
    for kind in ("savedmodel", "tflite", "onnx"):
        assert kind in output.lower()
    report = json.loads(next(folder.rglob("*report*.json")).read_text())
    assert report


@DIRECTIONS
@pytest.mark.parametrize("constructor", ["EfficientNetV2B0", "EfficientNetB0"])
def test_weights_give_the_same_logits_on_the_other_stack(tmp_path, constructor, reverse):
    first, second = _pythons(reverse)
    _run(first, "-c", WEIGHTS, "save", constructor, tmp_path)
    _run(second, "-c", WEIGHTS, "load", constructor, tmp_path)
    saved, loaded = (np.load(tmp_path / f"{name}.npy") for name in ("save", "load"))
    np.testing.assert_allclose(loaded, saved, rtol=1e-4, atol=1e-4 * np.abs(saved).max())
