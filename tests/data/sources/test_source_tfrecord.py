"""TFRecord files with ImageNet's keys: labels, bad records, cut-off files and errors."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf.data.sources import (
    DataError,
    TFRecordSource,
    TooManyBadRecords,
    is_valid_image,
    read_class_names,
)
from effnetv2_tf.data.sources.tfrecord import is_framed_example, tfrecord_splits
from effnetv2_tf.data.sources.tfrecord_files import scan_files

PNG = tf.io.encode_png(np.zeros((2, 2, 3), np.uint8)).numpy()


def _example(labels=(1,), image=PNG, text=None) -> bytes:
    example = tf.train.Example()
    feature = example.features.feature
    feature["image/encoded"].bytes_list.value.append(image)
    feature["image/class/label"].int64_list.value.extend(labels)
    if text is not None:
        feature["image/class/text"].bytes_list.value.append(text.encode())
    return example.SerializeToString()


def _write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def _examples(source, shuffle=False):
    return list(source.epoch(0, seed=0, shuffle=shuffle).as_numpy_iterator())


def test_labels_count_from_one_by_default(tmp_path):
    _write(tmp_path / "train-0", [_example([i]) for i in (1, 3, 2)])
    source = TFRecordSource(str(tmp_path / "train-*"), num_classes=3)
    assert [e["label"] for e in _examples(source)] == [0, 2, 1]
    assert _examples(source)[0]["image"] == PNG
    assert [e["name"].decode() for e in _examples(source)] == [
        f"{tmp_path}/train-0#{i}" for i in range(3)
    ]
    assert source.info.class_names == ("0", "1", "2")
    assert (source.info.num_examples, source.info.encoded) == (3, True)


def test_label_offset(tmp_path):
    _write(tmp_path / "train-0", [_example([i]) for i in (0, 2)])
    source = TFRecordSource(str(tmp_path), num_classes=3, label_offset=0)
    assert [e["label"] for e in _examples(source)] == [0, 2]


def test_multi_label(tmp_path):
    stored = [[1, 5], [], [3, 2, 4]]
    _write(tmp_path / "train-0", map(_example, stored))
    source = TFRecordSource(str(tmp_path), num_classes=5, multi_label=True)
    assert source.info.multi_label
    assert [e["label"].tolist() for e in _examples(source)] == [[0, 4], [], [2, 1, 3]]
    assert all(e["image"] == PNG for e in _examples(source))
    spec = source.epoch(0, seed=0, shuffle=True).element_spec["label"]
    assert (spec.dtype, spec.shape.rank) == (tf.int64, 1)


def test_files_by_folder_pattern_placeholder_and_list(tmp_path):
    for name in ("train-0", "train-1", "validation-0"):
        _write(tmp_path / name, [_example()])
    (tmp_path / "train-tmp").mkdir()

    def count(files, split):
        return TFRecordSource(files, split=split, num_classes=2).info.num_examples

    assert count(str(tmp_path), "train") == 2
    assert count(str(tmp_path), "validation") == 1
    assert count(str(tmp_path / "{split}-*"), "validation") == 1
    assert count(str(tmp_path / "*-0"), "train") == 2
    assert count([str(tmp_path / "train-0"), str(tmp_path / "validation-0")], "train") == 2


def test_bad_records_keep_their_place_and_say_why(tmp_path):
    records = [
        _example([1]),
        b"garbage",
        _example([1])[:-5],
        _example([2], image=b""),
        _example([]),
        _example([1, 2]),
        _example([9]),
        _example([2]),
    ]
    _write(tmp_path / "train-0", records)
    source = TFRecordSource(str(tmp_path), num_classes=2)
    examples = _examples(source)
    faults = [e["name"].decode().partition(" ")[2] for e in examples]
    assert faults == [
        "",
        "(not a tf.train.Example)",
        "(not a tf.train.Example)",
        "(no image)",
        "(not exactly one label)",
        "(not exactly one label)",
        "(label outside 0 .. 1)",
        "",
    ]
    assert [e["label"] for e in examples] == [0, -1, -1, -1, -1, -1, -1, 1]
    assert [bool(is_valid_image(e["image"])) for e in examples] == [True, *[False] * 6, True]
    assert examples[6]["name"].decode().startswith(f"{tmp_path}/train-0#6 ")


def test_bad_multi_label_records_have_no_labels(tmp_path):
    _write(tmp_path / "train-0", [_example([1, 2]), b"garbage", _example([1, 7])])
    source = TFRecordSource(str(tmp_path), num_classes=2, multi_label=True)
    assert [e["label"].tolist() for e in _examples(source)] == [[0, 1], [], []]
    assert [e["image"] for e in _examples(source)] == [PNG, b"", b""]


@settings(max_examples=60)
@given(size=st.integers(0, 40_000), cut=st.integers(1, 3))
def test_frame_of_an_example_of_any_size(size, cut):
    record = _example(image=b"x" * size)
    assert bool(is_framed_example(record))
    assert not bool(is_framed_example(record[:-cut]))
    assert not bool(is_framed_example(record + b"\0" * cut))


@settings(max_examples=60)
@given(record=st.binary(max_size=30))
def test_frame_check_never_raises(record):
    if bool(is_framed_example(record)):
        assert record[0] == 0x0A


def test_cut_off_file_is_noted_and_read_up_to_the_cut(tmp_path):
    _write(tmp_path / "train-0", [_example([1])] * 3)
    _write(tmp_path / "train-1", [_example([2])] * 3)
    content = (tmp_path / "train-0").read_bytes()
    (tmp_path / "train-0").write_bytes(content[:-10])
    source = TFRecordSource(str(tmp_path), num_classes=2, max_bad_share=0.5)
    assert source.info.num_examples == 5
    for shuffle in (False, True):
        labels = [e["label"] for e in _examples(source, shuffle)]
        assert sorted(labels) == [0, 0, 1, 1, 1]
    assert source.bad_records.reports() == (f"{tmp_path}/train-0#2 (truncated after record 1)",)
    assert source.bad_records.total_examples == 6


def test_too_many_cut_off_files(tmp_path):
    _write(tmp_path / "train-0", [_example([1])] * 3)
    (tmp_path / "train-1").write_bytes(b"text, no TFRecord")
    with pytest.raises(TooManyBadRecords, match=r"1 of 4 .*truncated, or not a TFRecord file"):
        TFRecordSource(str(tmp_path), num_classes=2)


def test_num_examples_is_trusted(tmp_path):
    _write(tmp_path / "train-0", [_example([1])] * 3)
    source = TFRecordSource(str(tmp_path), num_classes=2, num_examples=3)
    assert source.info.num_examples == 3
    assert len(_examples(source)) == 3


def test_shuffle_buffer_mixes_files(tmp_path):
    for file in range(4):
        _write(tmp_path / f"train-{file}", [_example([file + 1])] * 25)
    source = TFRecordSource(str(tmp_path), num_classes=4, shuffle_buffer=50)
    labels = [e["label"] for e in _examples(source, shuffle=True)]
    assert np.bincount(labels).tolist() == [25] * 4
    assert min(np.bincount(labels[:50], minlength=4)) >= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, r"test\*: no TFRecord files: .*'test', received only train-0"),
        (
            {"shuffle_buffer": 0},
            "impossible shuffle_buffer: expected at least 1 record, received 0",
        ),
        ({"num_classes": 1}, "too few classes"),
        ({"num_examples": -3}, "impossible num_examples: .* received -3$"),
        ({"num_examples": 0}, "impossible num_examples: .* received 0$"),
        ({"class_names": ["a"]}, "expected 2 names, received 1"),
    ],
)
def test_errors(tmp_path, options, message):
    _write(tmp_path / "train-0", [_example()])
    with pytest.raises(DataError, match=message):
        TFRecordSource(**{"files": str(tmp_path), "num_classes": 2, **options})


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=f"received no folder {tmp_path}/nowhere"):
        TFRecordSource(str(tmp_path / "nowhere" / "train*"), num_classes=2)


def test_other_keys_are_listed(tmp_path):
    example = tf.train.Example()
    example.features.feature["image/encode"].bytes_list.value.append(PNG)
    _write(tmp_path / "train-0", [example.SerializeToString()])
    message = "no feature 'image/encoded': .*received image/encode; did you mean 'image/encode'"
    with pytest.raises(DataError, match=message):
        TFRecordSource(str(tmp_path), num_classes=2)


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: TFRecordSource(str(folder), num_classes=2),
        lambda folder: read_class_names(str(folder), num_classes=2),
    ],
    ids=["source", "class names"],
)
def test_a_wrong_checksum_is_said_of_its_file(tmp_path, read):
    path = tmp_path / "train-0"
    _write(path, [_example([1])])
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}: damaged file: expected TFRecords .*corrupted"):
        read(tmp_path)


def test_other_records(tmp_path):
    _write(tmp_path / "train-0", [b"garbage"] * 20)
    with pytest.raises(DataError, match=r"unknown records: expected serialized tf.train.Example"):
        TFRecordSource(str(tmp_path), num_classes=2)


def test_no_record_at_all(tmp_path):
    (tmp_path / "train-0").write_bytes(b"")
    with pytest.raises(DataError, match="no complete record"):
        TFRecordSource(str(tmp_path), num_classes=2)


def test_class_names_from_text(tmp_path):
    records = [_example([2], text="dog"), b"garbage", _example([1], text="cat")]
    _write(tmp_path / "train-0", records)
    assert read_class_names(str(tmp_path), num_classes=2) == ("cat", "dog")
    with pytest.raises(DataError, match=r"class without a name: .*received none for class 2"):
        read_class_names(str(tmp_path), num_classes=3)


@pytest.mark.parametrize("files", [1, 3])
def test_files_sorted_by_class_are_warned_of(tmp_path, files):
    for file in range(files):
        classes = [1 + file] * 40 if files > 1 else [1] * 40 + [2] * 40
        _write(tmp_path / f"train-{file}", [_example([label]) for label in classes])
    with pytest.warns(UserWarning, match=r"the first 32 records are all of class 1.*random order"):
        TFRecordSource(str(tmp_path), num_classes=3)


@pytest.mark.parametrize("classes", [[1] * 31 + [2], [1] * 20])
def test_mixed_and_small_files_are_not_warned_of(tmp_path, classes, recwarn):
    _write(tmp_path / "train-0", [_example([label]) for label in classes])
    TFRecordSource(str(tmp_path), num_classes=2)
    assert not recwarn.list


def test_equal_texts_of_classes_are_told_apart(tmp_path):
    """ImageNet has two classes of "crane"."""
    texts = ["crane", "dog", "crane"]
    _write(tmp_path / "train-0", [_example([i], text=t) for i, t in enumerate(texts, start=1)])
    names = read_class_names(str(tmp_path), num_classes=3)
    assert names == ("crane (0)", "dog", "crane (2)")
    assert TFRecordSource(str(tmp_path), num_classes=3, class_names=names).info.num_classes == 3


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's count of bytes read")
def test_counting_reads_no_images(tmp_path):
    path = tmp_path / "train-0"
    _write(path, [_example([1], image=bytes(200_000))] * 100)

    def bytes_read():
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    (scan,) = scan_files([str(path)])
    assert scan.complete_records == 100
    assert bytes_read() - before < 100_000 < path.stat().st_size


@pytest.mark.parametrize("name", ["val-0", "valid.tfrecord", "validation-00000-of-00001"])
def test_files_for_validation_by_their_usual_names(tmp_path, name):
    _write(tmp_path / "train-0", [_example()])
    _write(tmp_path / name, [_example(), _example()])
    assert tfrecord_splits(str(tmp_path)) == ("train", "validation")
    source = TFRecordSource(str(tmp_path), split="validation", num_classes=2)
    assert source.info.num_examples == 2


def test_compressed_files_are_said_to_be(tmp_path):
    (tmp_path / "train-0").write_bytes(gzip.compress(b"anything" * 100))
    with pytest.raises(DataError, match="the first compressed with gzip; unpack it"):
        TFRecordSource(str(tmp_path), num_classes=2)
