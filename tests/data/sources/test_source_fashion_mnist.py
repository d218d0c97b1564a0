"""Fashion-MNIST from IDX files: hand-made ones, and Debian's where they are installed."""

import gzip
import struct

import numpy as np
import pytest

from effnetv2_tf.data.sources import DataError, FashionMnistSource
from effnetv2_tf.data.sources.fashion_mnist import CLASS_NAMES, DEFAULT_DIRECTORY, FILES


def _idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def _write(folder, split, count, compress=False):
    images = np.arange(count, dtype=np.uint8)[:, None, None] + np.zeros([1, 28, 28], np.uint8)
    labels = np.arange(count) % 10
    for name, array in zip(FILES[split], (images, labels), strict=True):
        content = _idx(array)
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    _write(tmp_path, "train", 30)
    _write(tmp_path, "test", 20, compress=True)
    return tmp_path


def _values(source):
    examples = source.epoch(0, seed=0, shuffle=False).as_numpy_iterator()
    return [(int(e["image"][0, 0, 0]), int(e["label"])) for e in examples]


def test_reads_plain_and_gzipped_files(folder):
    assert _values(FashionMnistSource("train", folder)) == [(i, i % 10) for i in range(30)]
    assert _values(FashionMnistSource("test", folder)) == [(i, i % 10) for i in range(20)]


def test_info(folder):
    info = FashionMnistSource("test", folder).info
    assert (info.num_examples, info.num_classes, info.channels) == (20, 10, 1)
    assert info.class_names == CLASS_NAMES
    assert info.class_names[9] == "Ankle boot"
    assert info.name == "fashion_mnist/test"


def test_validation_is_the_end_of_train(folder):
    train = FashionMnistSource("train", folder, validation_examples=4)
    validation = FashionMnistSource("validation", folder, validation_examples=4)
    assert [v for v, _ in _values(train)] == list(range(26))
    assert [v for v, _ in _values(validation)] == [26, 27, 28, 29]


@pytest.mark.parametrize(
    ("split", "count"), [("validation", 0), ("validation", 30), ("train", -1), ("train", 30)]
)
def test_impossible_validation_examples(folder, split, count):
    with pytest.raises(DataError, match=f"impossible validation_examples: .*received {count}"):
        FashionMnistSource(split, folder, validation_examples=count)


def test_train_examples_are_the_first(folder):
    train = FashionMnistSource("train", folder, validation_examples=4, train_examples=3)
    validation = FashionMnistSource("validation", folder, validation_examples=4, train_examples=3)
    assert [v for v, _ in _values(train)] == [0, 1, 2]
    assert [v for v, _ in _values(validation)] == [26, 27, 28, 29]


@pytest.mark.parametrize("count", [0, 27])
def test_impossible_train_examples(folder, count):
    with pytest.raises(DataError, match=rf"train_examples: expected 1 \.\. 26.*received {count}"):
        FashionMnistSource("train", folder, validation_examples=4, train_examples=count)


def test_missing_files_name_package_and_files(tmp_path):
    with pytest.raises(DataError) as caught:
        FashionMnistSource("train", tmp_path / "nowhere")
    message = str(caught.value)
    assert "no such folder" in message
    assert "dataset-fashion-mnist" in message
    assert all(name in message for pair in FILES.values() for name in pair)
    assert "\n" not in message


def test_one_missing_file_is_named(folder):
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="received no train-labels-idx1-ubyte"):
        FashionMnistSource("train", folder)


def test_truncated_file(folder):
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    message = r"train-images-idx3-ubyte: truncated IDX file: expected 23520 bytes .* received 23420"
    with pytest.raises(DataError, match=message):
        FashionMnistSource("train", folder)


def test_truncated_gzip(folder):
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: unreadable gzip file"):
        FashionMnistSource("test", folder)


def test_swapped_files(folder):
    images, labels = (folder / name for name in FILES["train"])
    images.write_bytes(labels.read_bytes())
    with pytest.raises(DataError, match="expected magic number 0x00000803, received 0x00000801"):
        FashionMnistSource("train", folder)


def test_empty_file(folder):
    (folder / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match="received an empty file"):
        FashionMnistSource("train", folder)


def test_counts_that_differ(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(_idx(np.zeros(29)))
    with pytest.raises(DataError, match=r"expected 30 labels, .* received 29"):
        FashionMnistSource("train", folder)


def test_unknown_split(folder):
    with pytest.raises(DataError, match="expected one of train, validation, test"):
        FashionMnistSource("valid", folder)


@pytest.mark.skipif(not DEFAULT_DIRECTORY.is_dir(), reason="dataset-fashion-mnist not installed")
def test_debian_package_is_found_by_default():
    source = FashionMnistSource("test")
    labels = [e["label"] for e in source.epoch(0, seed=0, shuffle=True).as_numpy_iterator()]
    assert np.bincount(labels).tolist() == [1000] * 10
    first = next(source.epoch(0, seed=0, shuffle=False).as_numpy_iterator())
    assert CLASS_NAMES[first["label"]] == "Ankle boot"
    assert first["image"].shape == (28, 28, 1)
