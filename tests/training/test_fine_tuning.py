"""Fine-tuning recipes: the head first, then everything; the same after a restart."""

import dataclasses

import keras
import numpy as np
import pytest

from effnetv2_tf import build_network
from effnetv2_tf.errors import UsageError
from effnetv2_tf.keras_compat import variable_path
from effnetv2_tf.training import build
from effnetv2_tf.training.recipe_files import parse_recipe
from effnetv2_tf.training.trainer import Trainer

STAGES = [
    {"block": "fused", "stride": 2, "expansion": 1, "filters": 8, "repeats": 1},
    {"block": "mbconv", "stride": 1, "expansion": 2, "filters": 8, "repeats": 1, "se_ratio": 0.25},
]


def _recipe(epochs=3, fine_tuning=None, weights=None):
    model = {"name": "efficientnetv2-b0", "stem_filters": 8, "stem_stride": 1, "head_filters": 16}
    model |= {"stages": STAGES, "new_classifier": weights is not None, "weights": weights}
    return parse_recipe(
        {
            "name": "fine",
            "model": {key: value for key, value in model.items() if value is not None},
            "data": {
                "source": "digits",
                "augmentation": {"crop": "pad", "flip": False, "policy": "none"},
                "eval_crop": "none",
            },
            "training": {"epochs": epochs, "batch_size": 256, "ema_decay": 0.9},
            "progressive": {"stages": 2, "image_size": [8, 12]},
            "fine_tuning": fine_tuning if fine_tuning is not None else {"head_epochs": 2},
            "learning_rate": {"per_256": 0.01, "warmup_epochs": 0.5},
        },
        "fine.yaml",
    )


class _WeightsByEpoch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.rows = []

    def on_epoch_begin(self, epoch, logs=None):
        # By name: Keras 2 lists trainable weights first, so freezing changes the order.
        self.rows.append({variable_path(w): w.numpy() for w in self.model.weights})

    def on_train_end(self, logs=None):
        self.on_epoch_begin(-1)


def _changed(trainer, rows, epoch):
    """Names of the model's layers that an epoch (counted in the run) changed."""
    pairs = ((path, before, rows[epoch + 1][path]) for path, before in rows[epoch].items())
    return {path.split("/")[0] for path, old, new in pairs if not np.array_equal(old, new)}


def _run(recipe, folder):
    trainer = Trainer(recipe, folder, verbose=0)
    weights = _WeightsByEpoch()
    trainer.callbacks.append(weights)
    trainer.run()
    return trainer, weights.rows


ALL = {"stem", "stem_norm", "stage1_block1", "stage2_block1", "head", "head_norm", "classifier"}


def test_the_head_first_then_everything(tmp_path):
    trainer, rows = _run(_recipe(), tmp_path / "run")
    assert _changed(trainer, rows, 0) == {"classifier"}
    assert _changed(trainer, rows, 1) == {"classifier"}
    assert _changed(trainer, rows, 2) == ALL
    phases = [row["phase"] for row in trainer.records.rows]
    assert phases == [0, 0, 1]


def test_a_part_that_stays_frozen(tmp_path):
    options = {"head_epochs": 1, "head": "head", "until": "stage2"}
    trainer, rows = _run(_recipe(2, options), tmp_path / "run")
    assert _changed(trainer, rows, 0) == {"head", "head_norm", "classifier"}
    assert _changed(trainer, rows, 1) == {"stage2_block1", "head", "head_norm", "classifier"}


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_resumed_run_is_in_the_right_phase(tmp_path, stop_after):
    whole, _ = _run(_recipe(), tmp_path / "whole")
    keras.utils.set_random_seed(0)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch + 1 == stop_after:
                raise KeyboardInterrupt

    stopped = Trainer(_recipe(), tmp_path / "stopped", verbose=0)
    stopped.callbacks.append(Stop())
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    again, rows = _run(_recipe(), tmp_path / "stopped")
    assert _changed(again, rows, 0) == ({"classifier"} if stop_after == 1 else ALL)
    for a, b in zip(whole.model.weights, again.model.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6, err_msg=variable_path(a))


def test_weights_of_another_task(tmp_path):
    """All but the classifier is loaded; the report says so."""
    recipe = _recipe(weights=str(tmp_path / "other.weights.h5"))
    other = build_network(build.network_spec(recipe.model), classes=7, input_shape=(None, None, 1))
    other.save_weights(tmp_path / "other.weights.h5")
    model = build.build_model(recipe, num_classes=10, channels=1)
    assert model.output_shape == (None, 10)
    for path in ("stem", "stage2_block1", "head_norm"):
        pairs = zip(model.get_layer(path).weights, other.get_layer(path).weights, strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=path)


def test_an_epsilon_that_the_recipe_does_not_have_is_refused(tmp_path, capsys):
    """Evaluation and export rebuild the network from the recipe, without the file."""
    path = tmp_path / "other.keras"
    recipe = _recipe(weights=str(path))
    spec = dataclasses.replace(build.network_spec(recipe.model), batch_norm_epsilon=1e-5)
    build_network(spec, classes=7, input_shape=(None, None, 1)).save(path)
    with pytest.raises(
        UsageError,
        match=r"trained with batch norms with epsilon 1e-05; add batch_norm_epsilon: 1e-05$",
    ):
        build.build_model(recipe, num_classes=10, channels=1)
    told = recipe.model.model_copy(update={"batch_norm_epsilon": 1e-5})
    model = build.build_model(recipe.model_copy(update={"model": told}), 10, 1)
    assert model.get_layer("stem_norm").epsilon == 1e-5
    assert "tensors loaded" in capsys.readouterr().out


def test_learning_rates_by_depth_reach_the_optimizer(tiny_network):
    recipe = _recipe(fine_tuning={"learning_rate_decay": 0.5})
    schedule = build.build_schedule(recipe, 1000)
    optimizer = build.build_optimizer(recipe, schedule, tiny_network())
    assert optimizer.learning_rate_factors["stage3"] == 0.5


@pytest.mark.parametrize(
    ("section", "optimizer", "message"),
    [
        ({"head": "clasifier"}, "rmsprop", "fine_tuning: .*'clasifier'; did you mean 'classifier'"),
        ({"until": "stage9"}, "rmsprop", "fine_tuning: .*no layer 'stage9'"),
        ({"learning_rate_decay": 0.5}, "nadam", "fine_tuning.learning_rate_decay: .*'nadam'"),
    ],
)
def test_bad_recipes(tmp_path, section, optimizer, message):
    values = _recipe(fine_tuning=section).model_dump()
    values["optimizer"]["name"] = optimizer
    with pytest.raises(UsageError, match=message):
        Trainer(parse_recipe(values, "fine.yaml"), tmp_path / "run", verbose=0)
