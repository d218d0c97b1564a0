"""The sixteen operations by value: against Pillow, against hand-computed cases, eager and graph."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from effnetv2_tf.data.augment import ops

PHOTO = np.ascontiguousarray(load_sample_images().images[1][200:264, 200:280])  # 64 x 80
NOISE = np.random.default_rng(0).integers(0, 256, (33, 47, 3)).astype(np.uint8)
FLAT = np.full((12, 9, 3), (7, 100, 255), np.uint8)
NARROW = (NOISE // 8 + 90).astype(np.uint8)  # levels 90 to 121
IMAGES = {"photo": PHOTO, "noise": NOISE, "flat": FLAT, "narrow": NARROW}

# Every operation with a typical argument, for properties that all must have.
CALLS = {
    "autocontrast": lambda image: ops.autocontrast(image),
    "equalize": lambda image: ops.equalize(image),
    "invert": lambda image: ops.invert(image),
    "rotate": lambda image: ops.rotate(image, 20.0),
    "posterize": lambda image: ops.posterize(image, 3),
    "solarize": lambda image: ops.solarize(image, 128),
    "solarize_add": lambda image: ops.solarize_add(image, 55),
    "color": lambda image: ops.color(image, 1.9),
    "contrast": lambda image: ops.contrast(image, 1.9),
    "brightness": lambda image: ops.brightness(image, 0.7),
    "sharpness": lambda image: ops.sharpness(image, 1.9),
    "shear_x": lambda image: ops.shear_x(image, 0.3),
    "shear_y": lambda image: ops.shear_y(image, -0.3),
    "translate_x": lambda image: ops.translate_x(image, 5.0),
    "translate_y": lambda image: ops.translate_y(image, -5.0),
    "cutout": lambda image: ops.cutout(image, 3, 4, 6),
}


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    return image if channels == 3 else np.ascontiguousarray(image[..., 1:2])


def to_pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def from_pillow(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., np.newaxis]


@pytest.fixture(params=[1, 3], ids=["grey", "rgb"])
def channels(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(params=list(IMAGES))
def image(request: pytest.FixtureRequest, channels: int) -> np.ndarray:
    return with_channels(IMAGES[request.param], channels)


def test_equalize_equals_pillow(image: np.ndarray) -> None:
    expected = from_pillow(ImageOps.equalize(to_pillow(image)))
    np.testing.assert_array_equal(ops.equalize(image), expected)


def test_invert_equals_pillow(image: np.ndarray) -> None:
    expected = from_pillow(ImageOps.invert(to_pillow(image)))
    np.testing.assert_array_equal(ops.invert(image), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_posterize_equals_pillow(image: np.ndarray, bits: int) -> None:
    expected = from_pillow(ImageOps.posterize(to_pillow(image), bits))
    np.testing.assert_array_equal(ops.posterize(image, bits), expected)
    np.testing.assert_array_equal(ops.posterize(image, tf.constant(float(bits))), expected)


def test_posterize_clips_bits() -> None:
    np.testing.assert_array_equal(ops.posterize(NOISE, 0), np.zeros_like(NOISE))
    np.testing.assert_array_equal(ops.posterize(NOISE, -3), np.zeros_like(NOISE))
    np.testing.assert_array_equal(ops.posterize(NOISE, 12), NOISE)


@pytest.mark.parametrize("threshold", [0, 1, 128, 255, 256, 384])
def test_solarize_equals_pillow(image: np.ndarray, threshold: int) -> None:
    expected = from_pillow(ImageOps.solarize(to_pillow(image), threshold))
    np.testing.assert_array_equal(ops.solarize(image, threshold), expected)


def test_solarize_add_by_hand() -> None:
    image = np.array([0, 17, 100, 127, 128, 250], np.uint8).reshape(2, 3, 1)
    result = ops.solarize_add(image, 60).numpy().ravel()
    np.testing.assert_array_equal(result, [60, 77, 160, 187, 128, 250])
    result = ops.solarize_add(image, 200).numpy().ravel()
    np.testing.assert_array_equal(result, [200, 217, 255, 255, 128, 250])
    result = ops.solarize_add(image, 300, threshold=100).numpy().ravel()
    np.testing.assert_array_equal(result, [255, 255, 100, 127, 128, 250])


def test_autocontrast_is_exact_and_pillow_at_most_one_level_lower(image: np.ndarray) -> None:
    """Pillow truncates a double that is a hair below an integer when the exact value is one."""
    result = ops.autocontrast(image).numpy().astype(int)
    low, high = image.min((0, 1)).astype(int), image.max((0, 1)).astype(int)
    span = np.where(high > low, high - low, 255)
    exact = (image - np.where(high > low, low, 0)) * 255 // span
    np.testing.assert_array_equal(result, exact)
    difference = result - from_pillow(ImageOps.autocontrast(to_pillow(image)))
    assert difference.min() >= 0 and difference.max() <= 1
    is_integer = (image - np.where(high > low, low, 0)) * 255 % span == 0
    assert not difference[~is_integer].any()


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.55, 1.0, 1.9, 3.7])
@pytest.mark.parametrize(
    ("op", "enhancer"),
    [
        (ops.color, ImageEnhance.Color),
        (ops.contrast, ImageEnhance.Contrast),
        (ops.brightness, ImageEnhance.Brightness),
        (ops.sharpness, ImageEnhance.Sharpness),
    ],
    ids=["color", "contrast", "brightness", "sharpness"],
)
def test_blends_equal_pillow(image: np.ndarray, op, enhancer, factor: float) -> None:
    expected = from_pillow(enhancer(to_pillow(image)).enhance(factor))
    np.testing.assert_array_equal(op(image, factor), expected)


def test_sharpness_keeps_images_that_are_all_border(channels: int) -> None:
    for shape in ((1, 1), (2, 7), (7, 2)):
        image = with_channels(NOISE[: shape[0], : shape[1]], channels)
        np.testing.assert_array_equal(ops.sharpness(image, 1.9), image)


GRID = np.arange(1, 10, dtype=np.uint8).reshape(3, 3, 1)  # 1 2 3 / 4 5 6 / 7 8 9


def test_rotate_is_counterclockwise() -> None:
    expected = [[3, 6, 9], [2, 5, 8], [1, 4, 7]]
    np.testing.assert_array_equal(ops.rotate(GRID, 90.0)[..., 0], expected)
    np.testing.assert_array_equal(ops.rotate(GRID, -90.0)[..., 0], np.rot90(expected, 2))
    np.testing.assert_array_equal(ops.rotate(GRID, 0.0), GRID)


def test_rotate_fills_corners() -> None:
    result = ops.rotate(np.zeros((21, 21, 3), np.uint8), 45.0, fill=200).numpy()
    assert (result[0, 0] == 200).all() and (result[-1, -1] == 200).all()
    assert (result[10, 10] == 0).all()
    assert set(np.unique(result)) == {0, 200}


def test_rotate_agrees_with_pillow(channels: int) -> None:
    """Both take the nearest pixel; Pillow in fixed point, so positions near .5 may differ."""
    image = with_channels(PHOTO, channels)
    fill = 128 if channels == 1 else (128, 128, 128)
    for degrees in (-30.0, 7.0, 45.0):
        expected = from_pillow(to_pillow(image).rotate(degrees, fillcolor=fill))
        differs = (ops.rotate(image, degrees).numpy() != expected).any(axis=-1)
        assert differs.mean() < 0.005, degrees


def test_shear_direction_by_hand() -> None:
    expected_x = [[1, 2, 3], [5, 6, 128], [9, 128, 128]]
    np.testing.assert_array_equal(ops.shear_x(GRID, 1.0)[..., 0], expected_x)
    expected_y = [[1, 5, 9], [4, 8, 128], [7, 128, 128]]
    np.testing.assert_array_equal(ops.shear_y(GRID, 1.0)[..., 0], expected_y)
    expected_x = [[1, 2, 3], [0, 4, 5], [0, 0, 7]]
    np.testing.assert_array_equal(ops.shear_x(GRID, -1.0, fill=0)[..., 0], expected_x)


def test_shear_equals_pillow_affine(channels: int) -> None:
    """Pillow's pixel centres lie at .5: its transform needs an offset of half the slope."""
    image = with_channels(PHOTO, channels)
    fill = 128 if channels == 1 else (128, 128, 128)
    for level in (0.2871, -0.3137):
        for op, affine in (
            (ops.shear_x, (1, level, -level / 2, 0, 1, 0)),
            (ops.shear_y, (1, 0, 0, level, 1, -level / 2)),
        ):
            expected = to_pillow(image).transform(
                (80, 64), Image.Transform.AFFINE, affine, fillcolor=fill
            )
            differs = (op(image, level).numpy() != from_pillow(expected)).any(axis=-1)
            assert differs.mean() < 0.005  # Pillow works in fixed point


def test_translate_by_hand() -> None:
    np.testing.assert_array_equal(
        ops.translate_x(GRID, 1.0)[..., 0], [[2, 3, 128], [5, 6, 128], [8, 9, 128]]
    )
    np.testing.assert_array_equal(
        ops.translate_x(GRID, -2.0, fill=9)[..., 0], [[9, 9, 1], [9, 9, 4], [9, 9, 7]]
    )
    np.testing.assert_array_equal(
        ops.translate_y(GRID, 1.2)[..., 0], [[4, 5, 6], [7, 8, 9], [128] * 3]
    )
    np.testing.assert_array_equal(
        ops.translate_y(GRID, -0.8)[..., 0], [[128] * 3, [1, 2, 3], [4, 5, 6]]
    )


@pytest.mark.parametrize("pixels", [3, 50, 80, 1000, -1000])
def test_translate_equals_pillow_affine(channels: int, pixels: int) -> None:
    image = with_channels(PHOTO, channels)
    fill = 128 if channels == 1 else (128, 128, 128)
    for op, affine in (
        (ops.translate_x, (1, 0, pixels, 0, 1, 0)),
        (ops.translate_y, (1, 0, 0, 0, 1, pixels)),
    ):
        expected = to_pillow(image).transform(
            (80, 64), Image.Transform.AFFINE, affine, fillcolor=fill
        )
        np.testing.assert_array_equal(op(image, pixels), from_pillow(expected))


def test_cutout_fills_exactly_the_clipped_square(channels: int) -> None:
    image = with_channels(PHOTO, channels)
    expected = image.copy()
    expected[7:13, 17:23] = 128
    np.testing.assert_array_equal(ops.cutout(image, 10, 20, 3), expected)
    expected = image.copy()
    expected[60:64, 0:5] = 50
    np.testing.assert_array_equal(ops.cutout(image, 64, 1, 4, fill=50), expected)
    np.testing.assert_array_equal(ops.cutout(image, 10, 20, 0), image)


@pytest.mark.parametrize("name", list(CALLS))
def test_eager_and_dataset_agree(name: str, channels: int) -> None:
    """The dataset hides height and width, so the graph works on unknown sizes."""
    images = [with_channels(PHOTO, channels), with_channels(NOISE, channels)]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(images),
        output_signature=tf.TensorSpec([None, None, channels], tf.uint8),
    ).map(CALLS[name])
    assert dataset.element_spec.shape.as_list() == [None, None, channels]
    for image, result in zip(images, dataset, strict=True):
        np.testing.assert_array_equal(result, CALLS[name](image))


@settings(max_examples=15)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_shape_and_dtype_are_kept(height: int, width: int, channels: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, channels)).astype(np.uint8)
    for name, call in CALLS.items():
        result = call(image)
        assert result.dtype == tf.uint8, name
        assert result.shape.as_list() == [height, width, channels], name


@pytest.mark.parametrize("name", list(CALLS))
def test_other_images_are_refused(name: str) -> None:
    message = r"image must be a uint8 tensor of shape \[height, width, 1 or 3\], received dtype "
    with pytest.raises(ValueError, match=message + "float32"):
        CALLS[name](tf.zeros([4, 4, 3]))
    with pytest.raises(ValueError, match=message + r"uint8 and shape \(4, 4, 2\)"):
        CALLS[name](tf.zeros([4, 4, 2], tf.uint8))
    with pytest.raises(ValueError, match=message + r"uint8 and shape \(4, 4\)"):
        CALLS[name](tf.zeros([4, 4], tf.uint8))
