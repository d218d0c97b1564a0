"""An error of TensorFlow's ends a run with one line that says where."""

import pytest
import tensorflow as tf

from effnetv2_tf.errors import TrainingFailure
from effnetv2_tf.training.recipe_files import load_recipe
from effnetv2_tf.training.trainer import Trainer


def test_an_error_of_tensorflow_becomes_one_line(tmp_path, monkeypatch):
    recipe = load_recipe(
        "configs/quickstart.yaml", ["model.width=0.1", "model.depth=0.1", "model.head_filters=8"]
    )
    trainer = Trainer(recipe, tmp_path, verbose=0)

    def fail(*_args, **_kwargs):
        trainer.progressive.next_step = 7
        raise tf.errors.InvalidArgumentError(None, None, "Invalid PNG data\n\tmore\n")

    monkeypatch.setattr(trainer.model, "fit", fail)
    with pytest.raises(TrainingFailure, match="after step 7: Invalid PNG data; checkpoints") as e:
        trainer.run()
    assert "\n" not in str(e.value)
