"""Descriptions of built models; those of specs are tested with the program."""

import keras
import pytest

from effnetv2_tf.description import describe_file, describe_nasnet, describe_spec
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.families import EFFICIENTNET_B0
from effnetv2_tf.models.names import find_nasnet


def test_a_file(tiny_network, tmp_path):
    model = tiny_network()
    path = tmp_path / "model.keras"
    model.save(path)
    description = describe_file(path, 32)
    assert description.parameters == model.count_params()
    assert description.stages[0].output_size == (16, 16)
    assert description.preprocessing == {"normalization": {"mean": [128.0], "std": [128.0]}}
    text = description.text().splitlines()
    assert text[0].startswith("tiny at 32 px: ")
    assert f"Weights: {path}" in text
    assert "Input: pixels in [0, 255]; the network computes (x - 128) / 128" in text


def test_a_file_of_any_size_needs_one(tiny_network, tmp_path):
    tiny_network().save(tmp_path / "any.keras")
    with pytest.raises(UsageError, match="--image_size: expected the side in pixels"):
        describe_file(tmp_path / "any.keras")
    tiny_network(input_shape=(32, 48, 3)).save(tmp_path / "fixed.keras")
    description = describe_file(tmp_path / "fixed.keras")
    assert description.image_size == (32, 48)
    assert description.title.startswith("tiny at 32 x 48 px: ")
    with pytest.raises(UsageError, match="--file: .*`image_size` must be that of model"):
        describe_file(tmp_path / "fixed.keras", 32)


def test_a_foreign_model(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, (1, 3), strides=(2, 1), name="wide")(inputs)
    x = keras.layers.Dense(2, name="classes")(keras.layers.Flatten()(x))
    keras.Model(inputs, x, name="foreign").save(tmp_path / "foreign.keras")
    description = describe_file(tmp_path / "foreign.keras")
    table = [line.split() for line in description.text().splitlines()[3:5]]
    assert table == [
        ["wide", "conv", "1x3", "2x1", "4x6", "4", "1", "40", "864"],
        ["classes", "dense", "2", "1", "194", "192"],
    ]
    assert "Input: as the model's first layers expect it" in description.text()


def test_a_size_that_is_no_square():
    description = describe_spec(EFFICIENTNET_B0, (64, 96))
    assert description.stages[-2].output_size == (2, 3)
    assert "(x - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)" in description.text()


@pytest.mark.slow
def test_a_nasnet():
    description = describe_nasnet(find_nasnet("NASNetMobile"))
    assert description.parameters == 5_326_716
    assert description.image_size == (224, 224)
    text = description.text()
    assert "the network computes (x - 127.5) / 127.5" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("stack3_cell4"))
    assert row[:4] == ["stack3_cell4", "cell", "7x7", "1056"]


def test_names_of_nasnets():
    for name in ("nasnet-large", "NASNet_Large", "nasnetlarge"):
        assert find_nasnet(name).name == "nasnet-large"
    assert find_nasnet("b0") is None
