"""Sweeps over test sizes: which sizes, and what is found at each."""

import keras
import numpy as np
import pytest

from effnetv2_tf import count_flops
from effnetv2_tf.data.sources import ArraySource
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models import scaling
from effnetv2_tf.models.families import SPECS
from effnetv2_tf.reporting.pareto import pareto_front
from effnetv2_tf.training import build, resolution_sweep
from effnetv2_tf.training.checkpoints import Checkpoint
from effnetv2_tf.training.recipe_files import load_recipe, parse_recipe
from effnetv2_tf.training.runs import OpenedRun

RECIPE = {
    "name": "tiny",
    "model": {
        "name": "efficientnetv2-b0",
        "stem_filters": 8,
        "head_filters": 16,
        "stages": [{"block": "mbconv", "stride": 2, "filters": 8, "repeats": 1}],
    },
    "data": {"source": "digits", "eval_size": 16, "eval_crop": "none"},
    "training": {"epochs": 2, "batch_size": 8},
    "progressive": {"stages": 2, "image_size": [8, 14], "size_multiple": 4},
}


def _run(path, images=40, seed=0, **changes):
    keras.utils.set_random_seed(seed)
    recipe = parse_recipe({**RECIPE, **changes})
    pixels = np.random.default_rng(0).integers(0, 256, (images, 8, 8, 1), np.uint8)
    source = ArraySource(pixels, np.arange(images) % 10)
    return OpenedRun(
        recipe, Checkpoint({}, {"step": 3}, path), build.build_model(recipe, 10, 1), source, "raw"
    )


@pytest.mark.parametrize(
    ("size", "step", "expected"),
    [
        (224, 32, [160, 192, 224, 256, 288, 320, 352]),
        (28, 4, [20, 24, 28, 32, 36, 40, 44]),
        (32, 32, [32, 64, 96, 128, 160]),
        (20, 8, [12, 20, 28, 36, 44, 52]),
    ],
)
def test_sizes_around(size, step, expected):
    assert resolution_sweep.sizes_around(size, step) == expected


def test_the_training_size_is_the_last_stages_without_fine_tuning():
    recipe = parse_recipe(RECIPE)
    assert resolution_sweep.training_size(recipe) == 16  # 14, rounded to a multiple of 4
    shipped = load_recipe("configs/reduced_resolution_fashion_mnist.yaml")
    assert resolution_sweep.training_size(shipped) == 32
    for each in (recipe, shipped):
        stages = build.build_schedule(each, 1000).stages
        last = [stage for stage in stages if stage.preprocessing == "training"][-1]
        assert resolution_sweep.training_size(each) == last.image_size


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "efficientnetv2-s", "efficientnet-b4"])
def test_the_families_total_stride_is_32(name):
    assert scaling.total_stride(SPECS[name]) == 32


def test_sizes_that_put_padding_elsewhere():
    recipe = parse_recipe(RECIPE)  # trained at 16 px, total stride 4
    assert resolution_sweep.misaligned_sizes(recipe, [8, 12, 14, 16, 18, 20]) == [14, 18]


def test_a_nasnet_has_no_such_sizes():
    recipe = parse_recipe({**RECIPE, "model": {"name": "nasnet-mobile"}})
    assert resolution_sweep.misaligned_sizes(recipe, [14, 18]) == []


def test_every_run_at_every_size(tmp_path):
    runs = {name: _run(tmp_path, seed=seed) for seed, name in enumerate(("first", "second"))}
    told = []
    points = resolution_sweep.sweep(
        runs,
        {"first": [8, 16], "second": [12]},
        batch_size=2,
        rounds=3,
        on_point=lambda name, size, result: told.append((name, size, result.top_1)),
    )
    assert [(p.run, p.image_size) for p in points] == [("first", 8), ("first", 16), ("second", 12)]
    assert told == [(p.run, p.image_size, p.top_1) for p in points]
    for point in points:
        run = runs[point.run]
        assert point.multiply_adds == count_flops(run.model, point.image_size)
        assert point.latency_ms > 0
        assert (point.images, point.training_size) == (40, 16)
        dataset = build.build_evaluation_dataset(run.recipe, run.evaluation, point.image_size)
        hits = [
            np.mean(run.model(images, training=False).numpy().argmax(1) == labels.numpy().argmax(1))
            for images, labels in dataset
        ]
        assert point.top_1 == pytest.approx(np.mean(hits), abs=1e-6)
    for cost, mark in (
        ("multiply_adds", "best_by_multiply_adds"),
        ("latency_ms", "best_by_latency"),
    ):
        rows = [(getattr(point, cost), point.top_1) for point in points]
        front = pareto_front(rows, ("min", "max"))
        assert [getattr(point, mark) for point in points] == [i in front for i in range(3)]


def test_runs_on_other_data_are_not_compared(tmp_path):
    runs = {"first": _run(tmp_path), "second": _run(tmp_path, images=30)}
    with pytest.raises(UsageError, match="expected runs on the same data, received 'first' on"):
        resolution_sweep.sweep(runs, {"first": [8], "second": [8]})
