"""Recipes that choose group convolutions and norms; training with them through `fit`."""

import keras
import numpy as np
import pytest
import yaml

from effnetv2_tf.errors import UsageError
from effnetv2_tf.keras_compat import flatten_layers, variable_path
from effnetv2_tf.models.layers import BatchNorm, GroupConv2D, GroupNorm, ProxyNorm
from effnetv2_tf.training import build
from effnetv2_tf.training.recipe_files import dump_recipe, parse_recipe
from effnetv2_tf.training.trainer import Trainer

TREE = {
    "name": "grouped",
    "model": {
        "name": "efficientnetv2-b0",
        "stem_filters": 16,
        "stem_stride": 1,
        "head_filters": 16,
        "group_size": 8,
        "stages": [
            {"block": "fused", "filters": 16, "repeats": 1, "expansion": 1},
            {"block": "mbconv", "filters": 16, "repeats": 1, "stride": 2, "se_ratio": 0.25},
        ],
    },
    "data": {
        "source": "digits",
        "eval_crop": "none",
        "augmentation": {"crop": "pad", "policy": "none"},
    },
    "training": {"epochs": 2, "batch_size": 256, "ema_decay": None},
    "progressive": {"stages": 2, "image_size": [8, 16]},
    "learning_rate": {"per_256": 0.004, "warmup_epochs": 0},
}


def _recipe(**model):
    return parse_recipe({**TREE, "model": {**TREE["model"], **model}})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, {BatchNorm}),
        ({"normalization": "group", "normalization_groups": 2}, {GroupNorm}),
        ({"normalization": "layer", "proxy_normalization": True}, {GroupNorm, ProxyNorm}),
    ],
)
def test_the_recipe_decides_the_norms(model, expected):
    recipe = _recipe(**model)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    layers = flatten_layers(build.build_model(recipe, 10, 1))
    norms = {type(layer) for layer in layers if isinstance(layer, (BatchNorm, GroupNorm))}
    assert norms == expected
    convolutions = [layer for layer in layers if isinstance(layer, GroupConv2D)]
    assert [layer.kernel.shape[2] for layer in convolutions] == [8, 8]


def test_a_row_with_proxy_normalisation_goes_back_to_batch_norm():
    model = {"name": "efficientnet-b0-g16", "normalization": "batch"}
    recipe = parse_recipe({**TREE, "model": {**model, "proxy_normalization": False}})
    spec = build.network_spec(recipe.model)
    assert (spec.group_size, spec.normalization, spec.proxy_normalization) == (16, "batch", False)
    with pytest.raises(UsageError, match=r"model: .*`proxy_normalization` stands in .*'batch'"):
        build.network_spec(parse_recipe({**TREE, "model": model}).model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"group_size": 0}, "model.group_size: .*greater than or equal to 1.*received 0"),
        ({"group_size": True}, "model.group_size: .*true or false"),
        ({"normalization": "layr"}, "model.normalization: .*did you mean 'layer'"),
        ({"proxy_normalization": 1.5}, "model.proxy_normalization: "),
    ],
)
def test_wrong_keys(model, message):
    with pytest.raises(UsageError, match=message):
        _recipe(**model)


def test_settings_of_batch_norm_are_refused_with_other_norms():
    recipe = _recipe(normalization="layer", batch_norm_momentum=0.9)
    with pytest.raises(UsageError, match="model.batch_norm_momentum: expected none with .*'layer'"):
        build.network_spec(recipe.model)
    recipe = _recipe(normalization="group", normalization_groups=2, synchronized_batch_norm=True)
    with pytest.raises(UsageError, match="model.synchronized_batch_norm: expected none with "):
        build.network_spec(recipe.model)


@pytest.mark.parametrize("optimizer", [{"name": "adamw"}, {"name": "Lion", "weight_decay": 0.1}])
def test_weight_decay_acts_on_what_l2_acts_on(optimizer):
    recipe = parse_recipe(
        {
            **TREE,
            "model": {**TREE["model"], "normalization": "layer", "proxy_normalization": True},
            "optimizer": optimizer,
        }
    )
    model = build.build_model(recipe, 10, 1)
    optimizer = build.build_optimizer(recipe, build.build_schedule(recipe, 256), model)
    decayed = {
        variable_path(weight).rpartition("/")[2]
        for weight in model.trainable_variables
        if optimizer._use_weight_decay(weight)
    }
    assert decayed == {"kernel", "proxy_gamma", "proxy_beta"}


def test_norm_groups_that_do_not_divide_are_a_usage_error():
    recipe = _recipe(normalization="group", normalization_groups=3)
    with pytest.raises(UsageError, match=r"model: GroupNorm 'stem_norm'.*groups=3, 16 channels"):
        build.build_model(recipe, 10, 1)


@pytest.mark.slow
def test_progressive_training_with_proxy_normalisation(tmp_path):
    recipe = _recipe(normalization="layer", proxy_normalization=True)
    summary = Trainer(recipe, tmp_path / "run").run()
    assert [stage["image_size"] for stage in summary["stages"]] == [8, 16]
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    parameters = model.get_layer("stem_norm").get_weights()
    assert len(parameters) == 4
    for values, initial in zip(parameters, (1, 0, 0, 0), strict=True):
        assert np.isfinite(values).all() and np.abs(values - initial).min() > 0


def _recomputing(recipe):
    """The classes of the layers that recompute once the recipe's model is compiled."""
    model = build.build_model(recipe, 10, 1)
    build.compile_model(model, recipe, keras.optimizers.SGD())
    layers = flatten_layers(model)
    return {type(layer).__name__ for layer in layers if getattr(layer, "recompute", False)}


def test_a_recipe_saves_memory_by_recomputing():
    def recipe(parts, **model):
        training = {**TREE["training"], f"recompute_{parts}": True}
        return parse_recipe({**TREE, "training": training, "model": {**TREE["model"], **model}})

    assert not _recomputing(_recipe())
    assert _recomputing(recipe("norms")) == {"BatchNorm"}
    assert _recomputing(recipe("blocks")) <= {"MBConv", "FusedMBConv"}
    assert _recomputing(recipe("blocks", normalization="layer"))
    with pytest.raises(UsageError, match=r"training\.recompute_norms: .* which has none"):
        _recomputing(recipe("norms", normalization="layer"))
