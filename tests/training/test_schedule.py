"""Stages as functions of the step: the paper's numbers, divisions, inverses, errors."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnetv2_tf.training.schedule import Regularization, Stage, StageSchedule

IMAGENET = 1_281_167


def _schedule(**changes):
    arguments = {
        "epochs": 8,
        "num_examples": 100,
        "batch_size": 10,
        "image_size": (128, 300),
        **changes,
    }
    return StageSchedule.progressive(**arguments)


def _sizes(schedule):
    return [stage.image_size for stage in schedule.stages]


@pytest.mark.parametrize(
    ("interpolation", "last", "expected"),
    [
        ("reference", 300, [171, 214, 257, 300]),
        ("reference", 384, [192, 256, 320, 384]),
        ("paper", 300, [128, 185, 242, 300]),
        ("paper", 380, [128, 212, 296, 380]),
    ],
)
def test_image_sizes_of_the_papers_models(interpolation, last, expected):
    schedule = _schedule(image_size=(128, last), interpolation=interpolation)
    assert _sizes(schedule) == expected


# SPEC section 2: the paper's table 6, first and last stage.
TABLE_6 = {
    "S": (Regularization(5, 0, None, 0.1), Regularization(15, 0, None, 0.3)),
    "M": (Regularization(5, 0, None, 0.1), Regularization(20, 0.2, None, 0.4)),
    "L": (Regularization(5, 0, None, 0.1), Regularization(25, 0.5, None, 0.5)),
}


@pytest.mark.parametrize("model", TABLE_6)
def test_the_papers_regularisation_starts_and_ends_exactly(model):
    start, end = TABLE_6[model]
    stages = _schedule(start=start, end=end).stages
    assert stages[0].regularization == start
    assert stages[-1].regularization == end


def test_the_papers_regularisation_of_m_in_between():
    start, end = TABLE_6["M"]
    second = _schedule(start=start, end=end).stages[1].regularization
    assert second.randaugment_magnitude == pytest.approx(10)
    assert second.mixup_alpha == pytest.approx(0.2 / 3)
    assert second.dropout_rate == pytest.approx(0.2)
    assert second.cutmix_alpha is None


def test_the_references_regularisation_is_the_papers():
    """google/automl's main.py moves sizes alone by (i + 1) / M, all else by a linspace."""
    schedule = _schedule(start=Regularization(5), end=Regularization(15), interpolation="reference")
    magnitudes = [stage.regularization.randaugment_magnitude for stage in schedule.stages]
    assert magnitudes == pytest.approx([5.0, 25 / 3, 35 / 3, 15.0])
    assert _sizes(schedule) == [171, 214, 257, 300]


def test_interpolate_takes_the_only_number_there_is():
    middle = Regularization(mixup_alpha=0.4, dropout_rate=0.125).interpolate(
        Regularization(cutmix_alpha=0.6, dropout_rate=0.375), 0.5
    )
    assert middle == Regularization(mixup_alpha=0.4, cutmix_alpha=0.6, dropout_rate=0.25)


def test_one_stage_is_the_end():
    for interpolation in ("paper", "reference"):
        schedule = _schedule(num_stages=1, interpolation=interpolation, end=Regularization(9))
        assert _sizes(schedule) == [300]
        assert schedule.stages[0].regularization.randaugment_magnitude == 9


def test_imagenets_stages_have_87_or_88_epochs():
    schedule = _schedule(epochs=350, num_examples=IMAGENET, batch_size=4096)
    assert [stage.epochs for stage in schedule.stages] == [87, 88, 87, 88]
    assert schedule.stages[0].steps_per_epoch == 312
    assert schedule.total_steps == 350 * 312
    assert [stage.first_epoch for stage in schedule.stages] == [0, 87, 175, 262]
    assert [stage.first_step for stage in schedule.stages] == [0, 27144, 54600, 81744]


def test_batch_sizes_of_the_stages():
    schedule = _schedule(batch_size=[50, 25, 20, 7])
    assert [stage.steps_per_epoch for stage in schedule.stages] == [2, 4, 5, 14]
    assert [stage.first_step for stage in schedule.stages] == [0, 4, 12, 22]
    assert schedule.total_steps == 50
    assert schedule.most_steps_per_epoch == 14


def test_sizes_are_rounded_to_the_multiple():
    assert _sizes(_schedule(size_multiple=32)) == [128, 192, 256, 288]
    assert _sizes(_schedule(size_multiple=32, image_size=(128, 310))) == [128, 192, 256, 320]


def test_sizes_and_epochs_given_outright():
    schedule = _schedule(image_sizes=[64, 64, 96, 128], epochs_per_stage=[1, 1, 2, 4])
    assert _sizes(schedule) == [64, 64, 96, 128]
    assert [stage.first_epoch for stage in schedule.stages] == [0, 1, 2, 4]
    assert schedule.stage_of_epoch(3) is schedule.stages[2]


def test_positions_by_hand():
    schedule = _schedule(batch_size=[50, 25, 20, 10], epochs=4)  # 2 + 4 + 5 + 10 steps
    found = [
        (p.stage.index, p.epoch, p.step_in_epoch)
        for p in map(schedule.position, [0, 1, 2, 5, 6, 20])
    ]
    assert found == [(0, 0, 0), (0, 0, 1), (1, 1, 0), (1, 1, 3), (2, 2, 0), (3, 3, 9)]


def test_epochs_past_the_end_belong_to_the_last_stage():
    schedule = _schedule()
    assert schedule.stage_of_epoch(8) is schedule.stages[-1]
    assert schedule.first_step_of_epoch(9) == 90
    assert schedule.position(95).epoch == 9


@st.composite
def schedules(draw):
    stages = draw(st.integers(1, 6))
    return StageSchedule.progressive(
        epochs=draw(st.integers(stages, 40)),
        num_examples=draw(st.integers(64, 500)),
        batch_size=draw(st.lists(st.integers(1, 64), min_size=stages, max_size=stages)),
        image_size=(draw(st.integers(8, 100)), draw(st.integers(100, 300))),
        num_stages=stages,
        interpolation=draw(st.sampled_from(["paper", "reference"])),
    )


@given(schedules(), st.data())
def test_position_is_the_inverse_of_first_step_of_epoch(schedule, data):
    epoch = data.draw(st.integers(0, schedule.epochs - 1))
    stage = schedule.stage_of_epoch(epoch)
    step = data.draw(st.integers(0, stage.steps_per_epoch - 1))
    position = schedule.position(schedule.first_step_of_epoch(epoch) + step)
    assert (position.stage, position.epoch, position.step_in_epoch) == (stage, epoch, step)


@given(schedules())
def test_stages_leave_no_gap_and_sizes_never_shrink(schedule):
    for before, after in zip(schedule.stages, schedule.stages[1:], strict=False):
        assert after.first_epoch == before.last_epoch
        assert after.first_step == before.last_step
        assert after.image_size >= before.image_size
        assert abs(after.epochs - before.epochs) <= 1
    last = schedule.epochs - 1
    end = schedule.first_step_of_epoch(last) + schedule.stages[-1].steps_per_epoch
    assert end == schedule.total_steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_stages": 9}, "`num_stages` must not exceed `epochs`.*num_stages=9, epochs=8"),
        ({"num_stages": 0}, "`num_stages` must be a whole number from 1 up.*num_stages=0"),
        ({"num_stages": "2"}, "`num_stages` must be a whole number from 1 up.*num_stages='2'"),
        (
            {"image_size": (24.5, 32)},
            r"`image_size` must hold whole numbers of pixels.*\(24.5, 32\)",
        ),
        ({"image_sizes": ["a"] * 4}, "`image_sizes` must hold whole numbers of pixels"),
        ({"start": 0.1}, "`start` must be a Regularization, e.g. .*Received: 0.1"),
        ({"end": {"dropout_rate": 0.1}}, "`end` must be a Regularization"),
        ({"batch_size": 101}, r"`batch_size` must lie between 1 and.*\(100\).*101"),
        ({"batch_size": 0}, "`batch_size` must lie between 1 and"),
        ({"batch_size": [8, 8]}, r"`batch_size` must be one whole number or 4.*\[8, 8\]"),
        ({"image_size": (7, 64)}, r"at least 8 pixels\. Received: \[7, .*, 64\]\.$"),
        (
            {"image_size": (8, 64), "size_multiple": 32},
            r"at least 8 .*\[0, .*rounded to .*32 \(",
        ),
        ({"image_sizes": [64]}, r"`image_sizes` must hold 4 numbers.*\[64\]"),
        ({"epochs_per_stage": [2, 2, 2, 1]}, r"`epochs_per_stage` must hold 4.*add up to 8"),
        ({"epochs_per_stage": [4, 4, 0, 0]}, r"`epochs_per_stage` must hold 4 positive"),
        ({"interpolation": "papre"}, "'paper' or 'reference'. Received: 'papre'"),
        ({"size_multiple": 0}, "`size_multiple` must be a whole number from 1 up.*0"),
        ({"size_multiple": 8.0}, "`size_multiple` must be a whole number from 1 up.*8.0"),
        ({"size_multiple": "8"}, "`size_multiple` must be a whole number from 1 up.*'8'"),
        ({"epochs_per_stage": [1.5, 2.5, 2, 2]}, r"`epochs_per_stage` must hold 4 positive whole"),
        ({"epochs_per_stage": 8}, r"`epochs_per_stage` must hold 4 .*Received: 8"),
        ({"image_size": None}, "`image_size` must be the sides .*Received: None"),
        ({"image_size": np.int64(16)}, "`image_size` must be the sides .*Received: 16"),
        ({"image_sizes": 16}, "`image_sizes` must hold 4 numbers.*Received: 16"),
        ({"image_sizes": [16] * 4, "interpolation": "foo"}, "`interpolation` must be 'paper' or"),
    ],
)
def test_errors_name_the_argument(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        _schedule(**changes)
    assert "\n" not in str(caught.value)


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match=re.escape("`step` must be >= 0. Received: step=-1")):
        _schedule().position(-1)


def test_fine_tuning_is_one_more_stage_without_augmentation():
    strengths = Regularization(10, 0.2, 0.5, 0.3, 0.1)
    schedule = _schedule(end=strengths, num_stages=2).with_fine_tuning(384, 3)
    before, stage = schedule.stages[1:]
    assert (stage.index, stage.image_size, stage.preprocessing) == (2, 384, "evaluation")
    assert stage.regularization == Regularization(0, 0, 0, 0.3, 0.1)
    assert (stage.first_epoch, stage.epochs, stage.batch_size) == (8, 3, before.batch_size)
    assert (stage.first_step, schedule.total_steps) == (before.last_step, 11 * 10)
    assert schedule.position(85).stage == stage
    assert {s.preprocessing for s in schedule.stages[:2]} == {"training"}


@pytest.mark.parametrize(
    ("size", "epochs", "message"),
    [
        (32, 0, "`epochs` must be a whole number from 1 up. Received: 0"),
        (32, -1, "`epochs` must be a whole number from 1 up. Received: -1"),
        (0, 1, "`image_size` must be a whole number of pixels, at least 8. Received: 0"),
    ],
)
def test_fine_tuning_that_cannot_be(size, epochs, message):
    with pytest.raises(ValueError, match=message):
        _schedule().with_fine_tuning(size, epochs)


def test_numbers_of_numpy_will_do():
    schedule = _schedule(
        epochs=np.int64(8), image_sizes=np.array([16, 24, 32, 40]), epochs_per_stage=np.full(4, 2)
    )
    assert [stage.image_size for stage in schedule.stages] == [16, 24, 32, 40]
    assert schedule.epochs == 8


def test_stages_by_hand_follow_each_other():
    first = Stage(0, 32, 8, first_epoch=0, epochs=2, steps_per_epoch=5, first_step=0)
    second = dataclasses.replace(first, index=1, image_size=64, first_epoch=2, first_step=10)
    assert StageSchedule((first, second)).total_steps == 20
    with pytest.raises(ValueError, match=r"stage 1 must begin with epoch 2 and step 10.*step=9"):
        StageSchedule((first, dataclasses.replace(second, first_step=9)))
    with pytest.raises(ValueError, match="expected at least one stage"):
        StageSchedule(())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 128}, r"`image_size` must be the sides .* Received: 128"),
        ({"batch_size": 8.0}, r"`batch_size` must be one whole number .* Received: 8.0"),
    ],
)
def test_numbers_of_another_kind(arguments, message):
    with pytest.raises(ValueError, match=message):
        _schedule(**arguments)


@pytest.mark.parametrize(
    ("name", "value"), [("dropout_rate", -0.5), ("drop_path_rate", 1.5), ("mixup_alpha", -1)]
)
def test_a_strength_that_cannot_be(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 0.* Received: {value}"):
        Regularization(**{name: value})


def test_a_strength_is_a_number():
    with pytest.raises(ValueError, match="`dropout_rate` must be a number. Received: '0.1'"):
        Regularization(dropout_rate="0.1")


@pytest.mark.parametrize("name", ["epochs", "num_examples"])
def test_counts_are_whole_numbers(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number. Received: 64.0"):
        _schedule(**{name: 64.0})
