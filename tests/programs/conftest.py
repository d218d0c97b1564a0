"""A folder of a training run that was never trained."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from effnetv2_tf.files import write_text
from effnetv2_tf.training import build
from effnetv2_tf.training.checkpoints import CheckpointFolder
from effnetv2_tf.training.recipe_files import dump_recipe, parse_recipe
from effnetv2_tf.training.state import weights_by_name

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


@pytest.fixture
def tiny_run(tmp_path) -> Path:
    """A run of the digits recipe with one checkpoint."""
    recipe = parse_recipe(RECIPE)
    model = build.build_model(recipe, 10, 1)
    arrays = {name: variable.numpy() for name, variable in weights_by_name(model).items()}
    folder = tmp_path / "run"
    folder.mkdir()
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    CheckpointFolder(folder / "checkpoints").save(arrays, {"step": 7})
    keras.backend.clear_session()
    return folder
