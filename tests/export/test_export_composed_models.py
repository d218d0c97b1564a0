"""Models that users make of the networks: precision, nesting, and layers that compute more."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export import wrap_model
from effnetv2_tf.export.deploy_graph import build_deploy_graph, float32_copy
from effnetv2_tf.prediction.inference import folded_inference

layers = keras.layers


def pixels(count=8, size=16):
    values = np.random.default_rng(0).integers(0, 256, (count, size, size, 3))
    return values.astype(np.float32)


def in_mixed_precision(build):
    """What a function builds in mixed precision, which ends with it, as in another process."""
    keras_compat.set_float_precision("mixed_bfloat16")
    try:
        return build()
    finally:
        keras_compat.set_float_precision("float32")


def _adapted():
    adapted = layers.Normalization()
    adapted.adapt(pixels())
    return _chain(
        adapted,
        layers.Conv2D(8, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4),
        layers.Activation("softmax", dtype="float32"),
    )


def test_what_a_layer_was_adapted_to_is_kept_in_float32():
    model = in_mixed_precision(_adapted)
    copy = float32_copy(model)
    assert copy is not model
    np.testing.assert_allclose(copy(pixels()), model(pixels()), atol=0.02)
    np.testing.assert_allclose(build_deploy_graph(model)(pixels()), copy(pixels()), atol=1e-5)


@pytest.mark.parametrize("foldable", [True, False])
def test_a_loaded_model_within_is_brought_to_float32_too(make_network, tmp_path, foldable):
    def build():
        backbone = make_network(include_top=False)
        image = keras.Input((16, 16, 3))
        features = backbone(image)
        x = layers.GlobalAveragePooling2D()(features)
        if not foldable:
            x = layers.Concatenate()([x, layers.GlobalMaxPooling2D()(features)])
        model = keras.Model(image, layers.Dense(4, activation="softmax", dtype="float32")(x))
        model.save(tmp_path / "model.keras")

    in_mixed_precision(build)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    subject = wrap_model(loaded)
    precisions = {layer.compute_dtype for layer in keras_compat.flatten_layers(subject.model)}
    assert precisions == {"float32"}
    assert bool(subject.graph.note) is not foldable
    np.testing.assert_allclose(subject.graph(pixels()), subject.model(pixels()), atol=1e-5)
    np.testing.assert_allclose(subject.graph(pixels()), loaded(pixels()), atol=0.02)


def _chain(*parts):
    return keras.Sequential([keras.Input((16, 16, 3)), *parts])


@pytest.mark.parametrize("form", ["augmented", "called", "nested head", "linear in float32"])
def test_logits_are_logits_wherever_they_come_from(make_network, form):
    if form in ("augmented", "called"):
        network = make_network(classes=4, classifier_activation=None)
        image = keras.Input((16, 16, 3))
        model = _chain(layers.RandomFlip(), network)
        if form == "called":
            model = keras.Model(image, network(image))
    else:
        backbone = make_network(include_top=False, pooling="avg")
        if form == "nested head":
            model = _chain(backbone, keras.Sequential([keras.Input((16,)), layers.Dense(4)]))
        else:
            model = _chain(backbone, layers.Dense(4), layers.Activation("linear", dtype="float32"))
    subject = wrap_model(model, labels=["a", "b", "c", "d"], preparation=16)
    assert (subject.graph.output_name, subject.labels) == ("logits", ("a", "b", "c", "d"))


def test_features_of_a_model_within_are_features(make_network):
    backbone = make_network(include_top=False, pooling="avg")
    with pytest.raises(UsageError, match="whose outputs are features"):
        wrap_model(_chain(layers.RandomFlip(), backbone), labels=["a"] * 16)


@keras_compat.register_serializable("tests")
class StandardizedConv2D(layers.Conv2D):
    """Changes its kernel in a method that `call` uses."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, (kernel - 0.1) * 3)


class BrighterAtInference(layers.RandomFlip):
    """Does something at inference, too, in a method that `call` uses."""

    def transform_images(self, images, *args, **kwargs):
        return images + 100

    def _flip(self, images, *args, **kwargs):  # Keras 2's name of it
        return images + 100


class FiveByFive(layers.Conv2D):
    """Sets arguments alone."""

    def __init__(self, filters, kernel_size=5, **kwargs):
        super().__init__(filters, kernel_size, **kwargs)


@pytest.mark.parametrize(
    ("layer", "folded"),
    [
        (lambda: StandardizedConv2D(8, 3), False),
        (BrighterAtInference, False),
        (lambda: FiveByFive(8), True),
    ],
)
def test_a_layer_that_may_compute_something_else_is_not_folded(layer, folded):
    model = _chain(layer(), layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax"))
    assert (folded_inference(model) is not None) is folded
    graph = build_deploy_graph(model)
    expected = model(pixels(), training=False)
    np.testing.assert_allclose(graph(pixels()), expected, rtol=1e-4, atol=1e-6)
