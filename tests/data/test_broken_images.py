"""TensorFlow's decoders do not tell which image they failed on; it is found and named."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.data.broken_images import broken_images, broken_images_named
from effnetv2_tf.data.pipeline import evaluation_dataset
from effnetv2_tf.data.sources import BadRecords, ImageFolderSource
from effnetv2_tf.errors import TrainingFailure
from effnetv2_tf.training.evaluation import evaluate

ERROR = tf.errors.InvalidArgumentError(None, None, "Invalid JPEG data or crop window, size 205")


@pytest.fixture
def source(tmp_path):
    """Eight JPEG files of two classes."""
    for number in range(8):
        path = tmp_path / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        picture = np.full((9, 7, 3), 20 * number, np.uint8)
        path.write_bytes(tf.io.encode_jpeg(picture).numpy())
    return ImageFolderSource(tmp_path, max_bad_share=0.5)


def _break(path):
    """Leaves its ends and headers right, but not its Huffman table, which nobody reads before."""
    data = bytearray(path.read_bytes())
    table = data.index(b"\xff\xc4") + 5
    data[table : table + 16] = b"\xff" * 16
    path.write_bytes(data)
    return path


def test_broken_ones_are_found(source, tmp_path):
    assert list(broken_images(source, ERROR)) == []
    broken = [_break(tmp_path / "class1" / name) for name in ("3.jpg", "5.jpg")]
    (tmp_path / "class0" / "0.jpg").write_text("no image, and known to be none beforehand")
    assert list(broken_images(source, ERROR)) == [str(path) for path in broken]
    for message in ("out of memory", None):
        error = tf.errors.InvalidArgumentError(None, None, message)
        assert list(broken_images(source, error)) == []


def test_one_that_is_refused_is_not_found_again(source, tmp_path):
    first, second = (_break(tmp_path / "class1" / name) for name in ("3.jpg", "5.jpg"))
    source.bad_records.refuse(str(first))
    assert list(broken_images(source, ERROR)) == [str(second)]
    source.bad_records.refuse(str(second))
    assert list(broken_images(source, ERROR)) == []
    assert source.bad_records.reports() == tuple(
        f"{path} (cannot be decoded)" for path in (first, second)
    )
    images = np.concatenate([images for images, _ in evaluation_dataset(source, 8, 4)])
    assert len(images) == 6


def test_names_need_not_be_utf8():
    bad_records = BadRecords(total_examples=4)
    name = b"caf\xe9.jpg"
    bad_records.refuse(name.decode(errors="surrogateescape"))
    assert bad_records.refused == [name]
    bad_records.add_image(name.decode(errors="replace"))  # as a pipeline meets it
    assert bad_records.count == 1


def test_an_evaluation_names_it(source, tmp_path):
    broken = _break(tmp_path / "class0" / "2.jpg")
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    model.build((None, 8, 8, 3))
    with (
        pytest.raises(TrainingFailure, match=f"^data: {re.escape(str(broken))}: cannot be decoded"),
        broken_images_named(source),
    ):
        evaluate(model, evaluation_dataset(source, 8, 4))


def test_other_errors_pass(source):
    with pytest.raises(tf.errors.ResourceExhaustedError), broken_images_named(source):
        raise tf.errors.ResourceExhaustedError(None, None, "no memory for the PNG")
