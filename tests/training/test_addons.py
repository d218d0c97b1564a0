"""Optimizers of tensorflow-addons by name: trained with where it works, explained where not."""

import importlib.util
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import RunStopped, UsageError
from effnetv2_tf.training.addons import REPLACEMENTS, OptimizerAverages, addons_optimizer
from effnetv2_tf.training.checkpoints import CheckpointFolder
from effnetv2_tf.training.recipe_files import load_recipe
from effnetv2_tf.training.trainer import Trainer

INSTALLED = not keras_compat.KERAS_3 and importlib.util.find_spec("tensorflow_addons") is not None
with_addons = pytest.mark.skipif(not INSTALLED, reason="tensorflow-addons needs TensorFlow 2.15")
without_addons = pytest.mark.skipif(INSTALLED, reason="tensorflow-addons is installed")

RECIPE = """
name: addons
model:
  name: efficientnetv2-b0
  stem_filters: 8
  stem_stride: 1
  head_filters: 16
  classifier_initializer: zeros
  stages:
    - {block: fused, stride: 2, expansion: 1, filters: 8, repeats: 1}
    - {block: mbconv, stride: 1, expansion: 2, filters: 8, repeats: 1, se_ratio: 0.25}
data:
  source: digits
  augmentation: {crop: pad, policy: none}
  eval_crop: none
training: {epochs: 2, batch_size: 64, evaluate_every_epochs: 2}
progressive: {stages: 2, image_size: [8, 12]}
learning_rate: {per_256: 0.02, decay: cosine, warmup_epochs: 0.5}
checkpoints: {every_epochs: 1}
"""


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


class _Stop(tf.keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise RunStopped("the test")


OPTIONS = {
    "Lookahead": {"optimizer": "RectifiedAdam"},
    "SWA": {"optimizer": {"name": "SGD", "momentum": 0.9}},
    "MovingAverage": {"optimizer": "Adam"},
    # Its learning rate is the share of a weight that is kept.
    "ConditionalGradient": {"lambda_": 1.0, "learning_rate": 0.95},
    "SGDW": {"weight_decay": 1e-4},
}


def _overrides(name):
    return [f"optimizer.name={name}", f"optimizer.options={json.dumps(OPTIONS.get(name, {}))}"]


@without_addons
@pytest.mark.parametrize("name", [name for name in REPLACEMENTS if name != "LAMB"])
def test_elsewhere_the_error_names_a_replacement_and_the_way_to_install(
    recipe_file, tmp_path, name
):
    recipe = load_recipe(recipe_file, [f"optimizer.name={name.lower()}"])
    with pytest.raises(UsageError, match=r"pip install 'effnetv2_tf\[addons\]'") as caught:
        Trainer(recipe, tmp_path / "run", verbose=0)
    assert f"{name} is an optimizer of tensorflow-addons" in str(caught.value)
    assert f"use {REPLACEMENTS[name]}" in str(caught.value)


def test_lamb_is_found_on_either_stack(recipe_file, tmp_path):
    trainer = Trainer(load_recipe(recipe_file, ["optimizer.name=LAMB"]), tmp_path / "run")
    assert "lamb" in type(trainer.model.optimizer).__name__.lower()


@with_addons
@pytest.mark.parametrize("name", list(REPLACEMENTS))
def test_every_one_minimises(name):
    options = {"learning_rate": 0.05, "l2": 0.0, **OPTIONS.get(name, {})}
    optimizer = addons_optimizer(name, options)
    target = np.linspace(-0.5, 0.5, 6, dtype=np.float32).reshape(2, 3)
    variable = tf.Variable(tf.ones([2, 3]))
    keras_compat.build_optimizer(optimizer, [variable])
    rate = float(keras_compat.learning_rate_value(optimizer))
    assert rate == pytest.approx(options["learning_rate"])
    for _ in range(60):
        optimizer.apply_gradients([(variable - target, variable)])
    distance = np.abs(variable.numpy() - target).mean()
    assert distance < 0.8, f"{name}: from 1.0 to {distance}"


@with_addons
@pytest.mark.parametrize("name", [name for name in REPLACEMENTS if name != "ConditionalGradient"])
def test_without_momentum_only_gradients_move_weights(name):
    """Nor do Lookahead's slow weights."""
    options = {"learning_rate": 0.05, "l2": 0.0, **OPTIONS.get(name, {})}
    optimizer = addons_optimizer(
        name, {**options, "weight_decay": 0.0} if name == "SGDW" else options
    )
    variable = tf.Variable(tf.ones([2, 3]))
    keras_compat.build_optimizer(optimizer, [variable])
    for _ in range(4):
        optimizer.apply_gradients([(tf.ones([2, 3]), variable)])
    variable.assign(tf.fill([2, 3], 3.0))
    keras_compat.restart_momentum(optimizer, [variable])
    for _ in range(3):
        optimizer.apply_gradients([(tf.zeros([2, 3]), variable)])
    np.testing.assert_allclose(variable.numpy(), 3.0, rtol=1e-6)


@with_addons
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LAMB", {}),
        ("SGDW", {}),
        ("Lookahead", {"optimizer": "LAMB"}),
        ("Lookahead", {"optimizer": {"name": "LAMB", "weight_decay": 0.1}}),
    ],
)
def test_biases_and_norms_do_not_decay(recipe_file, tmp_path, name, options):
    overrides = [f"optimizer.name={name}", f"optimizer.options={json.dumps(options)}"]
    if "weight_decay" not in json.dumps(options):
        overrides.append("optimizer.weight_decay=0.1")
    recipe = load_recipe(recipe_file, [*overrides, "learning_rate.warmup_epochs=0"])
    model = Trainer(recipe, tmp_path / "run", verbose=0).model
    weights = model.trainable_variables
    for weight in weights:
        weight.assign(tf.ones_like(weight))
    for _ in range(3):
        model.optimizer.apply_gradients([(tf.zeros_like(weight), weight) for weight in weights])
    left = {weight.name: float(tf.reduce_mean(weight)) for weight in weights}
    for name, mean in left.items():
        decays = name.endswith("kernel:0")
        assert (mean < 1.0) == decays, f"{name}: {mean}"


@with_addons
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RectifiedAdam", {}),
        ("NovoGrad", {}),
        ("Lookahead", {"optimizer": "RectifiedAdam"}),
        ("Lookahead", {"optimizer": {"name": "SGDW", "weight_decay": 0.1}}),
    ],
)
def test_a_decay_of_all_weights_is_refused(recipe_file, tmp_path, name, options):
    overrides = [f"optimizer.name={name}", f"optimizer.options={json.dumps(options)}"]
    recipe = load_recipe(recipe_file, [*overrides, "optimizer.weight_decay=0.1"])
    with pytest.raises(
        UsageError, match=rf"^optimizer.weight_decay: {name} would decay the biases"
    ):
        Trainer(recipe, tmp_path / "run", verbose=0)


@with_addons
def test_an_unknown_inner_optimizer_is_named_once(recipe_file, tmp_path):
    recipe = load_recipe(
        recipe_file, ["optimizer.name=Lookahead", 'optimizer.options={"optimizer": "AdamX"}']
    )
    with pytest.raises(UsageError, match=r"^optimizer\.options\.optimizer: expected the name"):
        Trainer(recipe, tmp_path / "run", verbose=0)


@with_addons
def test_l2_is_added_to_the_gradients():
    variables = [tf.Variable(tf.ones([2, 3])) for _ in range(2)]
    for variable, l2, gradient in zip(variables, (0.1, 0.0), (0.0, 0.1), strict=True):
        optimizer = addons_optimizer("Yogi", {"learning_rate": 0.05, "l2": l2})
        optimizer.apply_gradients([(tf.fill([2, 3], gradient), variable)])
    np.testing.assert_allclose(variables[0].numpy(), variables[1].numpy(), rtol=1e-6)


@with_addons
def test_after_a_reduced_resolution_the_averages_are_the_fine_tuned_weights(recipe_file, tmp_path):
    overrides = [
        *_overrides("MovingAverage"),
        "data.eval_size=12",
        "progressive.stages=1",
        "progressive.image_size=null",
        "reduced_resolution={modulo: 4, fine_tune_epochs: 1, learning_rate_per_256: 0.02}",
    ]
    trainer = Trainer(load_recipe(recipe_file, overrides), tmp_path / "run", verbose=0)
    trainer.run()
    optimizer = trainer.model.optimizer
    for weight in trainer.model.trainable_variables:
        average = optimizer.get_slot(weight, "average").numpy()
        np.testing.assert_array_equal(average, weight.numpy(), err_msg=weight.name)


@with_addons
@pytest.mark.parametrize("name", ["LAMB", "Lookahead", "SWA"])
def test_training_lowers_the_loss(recipe_file, tmp_path, name):
    trainer = Trainer(load_recipe(recipe_file, _overrides(name)), tmp_path / "run", verbose=0)
    trainer.run()
    first, last = (row["loss"] for row in trainer.records.rows)
    assert last < first < 3, f"{name}: loss {first} after the first epoch, {last} after the second"
    # Half-way of a cosine from 0.02 * 64 / 256.
    assert trainer.records.rows[0]["learning_rate"] == pytest.approx(0.0025, rel=0.5)


@with_addons
def test_a_wrapper_needs_an_optimizer_it_knows(recipe_file, tmp_path):
    for given in ("", "optimizer: RectifiedAdm"):
        overrides = ["optimizer.name=lookahead", f"optimizer.options={{{given}}}"]
        with pytest.raises(UsageError, match="the name of the optimizer that Lookahead wraps"):
            Trainer(load_recipe(recipe_file, overrides), tmp_path / "run")


@with_addons
def test_options_go_to_the_inner_optimizer(recipe_file, tmp_path):
    options = "{optimizer: {name: SGD, momentum: 0.7}, sync_period: 3}"
    overrides = ["optimizer.name=Lookahead", f"optimizer.options={options}"]
    optimizer = Trainer(load_recipe(recipe_file, overrides), tmp_path / "run").model.optimizer
    assert optimizer._optimizer.momentum == 0.7
    assert optimizer.sync_period == 3


@with_addons
def test_validation_and_the_saved_model_have_the_optimizers_averages(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, _overrides("MovingAverage"))
    trainer = Trainer(recipe, tmp_path / "run", verbose=0)
    trainer.run()
    assert isinstance(trainer.ema, OptimizerAverages)
    optimizer, weights = trainer.model.optimizer, trainer.model.trainable_variables
    averages = [optimizer.get_slot(weight, "average").numpy() for weight in weights]
    saved = tf.keras.models.load_model(tmp_path / "run" / "model.keras")
    for weight, average, kept in zip(weights, averages, saved.trainable_variables, strict=True):
        np.testing.assert_array_equal(kept.numpy(), average, err_msg=weight.name)
    differences = [np.abs(w.numpy() - a).max() for w, a in zip(weights, averages, strict=True)]
    assert max(differences) > 1e-4


@with_addons
@pytest.mark.parametrize("name", ["LAMB", "Lookahead", "SWA"])
def test_a_resumed_run_ends_as_the_whole_one(recipe_file, tmp_path, name):
    weights = {}
    for folder, epochs in (("whole", (2,)), ("parts", (1, 2))):
        for until in epochs:
            recipe = load_recipe(recipe_file, _overrides(name))
            trainer = Trainer(recipe, tmp_path / folder, verbose=0)
            if until == 1:
                trainer.callbacks.append(_Stop())
                with pytest.raises(RunStopped):
                    trainer.run()
            else:
                trainer.run()
        weights[folder] = trainer.model.get_weights()
    for ours, theirs in zip(weights["parts"], weights["whole"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@with_addons
def test_what_has_not_begun_to_average_leaves_the_weights(recipe_file, tmp_path):
    """SWA's averages are the first weights until then."""
    options = "{optimizer: {name: SGD, momentum: 0.9}, start_averaging: 100000}"
    overrides = ["optimizer.name=SWA", f"optimizer.options={options}"]
    trainer = Trainer(load_recipe(recipe_file, overrides), tmp_path / "run", verbose=0)
    before = trainer.model.get_weights()
    with pytest.warns(UserWarning, match="SWA has averaged nothing: it begins after update 100000"):
        trainer.run()
    saved = keras.models.load_model(tmp_path / "run" / "model.keras").get_weights()
    assert not any(np.array_equal(*pair) for pair in zip(before[:1], saved[:1], strict=True))
    for value, raw in zip(saved, trainer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, raw)
    arrays = CheckpointFolder(tmp_path / "run" / "checkpoints").latest().arrays
    assert not any(name.startswith("ema/") for name in arrays)


@with_addons
def test_a_wrapper_refuses_the_clipping_it_would_leave_out(recipe_file, tmp_path):
    options = "{optimizer: {name: SGD, global_clipnorm: 0.1}}"
    overrides = ["optimizer.name=Lookahead", f"optimizer.options={options}"]
    with pytest.raises(UsageError, match=r"set optimizer\.options\.global_clipnorm"):
        Trainer(load_recipe(recipe_file, overrides), tmp_path / "run")
