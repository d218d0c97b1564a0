"""From the command line: accuracy and cost of runs over test sizes, in one picture."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "effnetv2_tf.resolution_sweep", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=500, env=environment, check=False
    )


@pytest.mark.slow
def test_two_runs_in_one_picture(tiny_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other)
    output = tmp_path / "sweep"
    done = run(
        *(f"--model_dir={folder}" for folder in (tiny_run, other)),
        "--sizes=8,16",
        "--rounds=2",
        "--batch_size=3",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "resolution_sweep.json").read_text())
    points = report["points"]
    assert [(p["run"], p["image_size"]) for p in points] == [
        (str(folder), size) for folder in (tiny_run, other) for size in (8, 16)
    ]  # folders' names: both recipes are called "tiny"
    assert points[0]["top_1"] == points[2]["top_1"]
    assert 3.5 < points[1]["multiply_adds"] / points[0]["multiply_adds"] < 4
    assert report["latency"]["batch_size"] == 3
    assert report["latency"]["statistic"] == "median"
    assert report["runs"][str(other)]["step"] == 7
    with (output / "resolution_sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["latency_ms"]) for row in rows] == [p["latency_ms"] for p in points]
    with Image.open(output / "resolution_sweep.png") as picture:
        assert picture.size[0] > 1000
    assert "Pareto-optimal by" in done.stdout
    assert "median of 2 calls after 3 to warm up, batch 3" in done.stdout
    assert f"Wrote {output / 'resolution_sweep.csv'}" in done.stdout
    names = sorted(path.name for path in output.iterdir())
    assert names == [f"resolution_sweep.{ending}" for ending in ("csv", "json", "png")]


@pytest.mark.slow
def test_sizes_around_the_training_size_in_the_runs_folder(tiny_run):
    done = run(f"--model_dir={tiny_run}", "--step=4", "--rounds=1")
    assert done.returncode == 0, done.stderr
    report = json.loads((tiny_run / "resolution_sweep.json").read_text())
    assert [p["image_size"] for p in report["points"]] == [8, 12, 16, 20, 24, 28, 32]
    assert {p["run"] for p in report["points"]} == {"tiny"}


def test_other_images_of_the_classes(tiny_run, tmp_path):
    for number in range(2):
        path = tmp_path / "images" / "3" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 100 * number).save(path)
    images, output = tmp_path / "images", tmp_path / "sweep"
    flags = ("--sizes=16", "--rounds=1", f"--output={output}")
    done = run(f"--model_dir={tiny_run}", f"--images={images}", *flags)
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "resolution_sweep.json").read_text())
    assert report["data"] == str(images)
    assert [point["images"] for point in report["points"]] == [2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--model_dir: expected the folder of a training run, received none"),
        (("--model_dir=a", "--model_dir=b"), "--output: expected a folder with several"),
        (
            ("--model_dir=a", "--sizes=8,x"),
            "--sizes: expected whole numbers from 8 up, received 'x'",
        ),
        (("--model_dir=a", "--sizes=4"), "--sizes: expected whole numbers from 8 up, received '4'"),
        (("--model_dir=a", "--step=0"), "--step"),
        (
            ("--model_dir=a", "--output="),
            "--output: expected a folder for the results, received",
        ),
        (("--model_dir=a", f"--output={__file__}"), "test_resolution_sweep_program.py is a file"),
        (("--model_dir=a", "--images="), "--images: expected a folder or a CSV file"),
        (("--model_dir=/no/such/run",), "which has no recipe.yaml"),
    ],
)
def test_wrong_use_is_one_line_and_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert message in done.stderr
    assert done.stdout == ""
