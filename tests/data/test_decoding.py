"""Bytes to pixels: bad records are counted and replaced, colours converted."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from effnetv2_tf.data.augment import decode_and_random_crop
from effnetv2_tf.data.decoding import decode_image, replace_invalid, to_channels
from effnetv2_tf.data.encoded import decode_pixels
from effnetv2_tf.data.sources import BadRecords, TooManyBadRecords


def _png(value=200, size=(4, 6), channels=3):
    return tf.io.encode_png(np.full((*size, channels), value, np.uint8))


def _decode(encoded, bad_records, name="a.png", channels=3, **options):
    """Within tf.data, where it is used."""
    dataset = tf.data.Dataset.from_tensors((encoded, name)).map(
        lambda data, record: decode_image(data, record, channels, bad_records, **options)
    )
    assert dataset.element_spec[0].shape[-1] == channels
    return next(dataset.as_numpy_iterator())


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "RGB")])
def test_colour_files_as_grey_images(kind, mode):
    """TensorFlow has no grey decoder for these."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((36, 20)).convert(mode).save(file, kind)
    encoded = tf.constant(file.getvalue())
    colours = decode_pixels(encoded, 3)
    wanted = np.asarray(Image.fromarray(colours.numpy()).convert("L"))
    grey = decode_pixels(encoded, 1)
    # Rounded down, and of a JPEG by the faster cosine transform.
    np.testing.assert_allclose(grey[..., 0], wanted, atol=2)
    cropped = decode_and_random_crop(encoded, 20, 1, [1, 2], area_range=(0.2, 0.2))
    assert cropped.shape == (20, 20, 1)


@pytest.mark.parametrize(
    ("kind", "channels"), [("JPEG", 1), ("JPEG", 3), ("PNG", 1), ("PNG", 3), ("BMP", 3), ("GIF", 3)]
)
def test_pixels_are_those_of_other_decoders(kind, channels):
    noise = np.random.default_rng(0).integers(0, 256, (19, 33, 3), np.uint8)
    smooth = Image.fromarray(noise).resize((66, 38))
    file = io.BytesIO()
    smooth.convert("RGB" if channels == 3 else "L").save(file, kind)
    decoded = decode_pixels(tf.constant(file.getvalue()), channels)
    wanted = Image.open(file).convert("RGB" if channels == 3 else "L")
    wanted = np.asarray(wanted).reshape(38, 66, channels)
    np.testing.assert_array_equal(decoded, wanted, f"{kind}, {channels} channels")


def test_a_good_image():
    bad = BadRecords(total_examples=10)
    image, valid = _decode(_png(), bad)
    assert valid
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.full((4, 6, 3), 200))
    assert bad.count == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "encoded",
    [b"", b"hello, I am a text file", _png().numpy()[:30], b"\xff\xd8\xff\xe0 no jpeg at all"],
    ids=["empty", "text", "cut short", "header only"],
)
def test_a_bad_record_is_counted_and_stood_in_for(encoded, channels):
    bad = BadRecords(max_share=0.5, total_examples=10)
    image, valid = _decode(encoded, bad, "cats/broken.jpg", channels)
    assert not valid
    np.testing.assert_array_equal(image, np.full((1, 1, channels), 128))
    assert bad.names() == ("cats/broken.jpg",)
    assert bad.reports() == ("cats/broken.jpg (not a whole image)",)


def test_a_reason_that_the_source_knows_is_the_only_one():
    bad = BadRecords(max_share=1, total_examples=10)
    for name in ("train-0#7 (not exactly one label)", "train-0#8", "cats/photo (1)"):
        assert not _decode(b"", bad, name)[1]
    assert bad.reports() == (
        "train-0#7 (not exactly one label)",
        "train-0#8 (not a whole image)",
        "cats/photo (1) (not a whole image)",
    )


def test_a_truncated_jpeg_is_noticed():
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    whole = tf.io.encode_jpeg(picture).numpy()
    bad = BadRecords(max_share=1, total_examples=2)
    assert _decode(whole, bad)[1]
    assert not _decode(whole[: len(whole) // 2], bad)[1]


def test_another_decoder_gets_the_stand_in_too():
    bad = BadRecords(max_share=1, total_examples=2)
    shrink = lambda data: tf.ensure_shape(  # noqa: E731
        tf.image.resize(tf.io.decode_png(data, 3), (2, 2), "nearest"), (2, 2, 3)
    )
    image, valid = _decode(b"bad", bad, decode=shrink)
    assert not valid
    np.testing.assert_array_equal(image, np.full((2, 2, 3), 128))


def test_too_many_bad_records_stop():
    bad = BadRecords(max_share=0.01, total_examples=10)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnknownError)) as caught:
        _decode(b"bad", bad)
    assert TooManyBadRecords.__name__ in str(caught.value)
    assert "1 of 10 records are bad, expected at most 1.00%" in str(caught.value)


def _batch(valid):
    images = tf.reshape(tf.range(len(valid)), (-1, 1, 1, 1)) * tf.ones((1, 2, 2, 3), tf.int32)
    return replace_invalid(images, tf.range(len(valid)) * 10, tf.constant(valid))


@pytest.mark.parametrize(
    ("valid", "expected"),
    [
        ([True, True, True], [0, 1, 2]),
        ([False, True, True], [1, 1, 2]),
        ([True, False, False, True], [0, 3, 0, 3]),
        ([False, False, False, True], [3, 3, 3, 3]),
        ([False, False], [0, 1]),  # nothing to put in their places
    ],
)
def test_invalid_images_get_a_neighbour_of_the_batch(valid, expected):
    images, labels = _batch(valid)
    assert images[:, 0, 0, 0].numpy().tolist() == expected
    assert labels.numpy().tolist() == [10 * i for i in expected]


def test_grey_to_colour_and_back():
    grey = tf.constant([[[7], [200]]], tf.uint8)
    colour = to_channels(grey, 3)
    assert colour.dtype == tf.uint8
    np.testing.assert_array_equal(colour[0], [[7, 7, 7], [200, 200, 200]])
    np.testing.assert_array_equal(to_channels(colour, 1), grey)
    assert to_channels(grey, 1) is grey


def test_colour_to_luminance():
    pixels = tf.constant([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], tf.uint8)
    luminance = to_channels(pixels, 1).numpy().ravel()
    np.testing.assert_allclose(luminance, [0.2989 * 255, 0.587 * 255, 0.114 * 255], atol=1)
