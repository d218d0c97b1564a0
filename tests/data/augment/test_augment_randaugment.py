"""RandAugment: levels by value, choice of operations, purity, signs and scaling."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images

from effnetv2_tf.data.augment import RandAugment, levels, ops, randaugment
from effnetv2_tf.data.augment.levels import OP_NAMES, LevelScale, OpDraws, level_to_argument

PHOTO = np.ascontiguousarray(load_sample_images().images[0][:96, :120])
SCALE = LevelScale(translate_pixels=100.0, cutout_half_size_pixels=40.0, reference_size=224)


@pytest.mark.parametrize(
    ("op_name", "at_0", "at_5", "at_10", "at_15", "at_30"),
    [
        ("AutoContrast", 0, 0, 0, 0, 0),
        ("Equalize", 0, 0, 0, 0, 0),
        ("Invert", 0, 0, 0, 0, 0),
        ("Rotate", 0, 15, 30, 45, 90),
        ("Posterize", 1, 2, 4, 6, 8),  # 0 and 12 bits are clipped
        ("Solarize", 0, 128, 256, 384, 768),
        ("SolarizeAdd", 0, 55, 110, 165, 330),
        ("Color", 0.1, 1.0, 1.9, 2.8, 5.5),
        ("Contrast", 0.1, 1.0, 1.9, 2.8, 5.5),
        ("Brightness", 0.1, 1.0, 1.9, 2.8, 5.5),
        ("Sharpness", 0.1, 1.0, 1.9, 2.8, 5.5),
        ("ShearX", 0, 0.15, 0.3, 0.45, 0.9),
        ("ShearY", 0, 0.15, 0.3, 0.45, 0.9),
        ("TranslateX", 0, 50, 100, 150, 300),
        ("TranslateY", 0, 50, 100, 150, 300),
        ("Cutout", 0, 20, 40, 60, 120),
    ],
)
def test_levels_by_value(op_name, at_0, at_5, at_10, at_15, at_30) -> None:
    expected = {0: at_0, 5: at_5, 10: at_10, 15: at_15, 30: at_30}
    for level, argument in expected.items():
        assert level_to_argument(op_name, level, SCALE) == pytest.approx(argument), level


def test_unknown_op_is_named() -> None:
    with pytest.raises(ValueError, match=r"op_name must be one of AutoContrast, .*'Blur'"):
        level_to_argument("Blur", 1.0, SCALE)


def expected_results(image: np.ndarray, sign: float, scale: float) -> dict[str, tf.Tensor]:
    """What each operation gives at level 10; the centre of cutout is (24, 90)."""
    return {
        "AutoContrast": ops.autocontrast(image),
        "Equalize": ops.equalize(image),
        "Invert": ops.invert(image),
        "Rotate": ops.rotate(image, sign * 30.0),
        "Posterize": ops.posterize(image, 4),
        "Solarize": ops.solarize(image, 256),
        "SolarizeAdd": ops.solarize_add(image, 110),
        "Color": ops.color(image, 1.9),
        "Contrast": ops.contrast(image, 1.9),
        "Brightness": ops.brightness(image, 1.9),
        "Sharpness": ops.sharpness(image, 1.9),
        "ShearX": ops.shear_x(image, sign * 0.3),
        "ShearY": ops.shear_y(image, sign * 0.3),
        "TranslateX": ops.translate_x(image, sign * 100.0 * scale),
        "TranslateY": ops.translate_y(image, sign * 100.0 * scale),
        "Cutout": ops.cutout(image, 24, 90, round(40 * scale)),
    }


@pytest.mark.parametrize(("sign_draw", "sign"), [(0.1, -1.0), (0.9, 1.0)])
def test_dispatch_applies_the_named_op_at_its_level(sign_draw: float, sign: float) -> None:
    draws = OpDraws(*tf.constant([sign_draw, 0.25, 0.75]))  # centre of 96 x 120
    image = tf.constant(PHOTO)
    for index, name in enumerate(OP_NAMES):
        argument = tf.constant(level_to_argument(name, 10.0, SCALE))
        result = levels.apply_op(image, OP_NAMES, tf.constant(index), argument, draws, SCALE, 128)
        expected = expected_results(PHOTO, sign, scale=96 / 224)[name]
        np.testing.assert_array_equal(result, expected, err_msg=name)
    unchanged = levels.apply_op(
        image, OP_NAMES, tf.constant(16), tf.constant(0.0), draws, SCALE, 128
    )
    np.testing.assert_array_equal(unchanged, PHOTO)


def test_only_small_images_scale_distances() -> None:
    def scale_of(height: int, width: int) -> float:
        return float(SCALE.image_scale(tf.zeros([height, width, 3], tf.uint8)))

    assert scale_of(224, 500) == 1.0
    assert scale_of(600, 500) == 1.0
    assert scale_of(112, 500) == pytest.approx(0.5)
    assert scale_of(28, 28) == pytest.approx(0.125)


def record_choices(monkeypatch: pytest.MonkeyPatch, count: int, layers: int) -> list[tuple]:
    """Returns (op index, sign, centre) of every operation that RandAugment asks for."""
    calls: list[tuple] = []

    def recorded(image, op_names, op_index, argument, draws, scale, fill):
        assert op_names == OP_NAMES
        calls.append(
            (int(op_index), float(draws.sign), float(draws.center_y), float(draws.center_x))
        )
        return image

    monkeypatch.setattr(randaugment, "apply_op", recorded)
    augment = RandAugment(num_layers=layers)
    image = tf.zeros([2, 2, 1], tf.uint8)
    for number in range(count):
        augment(image, tf.constant([number, 7]))
    return calls


def test_ops_are_drawn_uniformly_and_independently(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_choices(monkeypatch, count=800, layers=2)
    assert len(calls) == 1600
    counts = np.bincount([call[0] for call in calls], minlength=16)
    chi_square = ((counts - 100.0) ** 2 / 100.0).sum()
    assert chi_square < 37.7  # 15 degrees of freedom, p = 0.001
    first, second = (np.array([call[0] for call in calls[i::2]]) for i in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.12
    assert 0.4 < np.mean(first == second) * 16 < 1.6
    others = np.array([call[1:] for call in calls])
    np.testing.assert_allclose(others.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(others.var(0), 1 / 12, atol=0.01)
    correlation = np.corrcoef(np.array(calls).T) - np.eye(4)
    assert np.abs(correlation).max() < 0.1


def test_only_the_chosen_op_is_computed_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    genuine = ops.equalize

    def counted(image: tf.Tensor) -> tf.Tensor:
        def note(value: tf.Tensor) -> tf.Tensor:
            computed.append(1)
            return value

        noted = tf.py_function(note, [image], tf.uint8)
        noted.set_shape(image.shape)
        return genuine(noted)

    monkeypatch.setattr(ops, "equalize", counted)
    augment = RandAugment(num_layers=1)
    dataset = tf.data.Dataset.range(160).map(
        lambda number: augment(tf.constant(PHOTO[:8, :8]), tf.stack([number, 3]))
    )
    assert sum(1 for _ in dataset) == 160
    assert 2 <= len(computed) <= 25  # 10 expected; 160 if all branches ran


@pytest.mark.parametrize(("channels", "magnitude"), [(1, 30.0), (3, 15)])
def test_pure_and_equal_in_eager_and_dataset(channels: int, magnitude: float) -> None:
    image = PHOTO[..., :channels]
    augment = RandAugment(num_layers=2, magnitude=magnitude)
    dataset = tf.data.Dataset.range(24).map(
        lambda number: augment(tf.constant(image), tf.stack([number, 5]))
    )
    results = [result.numpy() for result in dataset]
    for number, result in enumerate(results):
        again = augment(image, tf.constant([number, 5], tf.int64))
        np.testing.assert_array_equal(result, again)
    assert len({result.tobytes() for result in results}) > 12


def test_unknown_sizes_in_a_dataset() -> None:
    images = [PHOTO[:20, :30], PHOTO[:50, :41]]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(images), output_signature=tf.TensorSpec([None, None, 3], tf.uint8)
    ).map(lambda image: RandAugment(num_layers=1)(image, tf.constant([1, 2])))
    assert dataset.element_spec.shape.as_list() == [None, None, 3]
    assert [result.shape for result in dataset.as_numpy_iterator()] == [(20, 30, 3), (50, 41, 3)]


def test_no_layers_is_the_identity() -> None:
    result = RandAugment(num_layers=0, magnitude=0)(PHOTO, tf.constant([1, 2]))
    np.testing.assert_array_equal(result, PHOTO)


@settings(max_examples=12)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    magnitude=st.floats(0, 40),
    seed=st.integers(0, 2**31 - 1),
)
def test_shape_and_dtype_are_kept(height, width, channels, magnitude, seed) -> None:
    image = tf.zeros([height, width, channels], tf.uint8)
    result = RandAugment(num_layers=4, magnitude=magnitude)(image, tf.constant([seed, -seed]))
    assert result.dtype == tf.uint8 and result.shape == image.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": -1}, r"RandAugment: num_layers must be an integer >= 0, received -1"),
        ({"num_layers": 1.5}, r"num_layers must be an integer >= 0, received 1.5"),
        ({"magnitude": -2}, r"magnitude must be a finite number >= 0.0, received -2"),
        ({"magnitude": float("nan")}, r"magnitude must be a finite number >= 0.0, received nan"),
        ({"magnitude": "10"}, r"magnitude must be a finite number >= 0.0, received '10'"),
        ({"fill": 256}, r"fill must be an integer between 0 and 255, received 256"),
        ({"reference_size": 0}, r"reference_size must be an integer >= 1, received 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandAugment(**arguments)


def test_bad_seeds_are_refused() -> None:
    message = r"seed must be an int32 or int64 tensor of shape \(2,\), received dtype "
    with pytest.raises(ValueError, match=message + "float32"):
        RandAugment()(PHOTO, tf.constant([1.0, 2.0]))
    with pytest.raises(ValueError, match=message + r"int32 and shape \(3,\)"):
        RandAugment()(PHOTO, tf.constant([1, 2, 3]))
