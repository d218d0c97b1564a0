"""Rewards by hand."""

import pytest

from effnetv2_tf.search.rewards import (
    FlopsAware,
    Measurement,
    MultiObjective,
    TrainingAware,
    flops_reward,
    training_aware_reward,
)

MEASURED = Measurement(
    accuracy=0.8,
    parameters=2_000_000,
    multiply_adds=400,
    step_seconds=0.5,
    reference_step_seconds=0.25,
)


def test_the_training_aware_reward():
    # 0.8 * 2^-0.07 * 4^-0.05 = 0.8 * 2^-0.17
    assert training_aware_reward(0.8, 2.0, 4.0) == pytest.approx(0.8 * 2**-0.17)
    assert training_aware_reward(0.8, 2.0, 4.0, -1.0, -0.5) == pytest.approx(0.2)


def test_the_backbones_reward_is_its_accuracy():
    assert TrainingAware(2_000_000)(
        Measurement(0.9, 2_000_000, 7, step_seconds=0.3, reference_step_seconds=0.3)
    ) == (pytest.approx(0.9),)
    assert TrainingAware(500_000)(MEASURED) == (pytest.approx(0.8 * 2**-0.17),)


def test_the_flops_reward():
    assert flops_reward(0.8, 400.0, 100.0) == pytest.approx(0.8 * 4**-0.07)
    assert FlopsAware(100, exponent=-0.5)(MEASURED) == (pytest.approx(0.4),)


def test_several_objectives():
    assert MultiObjective()(MEASURED) == (0.8, 0.5, 2_000_000.0)
    assert MultiObjective.directions == ("maximize", "minimize", "minimize")


def test_what_cannot_be():
    with pytest.raises(ValueError, match="`step_time` must be positive. Received: 0.0"):
        training_aware_reward(0.5, 0.0, 1.0)
    with pytest.raises(ValueError, match="`target` must be positive"):
        flops_reward(0.5, 1.0, -1.0)
    with pytest.raises(ValueError, match="`step_seconds` is None; expected a measured time"):
        MultiObjective()(Measurement(0.5, 1, 1))
