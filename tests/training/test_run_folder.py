"""A folder that cannot be gone on in is refused; who interrupts a run is told how it goes on."""

import os
import re

import keras
import pytest

from effnetv2_tf.errors import UsageError
from effnetv2_tf.training import build
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


def test_a_folder_in_which_nothing_was_saved_takes_a_better_recipe(recipe, make_recipe, tmp_path):
    """As after a mistake that showed in the first steps."""
    _interrupted(recipe, tmp_path, 1)
    other = make_recipe({"source": "digits"}, training={"batch_size": 512})
    assert Trainer(other, tmp_path, verbose=0).run()["steps"] == 1437 // 512


def test_a_run_goes_on_where_its_images_have_moved(make_recipe, write_classes, tmp_path):
    def recipe(folder, **training):
        data = {"source": "image_folder", "options": {"directory": str(folder)}}
        return make_recipe(data, training={"epochs": 2, **training}, checkpoints={"every_steps": 1})

    folder = write_classes(tmp_path / "here", ("cat", "dog"), count=8)
    _interrupted(recipe(folder), tmp_path / "run", 2)
    moved = folder.rename(tmp_path / "there")
    trainer = Trainer(recipe(moved), tmp_path / "run", verbose=0)
    assert trainer.run()["evaluated_on"] == str(moved)
    assert "there" in (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(UsageError, match=r"another recipe: training.label_smoothing differ"):
        Trainer(recipe(moved, label_smoothing=0.2), tmp_path / "run", verbose=0)


def test_a_run_goes_on_without_the_file_that_it_began_with(make_recipe, tmp_path):
    weights = tmp_path / "first.weights.h5"
    recipe = make_recipe({"source": "digits"}, checkpoints={"every_steps": 1})
    build.build_model(recipe, 10, 1).save_weights(weights)
    recipe = make_recipe(
        {"source": "digits"}, model={"weights": str(weights)}, checkpoints={"every_steps": 1}
    )
    _interrupted(recipe, tmp_path / "run", 2)
    weights.unlink()
    assert Trainer(recipe, tmp_path / "run", verbose=0).run()["steps"] == 1437 // 4
    with pytest.raises(UsageError, match="is no file"):
        Trainer(recipe, tmp_path / "another", verbose=0)


def test_numbers_that_yaml_takes_for_text(make_recipe, tmp_path):
    recipe = make_recipe({"source": "digits"}, optimizer={"options": {"epsilon": "1e-3"}})
    with pytest.raises(UsageError, match=r"optimizer.options.epsilon: .*'1e-3'; write 0.001"):
        Trainer(recipe, tmp_path / "run", verbose=0)
