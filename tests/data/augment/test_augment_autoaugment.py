"""AutoAugment v0: the table's facts, choice and probabilities, purity."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_images

from effnetv2_tf.data.augment import AutoAugment, autoaugment, ops
from effnetv2_tf.data.augment.autoaugment import V0_POLICY, PolicyStep, SubPolicy
from effnetv2_tf.data.augment.levels import OP_NAMES

PHOTO = np.ascontiguousarray(load_sample_images().images[0][100:164, 100:180])


def test_the_v0_table() -> None:
    assert len(V0_POLICY) == 25
    steps = [step for pair in V0_POLICY for step in (pair.first, pair.second)]
    assert Counter(step.op_name for step in steps) == {
        "Equalize": 12,
        "Color": 9,
        "Solarize": 8,
        "Rotate": 7,
        "ShearY": 4,
        "ShearX": 2,
        "SolarizeAdd": 2,
        "Posterize": 2,
        "AutoContrast": 2,
        "Invert": 1,
        "TranslateY": 1,
    }
    assert sum(step.probability for step in steps) == pytest.approx(29.8)
    assert sum(step.magnitude for step in steps) == 240
    assert V0_POLICY[15] == SubPolicy(
        first=PolicyStep("Rotate", 1.0, 7), second=PolicyStep("TranslateY", 0.8, 9)
    )
    assert V0_POLICY[-3] == SubPolicy(
        first=PolicyStep("Posterize", 0.8, 2), second=PolicyStep("Solarize", 0.6, 10)
    )


def test_sub_policies_and_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many seeds each operation is applied as often as the table says."""

    def recorded(image, op_names, op_index, argument, draws, scale, fill):
        numbers = tf.constant([*(OP_NAMES.index(name) for name in op_names), 99], tf.uint8)
        return tf.concat([image, tf.reshape(numbers[op_index], [1, 1, 1])], axis=0)

    monkeypatch.setattr(autoaugment, "apply_op", recorded)
    count = 3000
    records = tf.data.Dataset.range(count).map(
        lambda number: AutoAugment()(tf.zeros([1, 1, 1], tf.uint8), tf.stack([3, number]))
    )
    applied = Counter(int(number) for record in records for number in record.numpy()[1:, 0, 0])
    assert sum(applied.values()) == 2 * count
    expected: Counter[str] = Counter()
    for pair in V0_POLICY:
        for step in (pair.first, pair.second):
            expected[step.op_name] += step.probability * count / 25
    for name, mean in expected.items():
        assert abs(applied[OP_NAMES.index(name)] - mean) < 3.5 * np.sqrt(mean), name


def test_both_steps_apply_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    certain = SubPolicy(first=PolicyStep("Posterize", 1.0, 6), second=PolicyStep("Color", 1.0, 4))
    monkeypatch.setitem(autoaugment.POLICIES, "test", (certain,))
    result = AutoAugment("test")(PHOTO, tf.constant([0, 1]))
    expected = ops.color(ops.posterize(PHOTO, 2), 0.4 * 1.8 + 0.1)
    np.testing.assert_array_equal(result, expected)
    never = SubPolicy(first=PolicyStep("Invert", 0.0, 6), second=PolicyStep("Invert", 0.0, 4))
    monkeypatch.setitem(autoaugment.POLICIES, "test", (never,))
    np.testing.assert_array_equal(AutoAugment("test")(PHOTO, tf.constant([0, 1])), PHOTO)


@pytest.mark.parametrize(("translate_pixels", "expected_shift"), [(250.0, 64), (150.0, 39)])
def test_translation_scales_with_small_images(
    monkeypatch: pytest.MonkeyPatch, translate_pixels: float, expected_shift: int
) -> None:
    """Level 9 of 64 rows: 0.9 * 250 * 64 / 224 = 64.3 and 0.9 * 150 * 64 / 224 = 38.6."""
    pair = SubPolicy(first=PolicyStep("TranslateY", 1.0, 9), second=PolicyStep("Invert", 0.0, 0))
    monkeypatch.setitem(autoaugment.POLICIES, "test", (pair,))
    augment = AutoAugment("test", fill=3, translate_pixels=translate_pixels)
    results = {augment(PHOTO, tf.constant([0, n])).numpy().tobytes() for n in range(12)}
    expected = {
        ops.translate_y(PHOTO, sign * expected_shift, fill=3).numpy().tobytes() for sign in (-1, 1)
    }
    assert results == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_pure_and_equal_in_eager_and_dataset(channels: int) -> None:
    image = PHOTO[..., :channels]
    augment = AutoAugment()
    dataset = tf.data.Dataset.range(24).map(
        lambda number: augment(tf.constant(image), tf.stack([number, 5]))
    )
    assert dataset.element_spec.shape == image.shape
    results = [result.numpy() for result in dataset]
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result, augment(image, tf.constant([number, 5])))
    assert len({result.tobytes() for result in results}) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "v1"}, r"policy must be one of v0, received 'v1'; did you mean 'v0'\?"),
        ({"policy": 3}, r"policy must be one of v0, received 3$"),
        ({"fill": -1}, r"AutoAugment: fill must be an integer between 0 and 255, received -1"),
        ({"reference_size": 2.5}, r"reference_size must be an integer >= 1, received 2.5"),
        ({"translate_pixels": -1.0}, r"translate_pixels must be a finite number >= 0.0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoAugment(**arguments)
