"""Which split a recipe evaluates on, and how many images that has."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.data.sources import open_source, split_names
from effnetv2_tf.errors import UsageError
from effnetv2_tf.training.build import open_sources, with_evaluation_split
from effnetv2_tf.training.recipe_files import load_recipe
from effnetv2_tf.training.trainer import Trainer

CLASSES = ("cat", "dog")


@pytest.fixture
def folder(tmp_path, write_classes):
    """Makes a folder of images with the named sub-folders, or of classes at once."""

    def make(*splits):
        for split in splits or ("",):
            write_classes(tmp_path / "images" / split, CLASSES)
        return tmp_path / "images"

    return make


def _data(directory, **changes):
    return {"source": "image_folder", "options": {"directory": str(directory)}, **changes}


@pytest.mark.parametrize(
    ("splits", "evaluated"),
    [
        ((), "validation"),
        (("train", "test"), "test"),
        (("train", "val"), "validation"),
        (("train", "val", "test"), "validation"),
    ],
    ids=["plain", "train-test", "train-val", "all"],
)
def test_an_own_folder_is_evaluated_whatever_its_form(folder, make_recipe, splits, evaluated):
    directory = folder(*splits)
    recipe = make_recipe(_data(directory))
    assert with_evaluation_split(recipe).data.eval_split == evaluated
    sources = open_sources(recipe)
    parts = {"validation": "val", "test": "test"}
    own = directory / parts[evaluated] if splits else directory
    assert sources.evaluation.info.name == str(own)
    assert sources.evaluation.info.num_examples == (8 if splits else 2)
    packaged = load_recipe("configs/finetune.yaml", [f"data.options.directory={directory}"])
    assert with_evaluation_split(packaged).data.eval_split == evaluated


@pytest.mark.parametrize(
    ("source", "options", "names"),
    [
        ("digits", {}, ("train", "test")),
        ("fashion_mnist", {}, ("train", "test")),
        ("fashion_mnist", {"validation_examples": 5}, ("train", "validation", "test")),
    ],
)
def test_splits_of_embedded_sources(source, options, names):
    assert split_names(source, **options) == names


@pytest.mark.parametrize(
    ("splits", "changes", "message"),
    [
        (
            ("train", "test"),
            {"eval_split": "validation"},
            "unknown split: expected one of train, test, received 'validation'; "
            "set data.eval_split=test",
        ),
        (
            (),
            {"eval_split": "test"},
            "expected one of train, validation, received 'test'; set data.eval_split=validation",
        ),
        (("train", "val"), {"eval_split": "validatoin"}, "did you mean 'validation'?"),
        (
            (),
            {"options": {"validation_share": 0}},
            "data.eval_split: expected a source with one of the splits validation, test, received "
            "image_folder with train; set data.eval_split to",
        ),
        ((), {"options": {"validation_shrae": 0}}, "did you mean 'validation_share'?"),
    ],
)
def test_a_split_that_is_not_there(folder, make_recipe, splits, changes, message):
    options = {"directory": str(folder(*splits)), **changes.pop("options", {})}
    recipe = make_recipe({"source": "image_folder", "options": options, **changes})
    with pytest.raises(UsageError) as caught:
        open_sources(recipe)
    assert message in str(caught.value)


def _write_records(path, count, bad=()):
    """Records of two classes in turn; the bad ones hold text where an image should be."""
    picture = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(count):
            example = tf.train.Example()
            feature = example.features.feature
            feature["image/encoded"].bytes_list.value.append(
                b"no image" if number in bad else picture
            )
            feature["image/class/label"].int64_list.value.append(1 + number % 2)
            writer.write(example.SerializeToString())


@pytest.fixture
def records(tmp_path):
    """Ten records to train on, six and four held out."""
    for split, count in (("train", 10), ("validation", 6), ("test", 4)):
        _write_records(tmp_path / f"{split}-0", count)
    return tmp_path


def _record_recipe(make_recipe, files, **options):
    options = {"files": str(files), "num_classes": 2, **options}
    return make_recipe({"source": "tfrecord", "options": options}, training={"batch_size": 2})


@pytest.mark.parametrize(
    ("pattern", "missing", "names"),
    [
        ("", None, ("train", "validation", "test")),
        ("", "validation", ("train", "test")),
        ("{split}-*", "test", ("train", "validation")),
        ("train-*", None, ("train",)),
    ],
)
def test_splits_of_records(records, pattern, missing, names):
    if missing is not None:
        (records / f"{missing}-0").unlink()
    assert split_names("tfrecord", files=str(records / pattern), num_classes=2) == names


def test_training_files_by_another_name_are_not_evaluated_on(records, make_recipe):
    pattern = str(records / "train-*")
    recipe = make_recipe(
        {
            "source": "tfrecord",
            "options": {"files": pattern, "num_classes": 2},
            "eval_split": "validation",
        }
    )
    with pytest.raises(UsageError, match=r"other files for 'validation' .* pattern with \{split\}"):
        open_sources(recipe)
    data = recipe.data.model_copy(update={"eval_split": "train"})
    sources = open_sources(recipe.model_copy(update={"data": data}))  # who says so may
    assert sources.evaluation.info.num_examples == 10


@pytest.mark.parametrize("name", ["imagenet_s", "imagenet21k_s", "g16_pn_b0"])
def test_the_command_of_a_recipe_trains_and_evaluates_on_what_it_says(records, name):
    text = Path(f"configs/{name}.yaml").read_text()
    assert "data.options.files=/path/to/folder" in text
    sources = open_sources(load_recipe(f"configs/{name}.yaml", [f"data.options.files={records}"]))
    assert (sources.train.info.num_examples, sources.evaluation.info.num_examples) == (10, 6)


def test_num_examples_is_of_the_training_records(records, make_recipe):
    sources = open_sources(_record_recipe(make_recipe, records, num_examples=8))
    assert sources.train.info.num_examples == 8
    assert sources.evaluation.info.num_examples == 6


def _names(source, **position):
    examples = source.epoch(0, seed=3, **position).as_numpy_iterator()
    return [example["name"].decode() for example in examples]


def test_an_epoch_has_the_stated_number_of_examples(records):
    options = {"num_classes": 2, "files": str(records), "shuffle_buffer": 20}
    every = _names(open_source("tfrecord", "train", **options), shuffle=True)
    stated = open_source("tfrecord", "train", num_examples=8, **options)
    assert _names(stated, shuffle=True) == every[:8]
    assert _names(stated, shuffle=True, start=5) == every[5:8]
    shard = open_source("tfrecord", "train", num_examples=8, shard=(1, 3), **options)
    assert _names(shard, shuffle=True, start=1) == every[4:8:3]
    too_many = open_source("tfrecord", "train", num_examples=11, **options)
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 11 elements"):
        _names(too_many, shuffle=True)


def test_too_many_num_examples_end_a_run(records, make_recipe, tmp_path):
    recipe = _record_recipe(make_recipe, records, num_examples=12)
    with pytest.raises(UsageError) as caught:
        Trainer(recipe, tmp_path / "run", verbose=0).run()
    assert str(caught.value) == (
        "data.options.num_examples: expected the number of records in tfrecord/train, received "
        "12, which is more; leave it out to have them counted"
    )


def test_the_summary_counts_the_images_that_were_evaluated(records, make_recipe, tmp_path):
    _write_records(records / "validation-0", 6, bad=(1, 4))
    recipe = _record_recipe(make_recipe, records, num_examples=8)
    data = recipe.data.model_copy(update={"max_bad_share": 0.5})
    summary = Trainer(recipe.model_copy(update={"data": data}), tmp_path / "run", verbose=0).run()
    assert summary["evaluated_on"] == "tfrecord/validation"
    assert summary["evaluation_images"] == 4
    assert summary["bad_records"]["evaluation"]["count"] == 2
    assert summary["steps"] == 4
