"""From the command line: a run's accuracy at its own size, or one clear line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.prediction.inference import folded_inference
from effnetv2_tf.training import build
from effnetv2_tf.training.runs import evaluate_run, open_run


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "effnetv2_tf.evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def float32_run(tiny_run):
    recipe = tiny_run / "recipe.yaml"
    text = recipe.read_text("utf-8")
    assert "precision: mixed_bfloat16" in text
    recipe.write_text(text.replace("mixed_bfloat16", "float32"), "utf-8")
    return tiny_run


def test_a_named_checkpoint_and_a_single_batch(tiny_run):
    recipe = tiny_run / "recipe.yaml"
    recipe.write_text(
        recipe.read_text().replace("eval_batch_size: null", "eval_batch_size: 360"), "utf-8"
    )
    done = run(f"--model_dir={tiny_run}", "--checkpoint=step-0000000007.npz")
    assert done.returncode == 0, done.stderr
    assert "step-0000000007.npz (step 7, raw weights) on digits/test" in done.stdout
    (row,) = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["16"]]
    assert row[3:] == ["360", "-"]
    report = json.loads((tiny_run / "evaluation.json").read_text())
    assert report["sizes"]["16"]["images"] == 360
    rows = list(csv.DictReader((tiny_run / "classes_16.csv").open()))
    assert [row["class"] for row in rows] == list("0123456789")
    assert sum(int(row["images"]) for row in rows) == 360
    correct = sum(int(row["correct"]) for row in rows)
    assert correct / 360 == report["sizes"]["16"]["top_1"]
    pairs = list(csv.DictReader((tiny_run / "confusion_16.csv").open()))
    assert sum(int(pair["images"]) for pair in pairs) == 360
    assert sum(int(p["images"]) for p in pairs if p["true"] == p["predicted"]) == correct
    assert "there are no images of" not in done.stdout
    assert report["weights"] == "raw"  # the run keeps no averages


def test_an_empty_checkpoint_is_refused(tiny_run):
    done = run(f"--model_dir={tiny_run}", "--checkpoint=")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --checkpoint: expected last, best, the name of a file")
    assert done.stderr.strip().endswith("received ''")


def test_other_images_of_the_classes(tiny_run, tmp_path):
    """In their own order of classes, not all of which are there."""
    names = ["ant", "bee", "cat", "dog", "emu", "fox", "gnu", "hen", "ibis", "jay"]
    (tiny_run / "summary.json").write_text(json.dumps({"class_names": names}))
    for number, name in enumerate(["hen", "bee", "bee"]):
        path = tmp_path / "images" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(np.full((9, 7, 3), 20 * number, np.uint8)).numpy())
    images, output = tmp_path / "images", tmp_path / "out"
    done = run(f"--model_dir={tiny_run}", f"--images={images}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert f"raw weights) on {images}" in done.stdout
    rows = list(csv.DictReader((output / "classes_16.csv").open()))
    assert {row["class"]: row["images"] for row in rows if row["images"] != "0"} == {
        "bee": "2",
        "hen": "1",
    }
    listing = tmp_path / "list.csv"
    listing.write_text("path,label\nimages/bee/1.png,bee\n")
    done = run(f"--model_dir={tiny_run}", f"--images={listing}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert json.loads((output / "evaluation.json").read_text())["sizes"]["16"]["images"] == 1


def test_images_of_other_classes_are_refused(tiny_run, tmp_path):
    names = [str(number) for number in range(10)]
    (tiny_run / "summary.json").write_text(json.dumps({"class_names": names}))
    (tmp_path / "images" / "owl").mkdir(parents=True)
    (tmp_path / "images" / "owl" / "0.png").write_bytes(b"")
    done = run(f"--model_dir={tiny_run}", f"--images={tmp_path / 'images'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --images: ")
    assert "owl" in done.stderr
    done = run(f"--model_dir={tiny_run}", f"--images={tmp_path / 'nothing'}")
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_faster_form_of_the_network_is_what_is_evaluated(float32_run):
    seen = []

    def infer(images):
        seen.append(folded(images).numpy())
        return tf.one_hot(tf.fill(images.shape[:1], 3), 10)

    opened = open_run(float32_run)
    folded = folded_inference(opened.model)
    result = evaluate_run(opened, 16, infer)
    assert set(np.flatnonzero(result.confusion.sum(axis=0))) == {3}
    assert result.top_1 == result.confusion[3, 3] / 360 > 0.08
    # What the folded network says of these images is what the network says.
    dataset = build.build_evaluation_dataset(opened.recipe, opened.evaluation, 16)
    expected = np.concatenate([opened.model(images, training=False) for images, _ in dataset])
    np.testing.assert_allclose(np.concatenate(seen), expected, rtol=1e-4)


def test_a_run_in_float32_is_evaluated_as_its_network_is(float32_run):
    done = run(f"--model_dir={float32_run}")
    assert done.returncode == 0, done.stderr
    sizes = json.loads((float32_run / "evaluation.json").read_text())["sizes"]
    expected = evaluate_run(open_run(float32_run), 16)
    assert sizes["16"]["images"] == expected.images == 360
    assert sizes["16"]["top_1"] == pytest.approx(expected.top_1, abs=2.5 / 360)
