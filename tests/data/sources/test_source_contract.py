"""What every source promises: order, completeness, start and shards, for each kind."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.data.sources import (
    ArraySource,
    DataError,
    ImageFolderSource,
    Source,
    SourceInfo,
    TFRecordSource,
)
from effnetv2_tf.data.sources.base import epoch_permutation

COUNT = 23
KINDS = ["arrays", "image_folder", "tfrecord"]


def _encode(value: int) -> bytes:
    return tf.io.encode_png(np.full((2, 2, 3), value, np.uint8)).numpy()


def _write_records(path, values):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for value in values:
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(_encode(value))
            example.features.feature["image/class/label"].int64_list.value.append(1 + value % 2)
            writer.write(example.SerializeToString())


def _arrays(folder, shard):
    images = np.zeros([COUNT, 2, 2], np.uint8)
    return ArraySource(images, np.arange(COUNT) % 2, shard=shard)


def _image_folder(folder, shard):
    for value in range(COUNT):
        path = folder / "images" / f"class{value % 2}" / f"{value:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_encode(value))
    return ImageFolderSource(folder / "images", shard=shard)


def _tfrecord(folder, shard):
    for file, values in enumerate(np.array_split(np.arange(COUNT), 3)):
        _write_records(folder / f"train-{file}", values)
    return TFRecordSource(str(folder), num_classes=2, shuffle_buffer=5, shard=shard)


@pytest.fixture(params=KINDS)
def make_source(request, tmp_path):
    make = {"arrays": _arrays, "image_folder": _image_folder, "tfrecord": _tfrecord}[request.param]
    return lambda shard=(0, 1): make(tmp_path, shard)


def _names(source: Source, epoch, **options) -> list[bytes]:
    return [e["name"] for e in source.epoch(epoch, **options).as_numpy_iterator()]


def test_each_example_once_an_epoch(make_source):
    source = make_source()
    stored = _names(source, 0, seed=1, shuffle=False)
    shuffled = _names(source, 0, seed=1, shuffle=True)
    assert source.info.num_examples == COUNT
    assert len(set(stored)) == COUNT
    assert sorted(shuffled) == sorted(stored)


def test_order_is_a_function_of_seed_and_epoch(make_source):
    source = make_source()
    tf.random.set_seed(1)
    order = _names(source, 3, seed=1, shuffle=True)
    tf.random.set_seed(99)  # is not to matter
    assert _names(source, 3, seed=1, shuffle=True) == order
    assert _names(make_source(), 3, seed=1, shuffle=True) == order
    assert _names(source, 4, seed=1, shuffle=True) != order
    assert _names(source, 3, seed=2, shuffle=True) != order
    assert _names(source, 0, seed=1, shuffle=False) != order


def test_stored_order_is_the_same_in_every_epoch(make_source):
    source = make_source()
    assert _names(source, 0, seed=1, shuffle=False) == _names(source, 5, seed=2, shuffle=False)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("shard", [(0, 1), (1, 3)])
@pytest.mark.parametrize("start", [1, 6, 100])
def test_start_equals_skip(make_source, shuffle, shard, start):
    source = make_source(shard)
    whole = _names(source, 2, seed=5, shuffle=shuffle)
    assert _names(source, 2, seed=5, start=start, shuffle=shuffle) == whole[start:]


@pytest.mark.parametrize("shuffle", [True, False])
def test_shard_i_is_every_nth_of_the_whole_order(make_source, shuffle):
    whole = _names(make_source(), 1, seed=7, shuffle=shuffle)
    for index in range(4):
        source = make_source((index, 4))
        assert _names(source, 1, seed=7, shuffle=shuffle) == whole[index::4]
        assert source.shard_examples == len(whole[index::4])
        assert source.info.num_examples == COUNT


def test_epoch_and_start_may_be_tensors_in_flat_map(make_source):
    source = make_source()
    resumed = tf.data.Dataset.range(2, 4).flat_map(
        lambda epoch: source.epoch(
            epoch, seed=1, start=tf.where(epoch == 2, tf.constant(20, tf.int64), 0), shuffle=True
        )
    )
    expected = _names(source, 2, seed=1, shuffle=True)[20:]
    expected += _names(source, 3, seed=1, shuffle=True)
    assert [e["name"] for e in resumed.as_numpy_iterator()] == expected


def test_element_types(make_source):
    source = make_source()
    spec = source.epoch(0, seed=0, shuffle=True).element_spec
    assert set(spec) == {"image", "label", "name"}
    assert spec["image"].dtype == (tf.string if source.info.encoded else tf.uint8)
    assert spec["label"] == tf.TensorSpec([], tf.int64)
    assert spec["name"] == tf.TensorSpec([], tf.string)


def test_labels_and_images_stay_together_when_shuffled(make_source):
    source = make_source()
    stored = {e["name"]: e for e in source.epoch(0, seed=0, shuffle=False).as_numpy_iterator()}
    for example in source.epoch(0, seed=0, shuffle=True).as_numpy_iterator():
        twin = stored[example["name"]]
        assert example["label"] == twin["label"]
        np.testing.assert_array_equal(example["image"], twin["image"])


@pytest.mark.parametrize("shard", [(1, 1), (-1, 2), (0, 0)])
def test_impossible_shard(make_source, shard):
    with pytest.raises(DataError, match=r"impossible shard: expected .*0 <= index < count"):
        make_source(shard)


def test_empty_shard(make_source):
    with pytest.raises(DataError, match="empty shard: expected at most 23 shards"):
        make_source((23, 24))


def test_permutation_is_pinned_for_all_tensorflow_versions():
    assert epoch_permutation(10, 7, 0).numpy().tolist() == [3, 4, 1, 9, 0, 2, 6, 5, 7, 8]
    assert epoch_permutation(10, 7, 1).numpy().tolist() == [9, 1, 0, 4, 2, 5, 3, 8, 6, 7]
    assert epoch_permutation(1, 7, 1).numpy().tolist() == [0]


def test_orders_of_consecutive_epochs_are_unrelated():
    orders = [epoch_permutation(20_000, 1, epoch).numpy() for epoch in range(4)]
    for one, next_one in itertools.pairwise(orders):
        assert abs(np.corrcoef(one, next_one)[0, 1]) < 0.04  # 5 sigma
        assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.04


def test_many_epochs_of_few_examples_have_many_orders():
    orders = {epoch_permutation(20, 0, epoch).numpy().tobytes() for epoch in range(600)}
    assert len(orders) == 600


def _info(**changes):
    values = {
        "name": "mine",
        "num_examples": 4,
        "num_classes": 2,
        "class_names": ("a", "b"),
        "channels": 3,
        "encoded": True,
    }
    return SourceInfo(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_examples": 0}, "mine: no examples: expected at least 1, received 0"),
        ({"num_classes": 1, "class_names": ("a",)}, r"too few classes: .* received 1 \(a\)"),
        ({"class_names": ("a", "b", "c")}, "expected 2 names, received 3"),
        ({"class_names": ("a", "a")}, "repeats a name: .* 'a' more than once"),
        ({"channels": 4}, r"expected 1 \(grayscale\) or 3 \(RGB\), received 4"),
    ],
)
def test_info_refuses_the_impossible(changes, message):
    with pytest.raises(DataError, match=message):
        _info(**changes)


def test_data_error_is_one_line_and_keeps_its_parts():
    error = DataError("no x", expected="an x", received="a y", path="/f", suggestion="add x")
    assert str(error) == "/f: no x: expected an x, received a y; add x"
    assert (error.expected, error.received, error.path) == ("an x", "a y", "/f")
    assert isinstance(error, ValueError)


def test_labels_are_those_of_the_examples_in_order(make_source):
    for shard in ((0, 1), (1, 3)):
        source = make_source(shard)
        examples = source.epoch(0, seed=0, start=0, shuffle=False)
        assert source.labels().tolist() == [int(example["label"]) for example in examples]


def test_labels_need_no_image_files(tmp_path):
    source = _image_folder(tmp_path, (0, 1))
    for file in (tmp_path / "images").rglob("*.png"):
        file.unlink()
    assert np.bincount(source.labels()).tolist() == [12, 11]
