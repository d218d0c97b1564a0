"""Sources in memory: the user's arrays and scikit-learn's digits."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from effnetv2_tf.data.sources import ArraySource, DataError, DigitsSource


def _examples(source):
    return list(source.epoch(0, seed=0, shuffle=False).as_numpy_iterator())


def test_yields_the_given_images_labels_and_names():
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    source = ArraySource(images, np.array([1, 0], np.int32), ["cat", "dog"], name="pets")
    first, second = _examples(source)
    np.testing.assert_array_equal(first["image"], images[0])
    np.testing.assert_array_equal(second["image"], images[1])
    assert (first["label"], second["label"]) == (1, 0)
    assert first["label"].dtype == np.int64
    assert (first["name"], second["name"]) == (b"pets/0", b"pets/1")
    assert source.info.class_names == ("cat", "dog")
    assert (source.info.channels, source.info.encoded) == (3, False)
    assert source.bad_records.total_examples == 2


def test_many_entries_are_fetched_as_one_by_one():
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    source = ArraySource(images, [1, 0, 1])
    assert source.image_size == (4, 5)
    together = source.fetch(tf.constant([2, 0], tf.int64))
    for place, entry in enumerate([2, 0]):
        for key, value in source.fetch(tf.constant(entry, tf.int64)).items():
            np.testing.assert_array_equal(together[key][place], value)


def test_grayscale_gets_a_channel_axis():
    source = ArraySource(np.zeros([4, 5, 6], np.uint8), [0, 1, 2, 0])
    assert source.epoch(0, seed=0, shuffle=True).element_spec["image"].shape == (5, 6, 1)
    assert source.info.class_names == ("0", "1", "2")
    assert source.info.channels == 1


GOOD_IMAGES, GOOD_LABELS = np.zeros([2, 4, 4, 3], np.uint8), np.array([0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (
            np.linspace(0, 1, 96, dtype=np.float32).reshape(2, 4, 4, 3),
            GOOD_LABELS,
            None,
            r"expected uint8 in \[0, 255\], received float32 in \[0, 1\]; .*multiply by 255",
        ),
        (
            np.full([2, 4, 4, 3], 200.0),
            GOOD_LABELS,
            None,
            r"received float64 in \[200, 200\]; scale to \[0, 255\]",
        ),
        (GOOD_IMAGES[..., :2], GOOD_LABELS, None, r"wrong shape of images: .*\[2, 4, 4, 2\]"),
        (GOOD_IMAGES[:0], GOOD_LABELS[:0], ["a", "b"], "wrong shape of images"),
        (GOOD_IMAGES, np.array([0, 1, 1]), None, r"expected \[2\], one class id .*received \[3\]"),
        (GOOD_IMAGES, np.eye(2, dtype=int), None, r"one-hot labels pass labels.argmax\(-1\)"),
        (GOOD_IMAGES, np.array([[0], [1]]), None, r"received \[2, 1\]; pass labels\[:, 0\]"),
        (GOOD_IMAGES, np.array([0.0, 1.0]), None, "wrong dtype of labels: .*received float64"),
        (GOOD_IMAGES, np.array([1, 2]), ["a", "b"], r"expected 0 \.\. 1, received 2 at position 1"),
        (GOOD_IMAGES, np.array([-1, 1]), None, "received -1 at position 0"),
        (GOOD_IMAGES, np.array([0, 0]), None, "too few classes"),
    ],
)
def test_refuses(images, labels, names, message):
    with pytest.raises(DataError, match=message):
        ArraySource(images, labels, names)


def test_digits_splits_are_the_whole_set_once_and_stratified():
    train, test = (_examples(DigitsSource(split)) for split in ("train", "test"))
    assert (len(train), len(test)) == (1437, 360)
    data = load_digits()
    original = sorted(np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in data.images)
    assert sorted(e["image"].tobytes() for e in train + test) == original
    shares = np.bincount([e["label"] for e in test]) / np.bincount(data.target)
    assert np.all(np.abs(shares - 0.2) < 0.01)


def test_digits_use_the_whole_range_and_keep_labels():
    source = DigitsSource("train")
    data = load_digits()
    label_of = {
        np.rint(image * 255 / 16).astype(np.uint8).tobytes(): label
        for image, label in zip(data.images, data.target, strict=True)
    }
    examples = _examples(source)
    assert all(label_of[e["image"].tobytes()] == e["label"] for e in examples)
    values = np.unique([e["image"] for e in examples])
    assert len(values) == 17
    assert (values.min(), values.max()) == (0, 255)
    assert source.info.channels == 1


def test_digits_split_is_the_same_every_time():
    first, second = (_examples(DigitsSource("test")) for _ in range(2))
    assert [e["image"].tobytes() for e in first] == [e["image"].tobytes() for e in second]


def test_digits_unknown_split():
    message = "digits: unknown split: expected one of train, test, received 'tets'; did you mean"
    with pytest.raises(DataError, match=message):
        DigitsSource("tets")
