"""Keras's warnings where nothing is wrong."""

import contextlib
import functools
import warnings

import keras

from effnetv2_tf.errors import RunStopped
from effnetv2_tf.training.trainer import Trainer


def test_a_run_that_goes_on_needs_no_warning(make_recipe, tmp_path):
    recipe = make_recipe(
        {"source": "digits"}, training={"batch_size": 256}, checkpoints={"every_steps": 1}
    )
    for last_step in (2, 5):
        trainer = Trainer(recipe, tmp_path / "run", verbose=0)
        if last_step == 2:
            stop = functools.partial(_stop_at, trainer, last_step)
            trainer.callbacks.append(keras.callbacks.LambdaCallback(on_train_batch_end=stop))
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "The optimizer has made")
            with contextlib.suppress(RunStopped):
                trainer.run()
        assert trainer.progressive.next_step == last_step


def _stop_at(trainer, step, batch, logs):
    if trainer.progressive.next_step == step:
        raise RunStopped("the test")


def test_images_that_may_be_left_out_raise_no_warning(write_classes, make_recipe, tmp_path):
    options = {"directory": str(write_classes(tmp_path / "images", ("cat", "dog"), count=8))}
    recipe = make_recipe(
        {"source": "image_folder", "options": options, "eval_batch_size": 1},
        training={"epochs": 2},
        progressive={"stages": 2, "image_size": [8, 12]},
    )
    trainer = Trainer(recipe, tmp_path / "run", verbose=0)
    assert trainer._evaluation_dataset().cardinality() < 0  # unknown: any image may be bad
    assert trainer.progressive.fit_dataset().cardinality() == 14 // 4
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer.run()
    assert not [str(w.message) for w in seen if "ran out of data" in str(w.message)]
    assert len(trainer.records.rows) == 2
