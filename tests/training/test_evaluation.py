"""What a network is evaluated at, and what an evaluation tells."""

import pytest

from effnetv2_tf.search.step_time import measured_batch
from effnetv2_tf.training.build import build_schedule, evaluation_size
from effnetv2_tf.training.resolution_sweep import training_size


@pytest.mark.parametrize(
    ("progressive", "eval_size", "expected"),
    [
        ({"image_size": [16, 36], "size_multiple": 8}, None, 40),
        ({"image_size": [16, 36], "size_multiple": 8}, 36, 36),
        ({"image_size": [16, 36]}, None, 36),
        ({"image_size": [16, 36], "image_sizes": [16, 27], "size_multiple": 8}, None, 24),
    ],
)
def test_the_default_size_is_the_one_of_the_last_stage(
    make_recipe, progressive, eval_size, expected
):
    recipe = make_recipe(
        {"source": "digits", "eval_size": eval_size},
        progressive={"stages": 2, **progressive},
        training={"epochs": 2},
    )
    assert evaluation_size(recipe) == expected
    trained = build_schedule(recipe, 1437).stages[-1].image_size
    assert training_size(recipe) == trained
    assert measured_batch(recipe) == (4, trained)
