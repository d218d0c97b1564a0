"""A small network, and a folder of a training run that was never trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.files import write_text
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import IMAGENET_STATISTICS, NetworkSpec, StageSpec
from effnetv2_tf.training import build
from effnetv2_tf.training.checkpoints import CheckpointFolder
from effnetv2_tf.training.recipe_files import dump_recipe, parse_recipe
from effnetv2_tf.training.state import weights_by_name

SPEC = NetworkSpec(
    name="small",
    stages=(
        StageSpec("fused", 3, 1, 2, 8, 1),
        StageSpec("mbconv", 3, 2, 2, 16, 2, 0.25),
    ),
    stem_filters=8,
    head_filters=16,
    preprocessing=IMAGENET_STATISTICS,
)
RECIPE = {
    "name": "tiny",
    "model": {
        "name": "efficientnetv2-b0",
        "stem_filters": 8,
        "stem_stride": 1,
        "head_filters": 16,
        "stages": [{"block": "mbconv", "filters": 8, "repeats": 1, "se_ratio": 0.25}],
    },
    "data": {"source": "digits", "eval_crop": "none"},
    "training": {"epochs": 1, "batch_size": 8, "precision": "mixed_bfloat16"},
    "progressive": {"stages": 1, "image_size": [16, 16]},
}


def randomized(model: keras.Model, image_size: int) -> keras.Model:
    """Gives weights values that matter, as training would, and images different classes."""
    draw_weights(model)
    spread_classes(model, image_size)
    return model


def draw_weights(model: keras.Model) -> keras.Model:
    """Gives weights values that matter, as training would."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        name = keras_compat.variable_path(weight).rsplit("/", 1)[-1]
        if name in ("kernel", "depthwise_kernel"):
            scale = 1 / np.sqrt(np.prod(weight.shape[:2]) * 4)
            weight.assign(generator.normal(0, scale, weight.shape).astype("f"))
        elif name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape).astype("f"))
        elif name in ("beta", "moving_mean", "bias"):
            weight.assign(generator.normal(0, 0.3, weight.shape).astype("f"))
    return model


def spread_classes(model: keras.Model, image_size: int) -> None:
    """Scales the classifier so that logits of different images differ by a few units."""
    from effnetv2_tf.export.deploy_graph import build_deploy_graph
    from effnetv2_tf.export.images import ImagePreparation, RandomImages

    preparation = ImagePreparation(image_size, model.input_shape[-1])
    images = RandomImages().held_out(preparation, 40).pixels
    logits = build_deploy_graph(model).logits(images).numpy()
    classifier = model.get_layer("classifier")
    gain = 2 / logits.std(axis=0)
    classifier.kernel.assign(classifier.kernel * gain)
    classifier.bias.assign((classifier.bias - logits.mean(axis=0)) * gain)


@pytest.fixture(scope="session")
def network() -> keras.Model:
    """Seven classes, images of any size with three channels."""
    return randomized(build_network(SPEC, classes=7), 32)


@pytest.fixture(scope="session")
def make_network():
    """Builds the small network with weights that matter; arguments as `build_network`'s."""

    def make(activation: str = "silu", **arguments) -> keras.Model:
        return draw_weights(build_network(replace(SPEC, activation=activation), **arguments))

    return make


@pytest.fixture(scope="session", params=[None, "avg"], ids=["maps", "pooled"])
def backbone(request) -> keras.Model:
    """The same without a classifier."""
    return draw_weights(build_network(SPEC, include_top=False, pooling=request.param))


@pytest.fixture(scope="session")
def exportable(network):
    """The network at 32 px with labels, checked on random patterns."""
    from effnetv2_tf.export.images import ImagePreparation
    from effnetv2_tf.export.loading import wrap_model

    labels = [f"class {number}" for number in range(7)]
    return wrap_model(network, labels, ImagePreparation(32, crop_padding=4))


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Forty images, smooth enough to be told apart."""
    from effnetv2_tf.export.images import ImagePreparation, RandomImages

    return RandomImages().held_out(ImagePreparation(32), 40).pixels


@pytest.fixture
def model_dir(tmp_path) -> Path:
    """A run of the digits recipe with one checkpoint: raw weights, and averages beside them."""
    recipe = parse_recipe(RECIPE)
    model = randomized(build.build_model(recipe, 10, 1), 16)
    named = weights_by_name(model)
    arrays = {name: variable.numpy() + 1.0 for name, variable in named.items()}  # raw: useless
    arrays |= {name.replace("model/", "ema/"): v.numpy() for name, v in named.items()}
    folder = tmp_path / "run"
    folder.mkdir()
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    CheckpointFolder(folder / "checkpoints").save(arrays, {"step": 7})
    keras.backend.clear_session()
    return folder
