"""Step times: repeated until they settle, noisy ones reported, kept by architecture."""

import itertools
import json

import pytest

from effnetv2_tf.errors import UsageError
from effnetv2_tf.search import step_time
from effnetv2_tf.search.spaces import StageSpace
from effnetv2_tf.search.step_time import (
    StepTime,
    StepTimeCache,
    Timing,
    cache_key,
    measure_step_time,
    settled_step_time,
)
from effnetv2_tf.training import build
from effnetv2_tf.training.recipe_files import load_recipe

TIMING = Timing(steps=2, rounds=3, tolerance=0.05, most_rounds=6)
TINY = (
    "model.width=0.1",
    "model.depth=0.1",
    "model.head_filters=8",
    "progressive.image_size=[8, 8]",
    "training.batch_size=8",
)


def test_it_stops_when_the_rounds_agree():
    rounds = iter([9.0, 2.0, 2.0, 2.02])  # the first is slow, and leaves the window
    assert settled_step_time(lambda: next(rounds), TIMING) == StepTime(
        1.0, pytest.approx(0.0025), rounds=4, is_noisy=False
    )


def test_what_does_not_settle_is_noisy():
    rounds = iter([2.0, 4.0, 6.0] * 2)
    measured = settled_step_time(lambda: next(rounds), TIMING)
    assert measured == StepTime(2.0, pytest.approx(0.25), rounds=6, is_noisy=True)


def test_the_key_is_of_what_decides_the_time():
    recipe = load_recipe("configs/quickstart.yaml")

    def key(*overrides, device="cpu"):
        return cache_key(load_recipe("configs/quickstart.yaml", overrides), 10, 1, device)

    assert key("training.epochs=3", "name=other", "progressive.stages=1") == key()
    assert cache_key(recipe, 11, 1, "cpu") != key()
    assert key(device="gpu") != key()
    others = ("model.width=0.6", "training.batch_size=65", "optimizer.name=sgd")
    assert len({key(), *map(key, others), key("progressive.image_size=[16, 24]")}) == 5


def test_the_backbone_has_the_same_key_as_a_point_of_the_space():
    recipe = load_recipe("configs/quickstart.yaml")
    space = StageSpace(build.network_spec(recipe.model))
    point = space.recipe(space.backbone_point(), recipe)
    assert point.model != recipe.model
    assert cache_key(point, 10, 1, "cpu") == cache_key(recipe, 10, 1, "cpu")


def test_the_cache_measures_once_and_the_first_value_stays(tmp_path):
    path = tmp_path / "step_times.json"
    measured = StepTime(0.1, 0.01, 5, False)
    assert StepTimeCache(path).get_or_measure("k", lambda: measured) == measured
    assert StepTimeCache(path).get_or_measure("k", lambda: pytest.fail("again")) == measured
    assert StepTimeCache(path).put("k", StepTime(0.9, 0.01, 5, False)) == measured
    assert json.loads(path.read_text())["k"]["seconds"] == 0.1


def test_a_damaged_cache_is_named(tmp_path):
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(UsageError, match=r"t\.json: damaged .*; remove it"):
        StepTimeCache(tmp_path / "t.json").get("k")


@pytest.mark.slow
def test_steps_are_timed_by_the_clock_that_is_asked_for(monkeypatch):
    ticks = itertools.count(0, 7)
    monkeypatch.setitem(step_time._CLOCKS, "processor", lambda: next(ticks))
    recipe = load_recipe("configs/quickstart.yaml", [*TINY, "progressive.stages=1"])
    timing = Timing(warmup_steps=1, steps=2, rounds=3, clock="processor")
    assert measure_step_time(recipe, 10, 1, timing).seconds == 7 / 2


@pytest.mark.slow
def test_a_larger_batch_takes_longer():
    timing = Timing(warmup_steps=2, steps=2, rounds=3, most_rounds=6, tolerance=0.2)
    small, large = (
        measure_step_time(load_recipe("configs/quickstart.yaml", [*TINY, *more]), 10, 1, timing)
        for more in ((), ("training.batch_size=512", "progressive.image_size=[32, 32]"))
    )
    assert 0 < small.seconds < large.seconds
