"""Images in class sub-folders: ids, bad files, splits and errors."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnetv2_tf.data.sources import (
    DataError,
    ImageFolderSource,
    TooManyBadRecords,
    open_source,
)
from effnetv2_tf.data.sources.image_listing import files_below


def _encode(value=0, image_format="JPEG"):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, image_format)
    return buffer.getvalue()


def _fill(folder, counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i:03}.jpg").write_bytes(_encode(i))
    return folder


def _examples(source):
    return list(source.epoch(0, seed=0, shuffle=False).as_numpy_iterator())


def _names(source):
    return {e["name"].decode() for e in _examples(source)}


def test_labels_are_the_sorted_folders(tmp_path):
    source = ImageFolderSource(_fill(tmp_path, {"dog": 2, "cat": 1, ".cache": 1}))
    assert source.info.class_names == ("cat", "dog")
    assert (source.info.encoded, source.info.channels) == (True, 3)
    got = [(e["name"].decode(), e["label"]) for e in _examples(source)]
    assert got == [
        (str(tmp_path / "cat/000.jpg"), 0),
        (str(tmp_path / "dog/000.jpg"), 1),
        (str(tmp_path / "dog/001.jpg"), 1),
    ]
    assert _examples(source)[2]["image"] == _encode(1)


def test_nested_folders_and_all_formats(tmp_path):
    _fill(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "deep").mkdir()
    for image_format in ("png", "gif", "bmp"):
        path = tmp_path / "a" / "deep" / f"x.{image_format.upper()}"
        path.write_bytes(_encode(0, image_format))
    (tmp_path / "a" / "deep" / ".DS_Store").write_bytes(b"hidden files do not count")
    source = ImageFolderSource(tmp_path, channels=1)
    assert source.info.num_examples == 5
    assert source.info.channels == 1
    assert source.bad_records.count == 0


def test_bad_files_are_left_out_counted_and_named(tmp_path):
    _fill(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "cut.jpg").write_bytes(_encode()[:-2])
    (tmp_path / "a" / "text.jpg").write_text("not an image")
    (tmp_path / "b" / "new.webp").write_bytes(b"RIFF")
    (tmp_path / "stray.png").write_bytes(_encode(0, "PNG"))
    (tmp_path / "README.txt").write_text("no image, no record")
    source = ImageFolderSource(tmp_path, max_bad_share=0.3)
    assert source.info.num_examples == len(_examples(source)) == 10
    assert source.bad_records.count == 4
    assert source.bad_records.total_examples == 14
    assert source.bad_records.reports() == (
        f"{tmp_path}/a/cut.jpg (truncated JPEG: no end-of-image marker)",
        f"{tmp_path}/a/text.jpg (not an image: no JPEG, PNG, GIF or BMP signature)",
        f"{tmp_path}/b/new.webp (unsupported extension '.webp', expected one of .jpg, .jpeg, "
        ".png, .bmp, .gif)",
        f"{tmp_path}/stray.png (not in a class sub-folder)",
    )


def test_too_many_bad_files_stop(tmp_path):
    _fill(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "cut.jpg").write_bytes(_encode()[:-2])
    with pytest.raises(
        TooManyBadRecords, match=r"1 of 11 records are bad, expected at most 1\.00%"
    ):
        ImageFolderSource(tmp_path)


def test_png_with_the_name_of_a_jpeg_is_fine(tmp_path):
    _fill(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "really_png.jpg").write_bytes(_encode(0, "PNG"))
    assert ImageFolderSource(tmp_path).info.num_examples == 3


def test_class_without_usable_image(tmp_path):
    _fill(tmp_path, {"a": 5, "b": 0})
    (tmp_path / "b" / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"class without a usable image: .*only bad files in .*'b'"):
        ImageFolderSource(tmp_path, max_bad_share=0.5)


def test_given_class_names_set_the_ids(tmp_path):
    _fill(tmp_path, {"b": 1, "c": 1})
    source = ImageFolderSource(tmp_path, class_names=["a", "b", "c"])
    assert source.info.num_classes == 3
    assert [e["label"] for e in _examples(source)] == [1, 2]


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({}, {}, "no class folders: .*received an empty folder"),
        ({"a": 2}, {}, "only one class: expected at least two classes, received 'a'"),
        ({"a": 2, "b": 0}, {}, "/b: empty class folder: expected at least one image"),
        (
            {"cat": 1, "dogs": 1},
            {"class_names": ["cat", "dog"]},
            r"/dogs: unknown class: .*\(cat, dog\), received 'dogs'; did you mean 'dog'",
        ),
        ({"a": 2, "b": 2}, {"channels": 2}, "unsupported channels"),
        ({"a": 2, "b": 2}, {"subset": "trian"}, "unknown subset: .*did you mean 'train'"),
        (
            {"a": 2, "b": 2},
            {"subset": "train", "validation_share": 1.0},
            "impossible validation_share: .*received 1.0",
        ),
        (
            {"a": 2, "b": 1},
            {"subset": "train"},
            "at least 2 in each class, received 1 in class 'b'",
        ),
    ],
)
def test_errors(tmp_path, counts, options, message):
    _fill(tmp_path, counts)
    with pytest.raises(DataError, match=message) as caught:
        ImageFolderSource(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_missing_folder_suggests_its_neighbour(tmp_path):
    _fill(tmp_path / "flowers", {"a": 1, "b": 1})
    message = "flower: no such folder: .*did you mean 'flowers'"
    with pytest.raises(DataError, match=message):
        ImageFolderSource(tmp_path / "flower")


def test_files_without_class_folders(tmp_path):
    (tmp_path / "a.jpg").write_bytes(_encode())
    with pytest.raises(DataError, match="received 1 files and no sub-folder"):
        ImageFolderSource(tmp_path)


def test_neither_directory_nor_csv():
    with pytest.raises(DataError, match="expected directory or csv, received neither"):
        ImageFolderSource()


def test_split_folders_share_the_ids_of_train(tmp_path):
    _fill(tmp_path / "train", {"a": 2, "b": 3})
    _fill(tmp_path / "val", {"b": 1})
    _fill(tmp_path / "test", {"a": 1, "b": 1})
    splits = ImageFolderSource.splits(tmp_path)
    assert {s: source.info.num_examples for s, source in splits.items()} == {
        "train": 5,
        "validation": 1,
        "test": 2,
    }
    assert [e["label"] for e in _examples(splits["validation"])] == [1]
    assert splits["validation"].info.class_names == ("a", "b")


def test_validation_share_is_stratified_disjoint_and_stable(tmp_path):
    _fill(tmp_path, {"a": 20, "b": 40})
    splits = ImageFolderSource.splits(tmp_path, validation_share=0.25)
    train, validation = _names(splits["train"]), _names(splits["validation"])
    assert not train & validation
    assert len(train | validation) == 60
    labels = [e["label"] for e in _examples(splits["validation"])]
    assert np.bincount(labels).tolist() == [5, 10]
    again = open_source("image_folder", "validation", directory=tmp_path, validation_share=0.25)
    assert _names(again) == validation
    other = ImageFolderSource.splits(tmp_path, validation_share=0.25, split_seed=1)
    assert _names(other["validation"]) != validation


def test_split_does_not_depend_on_where_the_folder_lies(tmp_path):
    chosen = []
    for place in ("here", "there"):
        folder = _fill(tmp_path / place, {"a": 20, "b": 20})
        source = open_source("image_folder", "validation", directory=folder)
        chosen.append({name.removeprefix(str(folder)) for name in _names(source)})
    assert chosen[0] == chosen[1]


def test_a_bad_file_is_counted_in_one_split_only(tmp_path):
    _fill(tmp_path, {"a": 20, "b": 20})
    for i in range(4):
        (tmp_path / "a" / f"cut{i}.jpg").write_bytes(_encode()[:-2])
    splits = ImageFolderSource.splits(tmp_path, validation_share=0.5, max_bad_share=0.5)
    assert sum(source.bad_records.count for source in splits.values()) == 4


def test_validation_share_zero_is_one_split(tmp_path):
    splits = ImageFolderSource.splits(_fill(tmp_path, {"a": 3, "b": 3}), validation_share=0)
    assert list(splits) == ["train"]
    assert splits["train"].info.num_examples == 6


def test_unknown_split(tmp_path):
    _fill(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(DataError, match="unknown split: expected one of train, validation"):
        open_source("image_folder", "test", directory=tmp_path)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Train", "Test"), {"train", "test"}),
        (("train", "valid"), {"train", "validation"}),
        (("training", "dev", "testing"), {"train", "validation", "test"}),
    ],
)
def test_splits_by_the_names_that_people_give_them(tmp_path, folders, splits):
    for folder in folders:
        _fill(tmp_path / folder, {"cat": 2, "dog": 2})
    found = ImageFolderSource.splits(tmp_path)
    assert found.keys() == splits
    assert all(source.info.class_names == ("cat", "dog") for source in found.values())


def test_a_class_of_trains_is_a_class(tmp_path):
    _fill(tmp_path, {"bus": 10, "train": 10})
    assert ImageFolderSource(tmp_path).info.class_names == ("bus", "train")
    assert ImageFolderSource.splits(tmp_path)["train"].info.class_names == ("bus", "train")


@pytest.mark.parametrize("others", [(), ("annotations", "unlabeled")])
def test_a_training_folder_alone_is_no_class(tmp_path, others):
    """With folders of classes in it: their names would be forgotten."""
    _fill(tmp_path / "train", {"cat": 4, "dog": 4})
    _fill(tmp_path, dict.fromkeys(others, 3))
    with pytest.raises(DataError, match=r"beside train one for validation .* set directory to \S+"):
        open_source("image_folder", "train", directory=tmp_path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.8, 0.99])
def test_both_parts_have_every_class(tmp_path, share):
    _fill(tmp_path, {"cat": 2, "dog": 3, "emu": 30})
    splits = ImageFolderSource.splits(tmp_path, validation_share=share)
    for source in splits.values():
        assert set(source.labels()) == {0, 1, 2}, source.info


def test_what_windows_puts_into_folders_is_no_bad_record(tmp_path):
    _fill(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (tmp_path / "dog" / "desktop.ini").write_bytes(b"[x]")
    source = ImageFolderSource(tmp_path, max_bad_share=0)
    assert (source.info.num_examples, source.bad_records.count) == (4, 0)


def test_links_lead_to_each_folder_once(tmp_path):
    _fill(tmp_path, {"a": 2, "b": 2})
    for folder, other in (("a", "b"), ("b", "a")):
        (tmp_path / folder / "other").symlink_to(tmp_path / other)
        (tmp_path / folder / "all").symlink_to(tmp_path)
    assert len(files_below(tmp_path / "a")) == 4
    assert len(files_below(tmp_path)) == 4


def test_a_folder_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    _fill(tmp_path, {"cat": 2, "dog": 2})
    closed = tmp_path / "dog" / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refuse(path):  # chmod does not keep out the superuser
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"closed: unreadable folder: .*Permission denied"):
        ImageFolderSource(tmp_path)


def test_two_folders_of_one_split_are_refused(tmp_path):
    for folder in ("train", "val", "validation"):
        _fill(tmp_path / folder, {"cat": 2, "dog": 2})
    with pytest.raises(DataError, match="two folders for validation: .*val and validation"):
        ImageFolderSource.splits(tmp_path)


def test_a_share_divides_the_training_folder_beside_a_test_folder(tmp_path):
    for folder in ("train", "test"):
        _fill(tmp_path / folder, {"cat": 4, "dog": 4})
    found = ImageFolderSource.splits(tmp_path, validation_share=0.25)
    sizes = {split: source.info.num_examples for split, source in found.items()}
    assert sizes == {"train": 6, "validation": 2, "test": 8}
    assert not _names(found["train"]) & _names(found["validation"])


@pytest.mark.parametrize("option", [{"validation_share": 0.5}, {"split_seed": 3}])
def test_a_share_beside_a_folder_for_validation_is_refused(tmp_path, option):
    for folder in ("train", "val"):
        _fill(tmp_path / folder, {"cat": 4, "dog": 4})
    with pytest.raises(DataError, match="validation_share and split_seed have no effect"):
        open_source("image_folder", "train", directory=tmp_path, **option)


def test_a_long_scan_is_announced(tmp_path, monkeypatch, capsys):
    _fill(tmp_path, {"a": 3, "b": 3})
    ImageFolderSource(tmp_path)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("effnetv2_tf.data.sources.image_folder._MANY", 6)
    ImageFolderSource(tmp_path)
    assert capsys.readouterr().out == f"Looking at the 6 files of {tmp_path}.\n"
