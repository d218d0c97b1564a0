"""NASNets in recipes: a genotype in YAML, the auxiliary head, drop path that grows."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import yaml

from effnetv2_tf import load_model
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.genotypes import NASNET_A, Block, Cell, Genotype
from effnetv2_tf.models.layers import NASNetCell
from effnetv2_tf.models.nasnet import build_nasnet
from effnetv2_tf.models.nasnet_specs import NASNET_LARGE, NASNET_MOBILE
from effnetv2_tf.training import build
from effnetv2_tf.training.auxiliary import AuxiliaryNetwork, main_network, with_auxiliary_loss
from effnetv2_tf.training.recipe_files import dump_recipe, load_recipe, parse_recipe
from effnetv2_tf.training.runs import open_run
from effnetv2_tf.training.trainer import Trainer

GENOTYPE = Genotype(
    normal=Cell(
        (Block(0, "sep_conv_3x3", 1, "identity"), Block(2, "max_pool_3x3", 0, "conv_1x1")),
        outputs=(2, 3),
    ),
    reduction=Cell((Block(0, "conv_3x3", 1, "max_pool_3x3"),)),
)


def _tree(**model):
    return {
        "name": "tiny",
        "model": {
            "name": "nasnet-mobile",
            "genotype": GENOTYPE.as_values(),
            "cells_per_stack": 1,
            "filters": 4,
            "stem_filters": 4,
            "stem_stride": 1,
            "stem_reductions": 0,
            "batch_norm_momentum": 0.9,
            "dropout_rate": 0.0,
            "drop_path_rate": 0.2,
            **model,
        },
        "data": {
            "source": "digits",
            "augmentation": {"crop": "none", "flip": False, "policy": "none"},
            "eval_crop": "none",
        },
        "training": {"epochs": 1, "batch_size": 128, "ema_decay": 0.5},
        "progressive": {"stages": 1, "image_size": [8, 8]},
    }


def _written(tmp_path, tree):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_genotype_goes_through_yaml_and_builds_its_network(tmp_path):
    recipe = load_recipe(_written(tmp_path, _tree()))
    again = parse_recipe(yaml.safe_load(dump_recipe(recipe)))
    assert again == recipe
    spec = build.model_spec(again.model)
    assert spec.genotype == GENOTYPE
    assert (spec.filters, spec.penultimate_filters) == (4, 4 * 4 * 2)
    model = build.build_model(again, num_classes=10, channels=1)
    expected = build_nasnet(spec, classes=10, input_shape=(None, None, 1))
    assert [w.shape for w in model.weights] == [w.shape for w in expected.weights]


@pytest.mark.parametrize("row", [NASNET_MOBILE, NASNET_LARGE], ids=lambda row: row.name)
def test_a_name_alone_is_the_papers_network(row):
    tree = _tree() | {"model": {"name": row.name}}
    assert build.model_spec(parse_recipe(tree).model) == row
    assert build.model_spec(parse_recipe(tree).model).genotype == NASNET_A


def test_other_cells_leave_the_width_of_the_stacks():
    tree = _tree() | {"model": {"name": "nasnet-mobile", "genotype": GENOTYPE.as_values()}}
    assert build.model_spec(parse_recipe(tree).model).filters == NASNET_MOBILE.filters == 44


@pytest.mark.slow
def test_training_with_the_auxiliary_head_leaves_a_network_without_it(tmp_path):
    recipe = parse_recipe(_tree(auxiliary_head=True))
    trainer = Trainer(recipe, tmp_path / "run", verbose=0)
    assert isinstance(trainer.model, AuxiliaryNetwork)
    before = [w.numpy() for w in trainer.model.get_layer("auxiliary_classifier").weights]
    summary = trainer.run()
    after = [w.numpy() for w in trainer.model.get_layer("auxiliary_classifier").weights]
    assert all(np.abs(new - old).max() > 0 for old, new in zip(before, after, strict=True))

    # Drop path has grown by step 11 of 12, with the depth of the five cells.
    rates = [c.drop_path_rate for c in trainer.model.layers if isinstance(c, NASNetCell)]
    steps = trainer.schedule.total_steps
    final = 0.2 * (steps - 1) / steps
    assert rates == pytest.approx([final * (i + 1) / 5 for i in range(5)])

    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1)).astype("float32")
    saved = load_model(tmp_path / "run" / "model.keras")
    assert saved.output_shape == (None, 10)
    assert not [layer for layer in saved.layers if layer.name.startswith("auxiliary")]
    opened = open_run(tmp_path / "run").model
    np.testing.assert_allclose(opened(images), saved(images), atol=1e-6)
    assert np.abs(np.array(trainer.network(images)) - np.array(saved(images))).max() > 1e-6
    assert summary["parameters"] == saved.count_params() < trainer.model.count_params()
    np.testing.assert_array_equal(trainer.model(images), trainer.network(images))

    resumed = Trainer(recipe, tmp_path / "run", verbose=0)
    resumed.run()
    for one, other in zip(resumed.model.weights, trainer.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_the_auxiliary_loss_is_added_in_training_and_metrics_see_the_classifier():
    recipe = parse_recipe(_tree(auxiliary_head=True, drop_path_rate=0.0))
    model = build.build_model(recipe, num_classes=3, channels=1)
    assert model.output_shape == (None, 3)
    optimizer = keras.optimizers.SGD(0.0)
    build.compile_model(model, recipe, optimizer)
    images = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 1)).astype("float32")
    labels = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2]]
    scores = model(images, training=True)
    assert scores.shape == (6, 2, 3)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    expected = float(loss(labels, scores[:, 0])) + 0.4 * float(loss(labels, scores[:, 1]))
    logs = model.train_on_batch(images, labels, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-4)
    hits = np.array(scores[:, 0]).argmax(1) == labels.argmax(1)
    assert float(logs["accuracy"]) == pytest.approx(hits.mean(), abs=1e-6)
    tested = model.test_on_batch(images, labels, return_dict=True)
    assert float(tested["loss"]) == pytest.approx(float(loss(labels, model(images))), rel=1e-4)


@pytest.mark.parametrize("auxiliary_head", [False, True])
def test_weights_of_a_trained_nasnet_but_for_the_classifier(tmp_path, auxiliary_head):
    recipe = parse_recipe(_tree())
    keras.utils.set_random_seed(1)
    trained = build.build_model(recipe, num_classes=5, channels=1)
    trained.save(tmp_path / "trained.keras")
    weights = {"weights": str(tmp_path / "trained.keras"), "new_classifier": True}
    tree = _tree(**weights, auxiliary_head=auxiliary_head)
    model = build.build_model(parse_recipe(tree), num_classes=10, channels=1)
    features = keras.Model(model.input, model.get_layer("relu").output)
    expected = keras.Model(trained.input, trained.get_layer("relu").output)
    for ours, theirs in zip(features.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert model.output_shape == (None, 10)


def test_a_network_without_an_auxiliary_head_is_left_alone():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    assert main_network(model) is model
    assert with_auxiliary_loss(model, "loss", 0.4) == "loss"


@pytest.mark.parametrize(
    ("changes", "ramps"),
    [
        ({}, True),
        ({"training.drop_path_ramp": False}, False),
        ({"model.drop_path_rate": 0.0}, False),
        ({"progressive.drop_path_rate": [0.0, 0.1]}, False),
        ({"model": {"name": "efficientnetv2-b0"}}, False),
        ({"model": {"name": "efficientnetv2-b0"}, "training.drop_path_ramp": True}, True),
    ],
)
def test_who_ramps_drop_path(tmp_path, changes, ramps):
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    recipe = load_recipe(_written(tmp_path, _tree()), overrides)
    callbacks = build.build_drop_path_ramp(recipe, build.build_schedule(recipe, 1000))
    assert len(callbacks) == ramps
    if ramps:
        assert callbacks[0].final_rate == build.model_spec(recipe.model).drop_path_rate
        assert callbacks[0].total_steps == 7  # 1000 images in batches of 128


def test_a_later_state_is_one_line_and_2(tmp_path):
    tree = _tree()
    tree["model"]["genotype"]["normal"]["blocks"][0]["right_state"] = 3
    flags = (f"--config={_written(tmp_path, tree)}", f"--model_dir={tmp_path / 'run'}")
    done = subprocess.run(
        [sys.executable, "-m", "effnetv2_tf.train", *flags],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert not (tmp_path / "run").exists()
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "model.genotype.normal: " in line
    assert "block 0: `right_state` must be a state that exists by then, 0 to 1" in line
    assert line.endswith("Received: 3.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.width": 1.2}, "model.width: expected none with 'nasnet-mobile', which is a NAS"),
        ({"model.name": "efficientnetv2-b0"}, "model.genotype: expected none with 'efficientnet"),
        ({"model.name": "nasnet-mobil"}, "unknown network 'nasnet-mobil'; did you mean 'nasnet-m"),
        ({"model.penultimate_filters": 96}, "penultimate_filters: expected none beside filters"),
        ({"model.filters": None, "model.penultimate_filters": 9}, "must be a multiple of 8"),
        ({"model.genotype": {"normal": {"blocks": []}}}, r"genotype.normal: .*`blocks` is empty"),
        (
            {"training.drop_path_ramp": True, "progressive.drop_path_rate": [0.0, 0.1]},
            "training.drop_path_ramp: expected no progressive.drop_path_rate",
        ),
        (
            {"reduced_resolution": {"modulo": 8}, "data.eval_size": 16},
            "reduced_resolution: expected an EfficientNet, received 'nasnet-mobile'",
        ),
        (
            {"fine_tuning": {"learning_rate_decay": 0.5}},
            "fine_tuning.learning_rate_decay: expected 1 with a NASNet",
        ),
    ],
)
def test_what_cannot_be(tmp_path, changes, message):
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    with pytest.raises(UsageError, match=message):
        build.model_spec(load_recipe(_written(tmp_path, _tree()), overrides).model)
