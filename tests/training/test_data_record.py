"""What a resumed run knows of the data it was begun with."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.loading import load_model_dir
from effnetv2_tf.training import build
from effnetv2_tf.training.checkpoints import CheckpointFolder, read_checkpoint
from effnetv2_tf.training.trainer import Trainer


def _folder_data(folder):
    options = {"directory": str(folder), "validation_share": 0.25}
    return {"source": "image_folder", "options": options, "eval_split": "validation"}


def _record_data(folder, bad_labels=(), multi_label=False):
    """Twelve records for training, of which some have a label outside the two classes."""
    folder.mkdir()
    picture = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    for split in ("train", "validation"):
        with tf.io.TFRecordWriter(str(folder / f"{split}-0")) as writer:
            for number in range(12):
                example = tf.train.Example()
                feature = example.features.feature
                feature["image/encoded"].bytes_list.value.append(picture)
                label = 9 if number in bad_labels else 1 + number % 2
                labels = feature["image/class/label"].int64_list.value
                labels.append(label)
                if multi_label and number % 3 == 0:
                    labels.append(3 - label)
                writer.write(example.SerializeToString())
    options = {"files": str(folder), "num_classes": 2, "multi_label": multi_label}
    return {
        "source": "tfrecord",
        "eval_split": "validation",
        "options": options,
        "max_bad_share": 0.5,
    }


def _interrupt(run):
    """Makes a finished run of two epochs one that was stopped after the first."""
    CheckpointFolder(run / "checkpoints").by_step()[-1].unlink()


def _begun(write_classes, make_recipe, folder, batch_size):
    """A run of two epochs of twelve images, its recipe and its images."""
    images = write_classes(folder / "images", ("cat", "dog"), 8)
    recipe = make_recipe(
        _folder_data(images),
        training={"epochs": 2, "batch_size": batch_size},
        checkpoints={"keep_last": 5},
    )
    Trainer(recipe, folder / "run", verbose=0).run()
    return recipe, images


@pytest.mark.parametrize("is_finished", [False, True])
def test_other_steps_of_an_epoch_are_refused(write_classes, make_recipe, tmp_path, is_finished):
    """With them a step lies in another epoch: epochs were skipped, or made twice."""
    recipe, images = _begun(write_classes, make_recipe, tmp_path, batch_size=4)
    if not is_finished:
        _interrupt(tmp_path / "run")
    for number in range(4):
        (images / "dog" / f"{number}.png").unlink()
    with pytest.raises(UsageError) as caught:
        Trainer(recipe, tmp_path / "run", verbose=0).run()
    assert f"{images}: expected the run's 12 training images, received 9, of" in str(caught.value)


def test_an_image_less_that_leaves_the_steps_is_no_harm(write_classes, make_recipe, tmp_path):
    recipe, images = _begun(write_classes, make_recipe, tmp_path, batch_size=5)
    _interrupt(tmp_path / "run")
    (images / "dog" / "0.png").unlink()
    assert Trainer(recipe, tmp_path / "run", verbose=0).run()["steps"] == 4


def test_a_best_epoch_by_another_quantity_is_no_rival(write_classes, make_recipe, tmp_path):
    images = write_classes(tmp_path / "images", ("cat", "dog"), 8)

    def train(monitor):
        recipe = make_recipe(
            _folder_data(images),
            training={"epochs": 2},
            checkpoints={"keep_last": 5, "monitor": monitor},
        )
        return Trainer(recipe, tmp_path / "run", verbose=0).run()

    by_loss = train("val_loss")["best"]
    assert (by_loss["monitor"], by_loss["mode"]) == ("val_loss", "min")
    _interrupt(tmp_path / "run")
    summary = train("val_accuracy")
    assert summary["best"] == {
        "epoch": 2,
        "value": summary["accuracy"],
        "monitor": "val_accuracy",
        "mode": "max",
    }
    best = read_checkpoint(CheckpointFolder(tmp_path / "run" / "checkpoints").best)
    assert best.metadata["best"] == summary["best"]


def test_grey_networks_prepare_files_alike_without_the_data(write_classes, make_recipe, tmp_path):
    """Decoding to grey levels and decoding colours first differ by rounding."""
    images = write_classes(tmp_path / "images", ("cat", "dog"), 8)
    recipe = make_recipe({**_folder_data(images), "channels": 1})
    Trainer(recipe, tmp_path / "run", verbose=0).run()
    shutil.rmtree(images)
    assert load_model_dir(tmp_path / "run").preparation.decoded_channels == 3


def test_a_finished_run_that_is_run_again_keeps_its_bad_records(make_recipe, tmp_path):
    recipe = make_recipe(_record_data(tmp_path / "records", bad_labels=(3, 7)))
    first, second = (Trainer(recipe, tmp_path / "run", verbose=0).run() for _ in range(2))
    assert first["bad_records"]["train"]["count"] == 2
    assert first["evaluation_images"] == 10
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    for key in ("bad_records", "evaluation_images", "accuracy"):
        assert second[key] == written[key] == first[key]


def test_a_finished_run_keeps_the_number_of_images_that_its_accuracy_is_of(
    write_classes, make_recipe, tmp_path
):
    recipe, _ = _begun(write_classes, make_recipe, tmp_path, batch_size=5)
    source = build.open_sources(recipe).evaluation
    evaluated = [
        example["name"].numpy().decode() for example in source.epoch(0, seed=0, shuffle=False)
    ]
    first = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert first["evaluation_images"] == len(evaluated) == 4
    Path(evaluated[0]).unlink()
    again = Trainer(recipe, tmp_path / "run", verbose=0).run()
    assert (again["accuracy"], again["evaluation_images"]) == (first["accuracy"], 4)


def test_balanced_class_weights_leave_bad_records_out(make_recipe, tmp_path):
    recipe = make_recipe(
        _record_data(tmp_path / "records", bad_labels=(0, 2)),
        training={"class_weights": "balanced"},
    )
    sources = build.open_sources(recipe)
    pipeline = build.build_training_pipeline(recipe, sources.train)
    # Ten usable: four of class 0, six of class 1.
    assert pipeline.class_weights == pytest.approx({0: 10 / 8, 1: 10 / 12})


def test_balanced_class_weights_need_one_label(make_recipe, tmp_path):
    recipe = make_recipe(
        _record_data(tmp_path / "records", multi_label=True),
        training={"class_weights": "balanced", "loss": "sigmoid"},
    )
    sources = build.open_sources(recipe)
    with pytest.raises(UsageError, match="class_weights: 'balanced' needs one label for each"):
        build.build_training_pipeline(recipe, sources.train)


def test_several_labels_are_learnt_with_either_loss(make_recipe, tmp_path):
    data = _record_data(tmp_path / "records", multi_label=True)
    for loss in ("softmax", "sigmoid"):
        recipe = make_recipe(data, training={"loss": loss})
        trainer = Trainer(recipe, tmp_path / loss, verbose=0)
        trainer.run()
        pipeline = build.build_training_pipeline(recipe, trainer.sources.train)
        _, labels = next(pipeline(trainer.schedule.stages[0], 0).as_numpy_iterator())
        sums = np.unique(labels.sum(axis=1).round(5))
        assert sums.tolist() == [1.0] if loss == "softmax" else sums.max() > 1
        assert np.isfinite(trainer.records.rows[-1]["loss"])
