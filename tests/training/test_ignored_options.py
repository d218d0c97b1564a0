"""Options that would do nothing are refused, with what is expected in their place."""

import pytest

from effnetv2_tf import build_network
from effnetv2_tf.errors import UsageError
from effnetv2_tf.training import build
from effnetv2_tf.training.trainer import Trainer

DIGITS = {"source": "digits"}


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        (
            "val_acc",
            "checkpoints.monitor: expected one of val_loss, val_accuracy, val_top_5_accuracy, "
            "loss, accuracy, top_5_accuracy, received 'val_acc'; did you mean 'val_accuracy'?",
        ),
        ("val_top_1", "received 'val_top_1'; did you mean"),
        ("xyz", "received 'xyz'"),
    ],
)
def test_a_monitor_that_is_never_logged(make_recipe, tmp_path, monitor, message):
    recipe = make_recipe(DIGITS, checkpoints={"monitor": monitor})
    with pytest.raises(UsageError) as caught:
        Trainer(recipe, tmp_path / "run", verbose=0)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("monitor", ["val_loss", "accuracy", "val_top_5_accuracy"])
def test_monitors_that_are_logged(make_recipe, tmp_path, monitor):
    recipe = make_recipe(
        DIGITS, checkpoints={"monitor": monitor}, training={"epochs": 1, "batch_size": 512}
    )
    trainer = Trainer(recipe, tmp_path / "run", verbose=0)
    trainer.run()
    assert trainer.saver.best["value"] == trainer.records.rows[0][monitor]
    assert (tmp_path / "run" / "checkpoints" / "best.npz").is_file()


def test_weights_of_classes_that_are_not_there(make_recipe):
    recipe = make_recipe(DIGITS, training={"class_weights": {3: 0.5, 10: 2.0}})
    with pytest.raises(UsageError) as caught:
        build.build_training_pipeline(recipe, build.open_split(recipe, "train"))
    assert str(caught.value) == (
        "training.class_weights: expected ids of classes, 0 to 9, received 10"
    )


def test_weights_of_classes_that_are_there(make_recipe):
    recipe = make_recipe(DIGITS, training={"class_weights": {0: 0.5, 9: 2.0}})
    pipeline = build.build_training_pipeline(recipe, build.open_split(recipe, "train"))
    assert pipeline.class_weights == {0: 0.5, 9: 2.0}


def test_a_new_classifier_without_weights(make_recipe):
    message = "model.new_classifier: expected weights beside it, .*; received none"
    with pytest.raises(UsageError, match=message):
        make_recipe(DIGITS, model={"new_classifier": True})


@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
def test_groups_of_a_norm_without_groups(make_recipe, normalization):
    model = {"normalization": normalization, "normalization_groups": 7}
    recipe = make_recipe(DIGITS, model=model)
    with pytest.raises(UsageError) as caught:
        build.network_spec(recipe.model)
    assert str(caught.value) == (
        "model.normalization_groups: expected model.normalization to be 'group' beside it, "
        f"received {normalization or 'batch'!r}, which has no groups"
    )


@pytest.mark.parametrize(
    ("channels", "keys"),
    [(1, "model.new_classifier: true"), (3, "data.channels: 3 and model.new_classifier: true")],
)
def test_weights_of_other_classes_name_the_recipes_keys(make_recipe, tmp_path, channels, keys):
    recipe = make_recipe(DIGITS)
    spec = build.network_spec(recipe.model)
    path = tmp_path / "other.weights.h5"
    build_network(spec, classes=7, input_shape=(None, None, channels)).save_weights(path)
    recipe = make_recipe(DIGITS, model={"weights": str(path)})
    with pytest.raises(UsageError) as caught:
        build.build_model(recipe, num_classes=10, channels=1)
    message = str(caught.value)
    assert message.startswith("model: Weights file")
    assert message.endswith(f"Set {keys}.")
    assert "include_top" not in message
