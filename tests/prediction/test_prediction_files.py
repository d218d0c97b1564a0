"""Which files are meant, and what is written of them."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.prediction import ClassScore, Prediction, Predictor, Unreadable
from effnetv2_tf.prediction.files import as_csv, as_json, find_images

RESULTS = [
    Prediction(Path("a, b.jpg"), (ClassScore(3, "cat, tabby", 0.75), ClassScore(0, "dög", 0.25))),
    Unreadable(Path("c.png"), "empty file"),
    Prediction(Path("d.jpg"), (ClassScore(0, "dög", 1.0),)),
]


def test_folders_and_files(image_folder):
    text = image_folder / "notes.txt"
    found = find_images([image_folder / "dogs" / "grey.jpeg", image_folder, text, "gone.png"])
    below = [p.relative_to(image_folder).as_posix() for p in found.files[:4]]
    assert below == ["dogs/grey.jpeg", "cats/tall.PNG", "cats/wide.jpg", "dogs/alpha.png"]
    assert found.files[4:] == (text, Path("gone.png"))
    assert found.named == {image_folder / "dogs" / "grey.jpeg", text, Path("gone.png")}
    assert found.others == (text,)  # of the folder; named, it is tried all the same


def test_links_are_followed_but_not_in_a_circle(tmp_path, image_folder):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "one.png").write_bytes((image_folder / "dogs" / "alpha.png").read_bytes())
    (image_folder / "dogs" / "linked").symlink_to(tmp_path / "more")
    (image_folder / "dogs" / "back").symlink_to(image_folder)
    found = find_images([image_folder / "dogs"]).files
    names = [path.relative_to(image_folder).as_posix() for path in found]
    assert names == ["dogs/alpha.png", "dogs/grey.jpeg", "dogs/linked/one.png"]


def test_a_folder_without_images(tmp_path, image_folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"expected image files \(.jpg, .*\) .*, found no files"):
        find_images([image_folder, empty])
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    with pytest.raises(UsageError, match=r"texts: .* found only 1 other files"):
        find_images([tmp_path / "texts"])


def test_a_folder_that_cannot_be_read(image_folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match="unreadable folder: .* received Permission denied"):
        find_images([image_folder])


def test_no_names():
    with pytest.raises(UsageError, match="expected at least one image file or folder"):
        find_images([])


def test_csv():
    rows = list(csv.DictReader(io.StringIO(as_csv(RESULTS))))
    assert [(r["file"], r["rank"], r["class"], r["index"], r["probability"]) for r in rows] == [
        ("a, b.jpg", "1", "cat, tabby", "3", "0.75"),
        ("a, b.jpg", "2", "dög", "0", "0.25"),
        ("d.jpg", "1", "dög", "0", "1"),
    ]


def test_json(classifier):
    predictor = Predictor(classifier, ImagePreparation(32), origin="a test")
    report = json.loads(as_json(predictor, RESULTS, [Path("notes.txt")]))
    assert report["model"] == "a test"
    assert report["preparation"]["image_size"] == 32
    assert report["images"][0] == {
        "file": "a, b.jpg",
        "classes": [
            {"index": 3, "name": "cat, tabby", "probability": 0.75},
            {"index": 0, "name": "dög", "probability": 0.25},
        ],
    }
    assert len(report["images"]) == 2
    assert report["unreadable"] == [{"file": "c.png", "reason": "empty file"}]
    assert report["skipped"] == ["notes.txt"]
