"""A trial's training: inherited weights, and what it tells."""

import numpy as np
import pytest

from effnetv2_tf.search.config import load_recipes, load_search
from effnetv2_tf.search.step_time import Timing
from effnetv2_tf.search.trial_process import TrialTask, inherit_weights, try_recipe
from effnetv2_tf.training.checkpoints import CheckpointFolder
from effnetv2_tf.training.state import weights_by_name
from effnetv2_tf.training.trainer import Trainer

TINY = ["proxy={training.epochs: 1, progressive.stages: 1, progressive.image_size: [8, 8]}"]


def _recipe(kernel_size=3):
    _, proxy = load_recipes(load_search("configs/search_v2_digits.yaml", TINY))
    stages = [
        stage.model_copy(update={"kernel_size": kernel_size} if index else {})
        for index, stage in enumerate(proxy.model.stages)
    ]
    model = proxy.model.model_copy(update={"stages": tuple(stages)})
    return proxy.model_copy(update={"model": model})


@pytest.mark.slow
def test_it_tells_costs_then_accuracies_and_the_next_inherits_what_fits(tmp_path):
    told = []
    task = TrialTask(_recipe(), tmp_path / "a", None, Timing(), tmp_path / "t.json")
    result = try_recipe(task, told.append)
    assert set(told[0]) == {"parameters", "multiply_adds"}
    assert told[1:] == [{"epoch": 1, "accuracy": pytest.approx(result["accuracy"])}]

    trainer = Trainer(_recipe(kernel_size=5), tmp_path / "b", verbose=0)
    before = {k: v.numpy() for k, v in weights_by_name(trainer.model).items()}
    copied = inherit_weights(trainer, tmp_path / "a")
    theirs = CheckpointFolder(tmp_path / "a" / "checkpoints").latest().arrays
    weights = weights_by_name(trainer.model)
    assert copied == len(weights) - 1  # all but the kernel of the depthwise convolution
    for name, variable in weights.items():
        fits = theirs[name].shape == tuple(variable.shape)
        expected = theirs[name] if fits else before[name]
        np.testing.assert_array_equal(variable.numpy(), expected, err_msg=name)
    for average, weight in zip(trainer.ema.averages, weights.values(), strict=True):
        np.testing.assert_array_equal(average.numpy(), weight.numpy())
    assert inherit_weights(trainer, tmp_path / "nowhere") == 0
