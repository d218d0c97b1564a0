"""Images named by a CSV file of path,label."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from effnetv2_tf.data.sources import DataError, ImageFolderSource


@pytest.fixture
def folder(tmp_path):
    for i in range(4):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def _csv(folder, text, name="list.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _pairs(source):
    examples = source.epoch(0, seed=0, shuffle=False).as_numpy_iterator()
    return [
        (int(np.asarray(Image.open(io.BytesIO(e["image"])))[0, 0, 0]), int(e["label"]))
        for e in examples
    ]


@pytest.mark.parametrize(
    "text",
    [
        "2.png,dog\n0.png,cat\n\n",
        "path,label\n2.png,dog\n0.png,cat\n",
        "\ufeffLabel, Path, note\ndog, 2.png, x\ncat, 0.png,\n",
        '"2.png","dog"\r\n"0.png","cat"\r\n',
    ],
)
def test_rows_with_and_without_header(folder, text):
    source = ImageFolderSource(csv=_csv(folder, text))
    assert source.info.class_names == ("cat", "dog")
    assert _pairs(source) == [(2, 1), (0, 0)]


def test_paths_start_from_directory(folder, tmp_path_factory):
    path = _csv(tmp_path_factory.mktemp("lists"), f"1.png,a\n{folder}/2.png,b\n")
    assert _pairs(ImageFolderSource(folder, csv=path)) == [(1, 0), (2, 1)]


def test_numbers_are_sorted_as_numbers(folder):
    source = ImageFolderSource(csv=_csv(folder, "0.png,10\n1.png,2\n2.png,0\n"))
    assert source.info.class_names == ("0", "2", "10")
    assert _pairs(source) == [(0, 2), (1, 1), (2, 0)]


def test_negative_numbers_are_sorted_as_numbers(folder):
    source = ImageFolderSource(csv=_csv(folder, "0.png,10\n1.png,-2\n2.png,-10\n"))
    assert source.info.class_names == ("-10", "-2", "10")


def test_two_spellings_of_a_number_have_one_order(folder):
    source = ImageFolderSource(csv=_csv(folder, "0.png,1\n1.png,01\n2.png,0\n"))
    assert source.info.class_names == ("0", "01", "1")


@pytest.mark.parametrize("seed", range(5))
def test_a_file_that_is_listed_twice_is_in_one_part(folder, seed):
    rows = [f"{i}.png,{'ab'[i % 2]}\n" for i in range(4)]
    path = _csv(folder, "".join(rows * 2))
    splits = ImageFolderSource.splits(csv=path, validation_share=0.5, split_seed=seed)
    train, validation = (_pairs(splits[name]) for name in ("train", "validation"))
    assert len(train) == len(validation) == 4
    assert not set(train) & set(validation)


@pytest.mark.parametrize("seed", range(5))
def test_a_file_of_two_classes_is_in_one_part(folder, seed):
    rows = [f"{i}.png,a\n" for i in range(4)] + ["2.png,b\n", "0.png,b\n"]
    path = _csv(folder, "".join(rows))
    splits = ImageFolderSource.splits(csv=path, validation_share=0.5, split_seed=seed)
    train, validation = (_pairs(splits[name]) for name in ("train", "validation"))
    assert not {image for image, _ in train} & {image for image, _ in validation}
    assert len(train) + len(validation) == 6


def test_class_names_of_the_training_split(folder):
    source = ImageFolderSource(csv=_csv(folder, "0.png,c\n"), class_names=["a", "b", "c"])
    assert _pairs(source) == [(0, 2)]


def test_missing_file_is_a_bad_record(folder):
    path = _csv(folder, "0.png,a\n1.png,b\nnot_there.png,b\n")
    source = ImageFolderSource(csv=path, max_bad_share=0.5)
    assert _pairs(source) == [(0, 0), (1, 1)]
    assert source.bad_records.reports() == (f"{folder}/not_there.png (missing file)",)


def test_splits(folder):
    path = _csv(folder, "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(4)))
    splits = ImageFolderSource.splits(csv=path, validation_share=0.5)
    pairs = {split: _pairs(source) for split, source in splits.items()}
    assert sorted(pairs["train"] + pairs["validation"]) == [(0, 0), (1, 1), (2, 0), (3, 1)]
    assert sorted(label for _, label in pairs["validation"]) == [0, 1]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "list.csv: empty CSV file"),
        ("path,label\n", {}, "empty CSV file"),
        ("paths,label\n0.png,a\n", {}, "no column 'path': .*paths,label; did you mean 'paths'"),
        ("0.png,a\n1.png\n", {}, "line 2 has the wrong number of fields: .*received 1.png"),
        ("0.png,a\n1.png,b,c\n", {}, "line 2 has the wrong number of fields"),
        ("0.png,a\n1.png,a\n", {}, "only one class"),
        ("0.png,a\n1.png,\n", {}, "list.csv: line 2: empty label: .*received 1.png,; complete"),
        ("path,label\n0.png,a\n ,b\n", {}, "list.csv: line 3: empty path: .*received ,b"),
        ("0.png,a\n1.png," + "b" * 200_000, {}, "list.csv: line 2: not CSV: .*field limit"),
        (
            "0.png,cat\n1.png,dgo\n",
            {"class_names": ["cat", "dog"]},
            r"list.csv: unknown class: .*received 'dgo'; did you mean 'dog'",
        ),
    ],
)
def test_errors(folder, text, options, message):
    with pytest.raises(DataError, match=message):
        ImageFolderSource(csv=_csv(folder, text), **options)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a mark"])
def test_another_encoding_is_said_with_its_line(folder, start):
    path = folder / "list.csv"
    path.write_bytes(start + "0.png,a\n1.png,café\n".encode("latin-1"))
    message = r"list\.csv: line 2: not UTF-8: expected a text file in UTF-8, received the byte 0xe9"
    with pytest.raises(DataError, match=message):
        ImageFolderSource(csv=path)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="csv itself refuses zero bytes")
def test_a_path_that_cannot_be_is_a_bad_record(folder):
    path = _csv(folder, "0.png,a\n1.png,b\n2\0.png,b\n")
    source = ImageFolderSource(csv=path, max_bad_share=0.5)
    assert _pairs(source) == [(0, 0), (1, 1)]
    (report,) = source.bad_records.reports()
    assert report.endswith("(unreadable: embedded null byte)")


def test_missing_csv_suggests_its_neighbour(folder):
    _csv(folder, "0.png,a\n", "train.csv")
    with pytest.raises(DataError, match=r"no such CSV file: .*did you mean 'train.csv'"):
        ImageFolderSource(csv=folder / "trian.csv")
