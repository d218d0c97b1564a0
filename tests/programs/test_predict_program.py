"""From the command line: images to classes, to CSV, JSON and a contact sheet."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parent
NAMES = ("red", "green", "blue")


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "effnetv2_tf.predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def last_line(done: subprocess.CompletedProcess) -> str:
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """A .keras file: red, green or blue, whichever is strongest."""
    inputs = keras.Input((None, None, 3))
    dense = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(inputs)))
    dense.set_weights([np.eye(3, dtype=np.float32) / 20, np.zeros(3, np.float32)])
    path = tmp_path_factory.mktemp("model") / "colours.keras"
    model.save(path)
    (path.parent / "names.txt").write_text("\n".join(NAMES) + "\n")
    return path


@pytest.fixture
def pictures(tmp_path) -> Path:
    """red.png, sub/blue.jpg, a broken PNG and a text file."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (30, 20), (250, 10, 10)).save(folder / "red.png")
    Image.new("RGB", (20, 30), (10, 10, 250)).save(folder / "sub" / "blue.jpg")
    (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:40])
    (folder / "notes.txt").write_text("a text")
    return folder


def network(colours: Path) -> tuple[str, ...]:
    return (
        f"--file={colours}",
        f"--labels={colours.parent / 'names.txt'}",
        "--image_size=8",
    )


def test_a_folder(colours, pictures, tmp_path):
    out = tmp_path / "new"
    done = run(
        pictures, *network(colours), "--top=2", f"--csv={out / 'all.csv'}",
        f"--json={out / 'all.json'}", f"--sheet={out / 'all.png'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr  # nothing that was named is unreadable
    assert done.stderr == ""
    assert f"{pictures / 'red.png'}\n  100.00%  red\n    0.00%  " in done.stdout
    assert f"{pictures / 'broken.png'}: skipped: broken image: " in done.stdout
    assert f"Skipped 1 files without an image's extension: {pictures / 'notes.txt'}" in done.stdout
    assert f"Skipped 1 unreadable images: {pictures / 'broken.png'}" in done.stdout
    rows = list(csv.DictReader((out / "all.csv").open(encoding="utf-8")))
    assert [(Path(row["file"]).name, row["rank"]) for row in rows] == [
        ("red.png", "1"), ("red.png", "2"), ("blue.jpg", "1"), ("blue.jpg", "2"),
    ]  # fmt: skip
    assert [row["class"] for row in rows[::2]] == ["red", "blue"]
    report = json.loads((out / "all.json").read_text(encoding="utf-8"))
    assert [image["classes"][0]["name"] for image in report["images"]] == ["red", "blue"]
    assert report["preparation"]["image_size"] == 8
    assert report["skipped"] == [str(pictures / "notes.txt")]
    with Image.open(out / "all.png") as sheet:
        assert sheet.format == "PNG"


def test_a_folder_without_a_readable_image_fails(pictures, colours):
    (pictures / "red.png").unlink()
    (pictures / "sub" / "blue.jpg").write_bytes(b"")
    done = run(pictures, *network(colours))
    assert done.returncode == 1
    assert last_line(done) == "error: none of the 2 images that were found could be read"


def test_a_named_file_that_cannot_be_read_ends_with_1(colours, pictures):
    red, text, gone = (pictures / name for name in ("red.png", "notes.txt", "gone.jpg"))
    done = run(red, *network(colours), text, "--batch_size", "1", gone, red, "--top", "1")
    assert done.returncode == 1
    _, *lines = done.stdout.splitlines()
    assert lines[:2] == [str(red), "  100.00%  red"]
    assert len(lines) == 4  # a file that is named twice is predicted once
    assert last_line(done).startswith("error: 2 of 3 named files could not be read: ")
    assert f"{text} (not an image: no JPEG, PNG, GIF or BMP signature)" in last_line(done)
    assert f"{gone} (missing file)" in last_line(done)


def test_a_run_names_its_classes(tiny_run, pictures):
    done = run(pictures / "red.png", f"--model_dir={tiny_run}", "--top=10")
    assert done.returncode == 0, done.stderr
    first, file, *classes = done.stdout.splitlines()
    assert first.endswith("step 7, raw weights, 16 px")
    assert file == str(pictures / "red.png")
    assert sorted(line.split()[1] for line in classes) == list("0123456789")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected at least one image file or folder, received none"),
        (("--model=lite0",), "expected at least one image file or folder, received none"),
        (("x.png",), "expected one of --model_dir, --model, --file, received none"),
        (("x.png", "--model=b0", "--file=y"), "received --model and --file"),
        (("x.png", "--model=lite7"), "--model: unknown network 'lite7'; did you mean 'lite"),
        (("x.png", "--model_dir=/no/such"), "--model_dir: expected the folder of a training run"),
        (("x.png", "--file=y", "--top=-1"), "--top=-1"),
        (("x.png", "--file=y", "--top=0"), "--top=0"),
        (("x.png", "--file=y", "--batch_size=0"), "--batch_size=0"),
        (("x.png", "--file=y", "--cvs=a.csv"), "cvs"),
        ((__file__, f"--file={__file__}", "--csv="), "--csv: expected the name of a file to write"),
        ((__file__, f"--file={__file__}", "--json= "), "--json: expected the name of a file to"),
        ((__file__, f"--file={__file__}", "--sheet="), "--sheet: expected the name of a file to"),
        (
            (__file__, f"--file={__file__}", f"--csv={FOLDER}"),
            f"--csv: expected the name of a file to write, received the folder {FOLDER}",
        ),
        (
            (__file__, f"--file={__file__}", f"--json={__file__}/new/a.json"),
            f"--json: expected a file in a folder, {__file__} is none",
        ),
        ((__file__, "--file=/no/such.keras"), "--file: expected a .keras file, /no/such.keras"),
        ((__file__, f"--file={FOLDER}"), f"--file: expected a .keras file, {FOLDER} is a folder"),
        (
            ("x.png", "--file=y", "--checkpoint=bst"),
            "--checkpoint: expected with --model_dir alone",
        ),
        (("x.png", "--model_dir=y", "--crop=none"), "--crop: expected with --file alone, received"),
        (
            ("x.png", "--model=lite0", "--labels=y"),
            "--labels: expected with --file alone, received",
        ),
    ],
)
def test_wrong_use_is_one_line_and_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert last_line(done).startswith("error: ")
    assert message in last_line(done)
    assert done.stdout == ""


def test_who_reads_a_part_of_the_output_gets_all_files(colours, pictures, tmp_path):
    """As `predict ... | head -1` does; and a name that the terminal cannot show."""
    odd = pictures / "sub" / "\udcff\u00e9.png"
    odd.write_bytes((pictures / "red.png").read_bytes())
    for number in range(5):
        (pictures / f"{number}.png").write_bytes((pictures / "red.png").read_bytes())
    path = tmp_path / "all.csv"
    command = [sys.executable, "-m", "effnetv2_tf.predict", str(pictures), *network(colours)]
    with subprocess.Popen(
        [*command, f"--csv={path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        files = {row["file"] for row in csv.DictReader(file)}
    assert len(files) == 8
    assert str(odd) in files


def test_help_is_no_failure():
    done = run("--help")
    assert done.returncode == 0
    assert "--batch_size" in done.stdout


def test_only_missing_files_are_wrong_use():
    done = run("/no/such.jpg", "/no/folder", "--model=lite0")
    assert done.returncode == 2
    assert last_line(done) == "error: no such file or folder: /no/such.jpg, /no/folder"
