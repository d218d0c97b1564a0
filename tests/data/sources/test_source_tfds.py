"""Data sets of TensorFlow Datasets.

tensorflow-datasets is an optional extra. Where it is not installed, most tests run on a stand-in
module with the few names the source uses, over TFRecord files that the test writes, and those of
the real package are skipped.
"""

import importlib.util
import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.data.sources import DataError, TFDSSource

REAL = importlib.util.find_spec("tensorflow_datasets") is not None


class _Image:
    shape = (None, None, 3)


class _ClassLabel:
    names, num_classes = ("cat", "dog", "emu"), 3


class _Features(dict):
    def deserialize_example(self, record, *, decoders):
        assert isinstance(decoders["image"], _SkipDecoding)
        spec = {
            "image": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        }
        return tf.io.parse_single_example(record, spec)


class _SkipDecoding:
    pass


class _DatasetNotFoundError(ValueError):
    pass


@dataclass
class _Part:
    filename: str
    skip: int
    take: int


def _png(value):
    return tf.io.encode_png(np.full((2, 2, 3), value, np.uint8)).numpy()


def _write(path, values):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for value in values:
            example = tf.train.Example()
            example.features.feature["image"].bytes_list.value.append(_png(value))
            example.features.feature["label"].int64_list.value.append(value % 3)
            writer.write(example.SerializeToString())


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A module like tensorflow_datasets that knows one data set of 10 examples in two files."""
    _write(tmp_path / "pets-train-0", range(6))
    _write(tmp_path / "pets-train-1", range(6, 10))
    parts = [
        _Part(str(tmp_path / "pets-train-0"), 0, 6),
        _Part(str(tmp_path / "pets-train-1"), 0, 4),
    ]
    some = [_Part(str(tmp_path / "pets-train-0"), 2, 3)]
    splits = {
        "train": types.SimpleNamespace(file_instructions=parts),
        "train[2:5]": types.SimpleNamespace(file_instructions=some),
    }
    info = types.SimpleNamespace(
        features=_Features(image=_Image(), label=_ClassLabel(), other=object()),
        splits=splits,
        file_format=types.SimpleNamespace(value="tfrecord"),
    )
    module = types.ModuleType("tensorflow_datasets")
    module.prepared = []
    module.features = types.SimpleNamespace(Image=_Image, ClassLabel=_ClassLabel)
    module.decode = types.SimpleNamespace(SkipDecoding=_SkipDecoding)
    module.core = types.SimpleNamespace(
        registered=types.SimpleNamespace(DatasetNotFoundError=_DatasetNotFoundError)
    )
    module.list_builders = lambda: ["pets"]
    module.info = info

    def builder(name, data_dir=None):
        if name != "pets":
            raise _DatasetNotFoundError(name)
        return types.SimpleNamespace(
            info=info, data_dir=data_dir, download_and_prepare=lambda: module.prepared.append(name)
        )

    module.builder = builder
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return module


def _examples(source, shuffle=False):
    return list(source.epoch(0, seed=0, shuffle=shuffle).as_numpy_iterator())


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'effnetv2_tf\[tfds\]'"):
        TFDSSource("mnist", "train")


def test_reads_encoded_images_and_labels(stand_in):
    source = TFDSSource("pets", "train")
    assert source.info.class_names == ("cat", "dog", "emu")
    assert (source.info.num_examples, source.info.encoded) == (10, True)
    assert stand_in.prepared == ["pets"]
    examples = _examples(source)
    assert [e["image"] for e in examples] == [_png(value) for value in range(10)]
    assert [e["label"] for e in examples] == [value % 3 for value in range(10)]
    assert examples[7]["name"].decode().endswith("pets-train-1#1")
    shuffled = [e["image"] for e in _examples(source, shuffle=True)]
    assert shuffled != [_png(value) for value in range(10)]
    assert sorted(shuffled) == sorted(e["image"] for e in examples)


def test_labels_that_are_kept_back_are_bad_records(stand_in, tmp_path):
    """Test splits of TFDS have label -1."""
    with tf.io.TFRecordWriter(str(tmp_path / "pets-train-0")) as writer:
        for label in (2, -1):
            example = tf.train.Example()
            example.features.feature["image"].bytes_list.value.append(_png(1))
            example.features.feature["label"].int64_list.value.append(label)
            writer.write(example.SerializeToString())
    stand_in.info.splits["train"].file_instructions[:] = [
        _Part(str(tmp_path / "pets-train-0"), 0, 2)
    ]
    good, bad = _examples(TFDSSource("pets", "train"))
    assert (good["image"], good["label"]) == (_png(1), 2)
    assert bad["image"] == b""
    assert bad["name"].decode().endswith("pets-train-0#1 (no label)")


def test_slice_of_a_split(stand_in):
    source = TFDSSource("pets", "train[2:5]", download=False)
    assert source.info.num_examples == 3
    assert [e["image"] for e in _examples(source)] == [_png(value) for value in (2, 3, 4)]
    assert _examples(source)[0]["name"].decode().endswith("#2")
    assert stand_in.prepared == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pet", {}, "unknown data set: .*received 'pet'; did you mean 'pets'"),
        ("pets", {"split": "tain"}, "pets: unknown split: .*did you mean 'train'"),
        ("pets", {"label_key": "lable"}, "unknown feature: .*did you mean 'label'"),
        ("pets", {"label_key": "other"}, "feature 'other' does not fit: expected _ClassLabel"),
    ],
)
def test_errors(stand_in, name, options, message):
    with pytest.raises(DataError, match=message):
        TFDSSource(name, **options)


def test_other_file_format(stand_in):
    stand_in.info.file_format.value = "array_record"
    with pytest.raises(DataError, match="expected tfrecord, received array_record"):
        TFDSSource("pets")


def test_not_prepared(stand_in):
    stand_in.info.splits = {}
    with pytest.raises(DataError, match=r"not prepared: .*set download=True"):
        TFDSSource("pets", download=False)


@pytest.mark.skipif(not REAL, reason="tensorflow-datasets is not installed")
def test_the_real_package(tmp_path):
    tfds = importlib.import_module("tensorflow_datasets")

    class TinyPets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["cat", "dog", "emu"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for value in range(10):
                image = np.full((2, 2, 3), value, np.uint8)
                yield value, {"image": image, "label": value % 3}

    TinyPets(data_dir=tmp_path).download_and_prepare()
    source = TFDSSource("tiny_pets", "train", tmp_path)
    assert source.info.num_examples == 10
    assert source.info.class_names == ("cat", "dog", "emu")
    examples = _examples(source, shuffle=True)
    pixels = [int(tf.io.decode_png(e["image"])[0, 0, 0]) for e in examples]
    assert sorted(pixels) == list(range(10))
    assert [e["label"] for e in examples] == [value % 3 for value in pixels]
    assert TFDSSource("tiny_pets", "train[3:7]", tmp_path).info.num_examples == 4
    with pytest.raises(DataError, match="unknown split: expected one of train, received 'test'"):
        TFDSSource("tiny_pets", "test", tmp_path)
    with pytest.raises(DataError, match=r"unknown data set: .*received 'tiny_pet'"):
        TFDSSource("tiny_pet", "train", tmp_path)
