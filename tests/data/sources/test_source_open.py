"""Sources by the names that recipes use."""

import pytest

from effnetv2_tf.data.sources import (
    _SPLITS,
    KINDS,
    DataError,
    DigitsSource,
    open_source,
    split_names,
)


def test_kinds():
    assert set(KINDS) == {"digits", "fashion_mnist", "image_folder", "tfrecord", "tfds"}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_names_its_splits(kind):
    with pytest.raises(DataError, match=f"{kind}: unknown option"):
        split_names(kind, no_option=1)
    assert set(_SPLITS) == set(KINDS)


@pytest.mark.parametrize("shard", [(1, 2), [1, 2]])
def test_opens_with_options(shard):
    source = open_source("digits", "test", shard=shard)
    assert isinstance(source, DigitsSource)
    assert (source.info.num_examples, source.shard_examples) == (360, 180)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("fashion-mnist", {}, "unknown kind of source: .*did you mean 'fashion_mnist'"),
        ("xyzzy", {}, "expected one of digits, fashion_mnist, .*received 'xyzzy'$"),
        (
            "image_folder",
            {"directroy": "x"},
            "image_folder: unknown option: expected one of directory, .*did you mean 'directory'",
        ),
        ("tfrecord", {"files": "x"}, "tfrecord: missing option: expected num_classes"),
        (
            "tfrecord",
            {"files": "x", "num_classes": 2, "label_offset": "x"},
            "tfrecord: option 'label_offset' has another type: expected int, received 'x'",
        ),
        (
            "tfrecord",
            {"files": [1], "num_classes": 2},
            r"'files' .*str \| Sequence\[str\], ",
        ),
        (
            "image_folder",
            {"directory": ["a"]},
            r"'directory' .*expected str \| Path \| None, ",
        ),
        (
            "image_folder",
            {"directory": "a", "validation_share": "x"},
            r"expected float \| None, .*'x'",
        ),
        ("digits", {"shard": [0]}, r"'shard' .*expected tuple\[int, int\], received \[0\]"),
        ("tfds", {"name": "x", "download": 1}, "'download' .*expected bool, received 1"),
        ("tfds", {}, "tfds: missing option: expected name, received no options"),
    ],
)
def test_errors(kind, options, message):
    with pytest.raises(DataError, match=message):
        open_source(kind, "train", **options)
