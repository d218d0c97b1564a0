"""A folder that cannot be gone on in is refused; who interrupts a run is told how it goes on."""

import os
import re

import keras
import pytest

from effnetv2_tf.errors import UsageError
from effnetv2_tf.training.checkpoints import CheckpointFolder
from effnetv2_tf.training.trainer import Trainer

STEPS_PER_EPOCH = 1437 // 256


@pytest.fixture
def recipe(make_recipe):
    return make_recipe(
        {"source": "digits"},
        training={"epochs": 2, "batch_size": 256},
        checkpoints={"every_steps": 2},
    )


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after a step."""

    def __init__(self, trainer, step):
        super().__init__()
        self.trainer, self.step = trainer, step

    def on_train_batch_end(self, batch, logs=None):
        if self.trainer.progressive.next_step == self.step:
            raise KeyboardInterrupt


def _interrupted(recipe, folder, step):
    trainer = Trainer(recipe, folder, verbose=0)
    trainer.callbacks.append(Interrupt(trainer, step))
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.run()
    return str(caught.value)


def test_an_interrupted_run_says_how_it_goes_on(recipe, tmp_path, capsys):
    message = _interrupted(recipe, tmp_path, STEPS_PER_EPOCH + 3)
    saved = CheckpointFolder(tmp_path / "checkpoints").by_step()[-1].name
    assert saved == f"step-{STEPS_PER_EPOCH + 2:010d}.npz"
    assert message == (
        f"interrupted after step {STEPS_PER_EPOCH + 3}; the same command goes on from {saved}; "
        "one Ctrl-C alone saves a checkpoint first"
    )
    assert Trainer(recipe, tmp_path, verbose=0).run()["steps"] == 2 * STEPS_PER_EPOCH
    assert f"Going on at step {STEPS_PER_EPOCH + 2}: epoch 2" in capsys.readouterr().out


def test_interrupted_before_anything_was_saved(recipe, tmp_path):
    message = _interrupted(recipe, tmp_path, 1)
    assert "after step 1; the same command begins anew: none was saved" in message


def test_a_run_whose_checkpoints_are_all_damaged(recipe, tmp_path):
    _interrupted(recipe, tmp_path, STEPS_PER_EPOCH + 3)
    saved = CheckpointFolder(tmp_path / "checkpoints").by_step()
    for path in saved:
        os.truncate(path, 100)
    with pytest.raises(UsageError) as caught:
        Trainer(recipe, tmp_path, verbose=0).run()
    assert str(caught.value) == (
        f"--model_dir: expected a whole checkpoint in {tmp_path / 'checkpoints'}, received "
        f"{len(saved)} damaged; remove them to train from the beginning"
    )
    assert all(path.stat().st_size == 100 for path in saved)


def test_checkpoints_without_a_recipe(recipe, tmp_path):
    _interrupted(recipe, tmp_path, 3)
    (tmp_path / "recipe.yaml").unlink()
    message = f"--model_dir: {re.escape(str(tmp_path))} has checkpoints but no recipe.yaml"
    with pytest.raises(UsageError, match=message):
        Trainer(recipe, tmp_path, verbose=0)
    assert not (tmp_path / "recipe.yaml").exists()
