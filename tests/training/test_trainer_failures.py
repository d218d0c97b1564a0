"""Runs that cannot be, or go wrong: one line that says what and where."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.training.build import open_sources
from effnetv2_tf.training.checkpoints import CheckpointFolder
from effnetv2_tf.training.run_failures import BrokenImage
from effnetv2_tf.training.runs import evaluate_run, open_run
from effnetv2_tf.training.trainer import Trainer, train

STEPS_PER_EPOCH = 1437 // 128


@pytest.fixture
def recipe_of(make_recipe):
    """Recipes on digits, if nothing else is said, with batches of 128."""

    def recipe(data=None, training=(), **sections):
        training = {"batch_size": 128, **dict(training)}
        return make_recipe(data or {"source": "digits"}, training=training, **sections)

    return recipe


def test_an_absurd_learning_rate_names_the_steps(recipe_of, tmp_path):
    recipe = recipe_of(learning_rate={"per_256": 1e30, "warmup_epochs": 0})
    with pytest.raises(TrainingFailure) as caught:
        Trainer(recipe, tmp_path / "run", verbose=0).run()
    match = re.fullmatch(
        r"the loss became (?:nan|inf) between steps (\d+) and (\d+) "
        r"\(stage 0, learning rate .*\); lower learning_rate\.per_256.*",
        str(caught.value),
    )
    assert match, str(caught.value)
    first, last = int(match[1]), int(match[2])
    assert first + 1 == last <= STEPS_PER_EPOCH
    assert not CheckpointFolder(tmp_path / "run" / "checkpoints").by_step()


def test_weights_that_are_no_numbers_end_the_run_before_they_are_saved(recipe_of, tmp_path):
    """TensorFlow's gradients may be NaN where the loss is not: of taps that reach no image."""
    trainer = Trainer(recipe_of(), tmp_path / "run", verbose=0)

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weight = self.model.get_layer("stem").kernel
            weight.assign(np.where(np.arange(weight.shape[-1]) == 3, np.nan, weight.numpy()))

        def on_train_batch_begin(self, batch, logs=None):
            weight = self.model.get_layer("stem").kernel
            weight.assign(np.nan_to_num(weight.numpy()))

    trainer.callbacks.insert(0, Spoil())
    with pytest.raises(TrainingFailure, match=r"^stem/kernel became NaN or infinite in epoch 1"):
        trainer.run()
    assert not CheckpointFolder(tmp_path / "run" / "checkpoints").by_step()


def _records(path, bad, bad_image=b"no image"):
    """Ten records; the bad ones hold text where an image should be."""
    picture = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(10):
            example = tf.train.Example()
            feature = example.features.feature
            image = bad_image if number in bad else picture
            feature["image/encoded"].bytes_list.value.append(image)
            feature["image/class/label"].int64_list.value.append(1 + number % 2)
            writer.write(example.SerializeToString())


def _record_data(folder, bad, share):
    _records(folder / "train-0", bad)
    _records(folder / "validation-0", ())
    return {
        "source": "tfrecord",
        "eval_split": "validation",
        "options": {"files": str(folder), "num_classes": 2},
        "max_bad_share": share,
    }


def test_too_many_bad_records_end_a_run(recipe_of, tmp_path):
    recipe = recipe_of(_record_data(tmp_path, (2, 5), 0.1), training={"batch_size": 5})
    with pytest.raises(
        TrainingFailure, match=r"data: .* of 10 records are bad, .*10.00%"
    ) as caught:
        Trainer(recipe, tmp_path / "run", verbose=0).run()
    assert "\n" not in str(caught.value)


def test_a_record_that_cannot_be_decoded_is_left_out_by_the_next_run(recipe_of, tmp_path):
    recipe = recipe_of(_record_data(tmp_path, (), 0.1), training={"batch_size": 5})
    no_jpeg = b"\xff\xd8\xff\xe0" + bytes(range(1, 200)) + b"\xff\xd9"
    _records(tmp_path / "train-0", (2,), no_jpeg)
    name = f"{tmp_path}/train-0#2"
    with pytest.raises(
        BrokenImage, match=rf"^data: {re.escape(name)}: cannot be decoded \(.*JPEG.*\); the next"
    ) as caught:
        Trainer(recipe, tmp_path / "run", verbose=0).run()
    assert "\n" not in str(caught.value)
    noted = json.loads((tmp_path / "run" / "broken_images.json").read_text())
    assert noted == {"train": [name], "evaluation": []}
    summary = Trainer(recipe, tmp_path / "run", verbose=0).run()
    assert summary["bad_records"]["train"] == {"count": 1, "names": [name]}


def test_too_many_images_that_cannot_be_decoded_end_a_run(recipe_of, tmp_path):
    recipe = recipe_of(_record_data(tmp_path, (), 0.1), training={"batch_size": 5})
    no_jpeg = b"\xff\xd8\xff\xe0" + bytes(range(1, 200)) + b"\xff\xd9"
    _records(tmp_path / "train-0", (2, 5), no_jpeg)
    with pytest.raises(TrainingFailure, match=r"^data: 2 of 10 records are bad.*train-0#2 "):
        train(recipe, tmp_path / "run", verbose=0)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_training_goes_on_without_images_that_cannot_be_decoded(recipe_of, tmp_path, split, capsys):
    """Their ends and headers are right, but not their Huffman tables, which nobody reads before."""
    for part in ("train", "validation"):
        for number in range(8):
            path = tmp_path / "images" / part / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = np.full((9, 7, 3), 20 * number, np.uint8)
            path.write_bytes(tf.io.encode_jpeg(picture).numpy())
    broken = [tmp_path / "images" / split / "class1" / f"{number}.jpg" for number in (3, 5)]
    for path in broken:
        data = bytearray(path.read_bytes())
        table = data.index(b"\xff\xc4") + 5
        data[table : table + 16] = b"\xff" * 16
        path.write_bytes(data)
    options = {"directory": str(tmp_path / "images")}
    data = {
        "source": "image_folder",
        "options": options,
        "eval_split": "validation",
        "max_bad_share": 0.5,
    }
    recipe = recipe_of(data, training={"batch_size": 4})
    summary = train(recipe, tmp_path / "run", verbose=0)
    said = [line for line in capsys.readouterr().out.splitlines() if "cannot be decoded" in line]
    (line,) = said  # one restart for both
    assert line.startswith(f"data: {broken[0]}: cannot be decoded (")
    assert line.endswith("; the next run in the folder leaves it and 1 more out")
    name = {"train": "train", "validation": "evaluation"}[split]
    assert summary["bad_records"][name]["count"] == 2
    assert summary["evaluation_images"] == (8 if split == "train" else 6)
    opened = open_run(tmp_path / "run")
    evaluation = evaluate_run(opened, 16)
    assert evaluation.images == summary["evaluation_images"]


def test_a_few_bad_records_are_counted_in_the_summary(recipe_of, tmp_path):
    recipe = recipe_of(_record_data(tmp_path, (2, 5), 0.2), training={"batch_size": 5})
    summary = Trainer(recipe, tmp_path / "run", verbose=0).run()
    assert summary["bad_records"]["train"]["count"] == 2
    assert len(summary["bad_records"]["train"]["names"]) == 2
    assert summary["bad_records"]["evaluation"]["count"] == 0


def _folder_data(folder, bad, **changes):
    for number in range(10):
        path = folder / "images" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = tf.io.encode_png(np.full((9, 7, 3), 20 * number, np.uint8)).numpy()
        path.write_bytes(data[:-25] if number in bad else data)
    options = {"directory": str(folder / "images")}
    return {"source": "image_folder", "options": options, "eval_split": "validation", **changes}


def test_the_share_of_bad_files_is_the_recipes(recipe_of, tmp_path):
    with pytest.raises(UsageError, match=r"data: .*records are bad, expected at most 1.00%"):
        open_sources(recipe_of(_folder_data(tmp_path, bad=(3,))))
    accepted = open_sources(recipe_of(_folder_data(tmp_path, bad=(3,), max_bad_share=0.9)))
    assert accepted.train.bad_records.count + accepted.evaluation.bad_records.count == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "recipe.yaml: expected a mapping of sections, received nothing"),
        (b"name: caf\xe9\n", "recipe.yaml: not a text file in UTF-8"),
        (b"name: a\nmodel: [1\n", r"recipe.yaml, line \d: not valid YAML"),
    ],
)
def test_a_folder_with_a_damaged_recipe(recipe_of, tmp_path, content, message):
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        Trainer(recipe_of(), tmp_path, verbose=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "digit"}, "data: unknown kind of source.*did you mean 'digits'"),
        ({"source": "digits", "train_split": "trian"}, "data: digits: .*did you mean 'train'"),
        ({"source": "digits", "num_classes": 7}, "data.num_classes: expected 7, but .* has 10"),
        ({"source": "digits", "options": {"path": "x"}}, "data: digits: unknown option.*'path'"),
        ({"source": "image_folder", "options": {"directory": "/no/where"}}, "data: .*/no/where"),
        (
            {"source": "digits", "options": {"shard": [0]}},
            r"data: digits: option 'shard' .*expected tuple\[int, int\], received \[0\]",
        ),
    ],
)
def test_data_that_cannot_be_used(recipe_of, data, message):
    with pytest.raises(UsageError, match=message) as caught:
        open_sources(recipe_of(data))
    assert "\n" not in str(caught.value)


def test_an_impossible_share_of_bad_files(recipe_of, tmp_path):
    data = _folder_data(tmp_path, bad=())
    data["options"]["max_bad_share"] = 7
    message = r"data\.options: max_share: expected a share in .*, received 7; max_bad_share=0.01"
    with pytest.raises(UsageError, match=message):
        open_sources(recipe_of(data))


def test_weights_that_are_no_file(recipe_of, tmp_path):
    recipe = recipe_of()
    recipe = recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"weights": "none.weights.h5"})}
    )
    with pytest.raises(UsageError, match=r"model: .*none.weights.h5.*, which is no file"):
        Trainer(recipe, tmp_path / "run", verbose=0)
