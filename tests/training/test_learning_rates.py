"""Learning rates at steps whose value is known."""

import math

import keras
import numpy as np
import pytest

from effnetv2_tf.training.learning_rates import FollowedBy, WarmUpDecay
from effnetv2_tf.training.schedule import StageSchedule

STEPS = 312  # an epoch of ImageNet at batch 4096


def _rate(decay, epochs=350, batch_size=4096, **options):
    return WarmUpDecay(0.016, decay, [(epochs * STEPS, STEPS, batch_size)], **options)


def _at(rate, epoch):
    return float(rate(round(epoch * STEPS)))


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 0.0),
        (1, 0.256 / 5),
        (2.5, 0.128),
        (5 - 1 / STEPS, 0.256 * (1 - 1 / (5 * STEPS))),
        (5, 0.256 * 0.97**2),  # two whole periods of 2.4 epochs
        (7.1, 0.256 * 0.97**2),
        (7.3, 0.256 * 0.97**3),
        (240, 0.256 * 0.97**100),
        (349, 0.256 * 0.97**145),
    ],
)
def test_the_imagenet_recipe(epoch, expected):
    rate = _rate("exponential", warmup_epochs=5)
    assert _at(rate, epoch) == pytest.approx(expected, rel=2e-3 if epoch < 7.2 else 1e-4)


def test_the_peak_is_0_256_at_batch_4096():
    rate = _rate("exponential", warmup_epochs=5)
    assert max(_at(rate, epoch) for epoch in np.arange(0, 20, 0.25)) < 0.256
    assert _at(_rate("exponential"), 0) == pytest.approx(0.256)


def test_exponential_without_a_staircase():
    rate = _rate("exponential", staircase=False)
    assert _at(rate, 1.2) == pytest.approx(0.256 * 0.97**0.5, rel=1e-3)


def test_cosine_goes_from_the_peak_to_its_final_share():
    rate = _rate("cosine", epochs=60, warmup_epochs=10, final_share=0.1)
    assert _at(rate, 10) == pytest.approx(0.256)
    assert _at(rate, 35) == pytest.approx(0.256 * 0.55)
    quarter = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))
    assert _at(rate, 22.5) == pytest.approx(0.256 * quarter)
    assert _at(rate, 60) == pytest.approx(0.0256)
    assert _at(rate, 99) == pytest.approx(0.0256)  # and stays


def test_cosine_ends_at_0_by_default():
    assert _at(_rate("cosine", epochs=60), 60) == pytest.approx(0, abs=1e-7)


def test_constant():
    rate = _rate("constant", warmup_epochs=5)
    assert [_at(rate, e) for e in (0, 2.5, 5, 349)] == pytest.approx([0, 0.128, 0.256, 0.256])


def test_batch_sizes_of_the_stages_scale_the_rate():
    schedule = StageSchedule.progressive(
        epochs=4, num_examples=1024, batch_size=[512, 256], image_size=(8, 16), num_stages=2
    )  # 2 steps an epoch, then 4
    rate = WarmUpDecay.for_schedule(schedule, 0.1, "constant")
    assert [float(rate(step)) for step in (0, 3, 4, 11)] == pytest.approx([0.2, 0.2, 0.1, 0.1])


def test_epochs_are_counted_across_stages_with_different_batch_sizes():
    schedule = StageSchedule.progressive(
        epochs=4, num_examples=1024, batch_size=[512, 256], image_size=(8, 16), num_stages=2
    )
    rate = WarmUpDecay.for_schedule(
        schedule, 1.0, "exponential", decay_factor=0.5, decay_epochs=1.0
    )
    # Epochs begin at steps 0, 2, 4 and 8; the peak is 2, then 1.
    found = [float(rate(step)) for step in (0, 1, 2, 4, 7, 8, 11)]
    assert found == pytest.approx([2, 2, 1, 0.25, 0.25, 0.125, 0.125])
    warming = WarmUpDecay.for_schedule(schedule, 1.0, "constant", warmup_epochs=3)
    assert [float(warming(step)) for step in (2, 6, 8)] == pytest.approx([2 / 3, 2.5 / 3, 1])


@pytest.mark.parametrize("decay", ["exponential", "cosine", "constant"])
def test_config_round_trip(decay):
    rate = _rate(decay, warmup_epochs=3, decay_factor=0.9, decay_epochs=7, final_share=0.2)
    config = keras.optimizers.schedules.serialize(rate)
    again = keras.optimizers.schedules.deserialize(config)
    assert type(again) is WarmUpDecay
    assert again.get_config() == rate.get_config()
    for epoch in (0, 1, 3, 50, 349):
        assert _at(again, epoch) == _at(rate, epoch)


def test_an_unknown_decay():
    with pytest.raises(ValueError, match=r"'exponential', 'cosine' or 'constant'.*'linear'"):
        _rate("linear")


def test_one_schedule_after_another():
    first = WarmUpDecay(0.016, "constant", [(100, 10, 256)], warmup_epochs=2)
    second = WarmUpDecay(0.001, "cosine", [(20, 10, 256)])
    rate = FollowedBy(first, 100, second)
    expected = {0: 0.0, 10: 0.008, 99: 0.016, 100: 0.001, 110: 0.0005, 120: 0.0}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-9), step
    again = FollowedBy.from_config(rate.get_config())
    for step in expected:
        assert float(again(step)) == float(rate(step))


@pytest.mark.parametrize(
    ("stages", "options", "message"),
    [
        ([], {}, r"`stages` must hold .* Received: \[\]"),
        ((100, 10, 256), {}, r"`stages` must hold .* Received: \(100, 10, 256\)"),
        ([(10, 5, 64)], {"warmup_epochs": -1}, "`warmup_epochs` must be >= 0. Received: -1"),
        ([(10, 5, 64)], {"decay_epochs": 0}, "`decay_epochs` must be positive. Received: 0"),
    ],
)
def test_rates_that_cannot_be(stages, options, message):
    with pytest.raises(ValueError, match=message):
        WarmUpDecay(0.1, "exponential", stages, **options)
