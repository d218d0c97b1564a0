"""Images in [0, 1] given to a [0, 255] network are noticed once, others never."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.models.input_range import EfficientNet
from effnetv2_tf.models.layers import BatchNorm


def _images(largest):
    images = np.random.default_rng(0).uniform(0, largest, (8, 12, 12, 3)).astype("float32")
    images[:, 0, 0] = largest
    return images


LABELS = np.eye(4)[np.arange(8) % 4].astype("float32")

WAYS = {
    "call": lambda model, images: model(tf.constant(images)),
    "call with an array": lambda model, images: model(images),
    "fit on arrays": lambda model, images: model.fit(images, LABELS, batch_size=4, verbose=0),
    "fit on tf.data": lambda model, images: model.fit(
        tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(4), epochs=2, verbose=0
    ),
    "evaluate": lambda model, images: model.evaluate(images, LABELS, verbose=0),
    "evaluate on tf.data": lambda model, images: model.evaluate(
        tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(4), verbose=0
    ),
    "predict": lambda model, images: model.predict(images, verbose=0),
    "predict on tf.data": lambda model, images: model.predict(
        tf.data.Dataset.from_tensor_slices(images).batch(4), verbose=0
    ),
    "train_on_batch": lambda model, images: model.train_on_batch(images, LABELS),
    "test_on_batch": lambda model, images: model.test_on_batch(images, LABELS),
    "predict_on_batch": lambda model, images: model.predict_on_batch(images),
}


@pytest.fixture
def model(tiny_network):
    model = tiny_network()
    model.compile("sgd", "categorical_crossentropy", jit_compile=False)
    return model


def _warnings(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(w.message) for w in caught if "lie in [0, 1]" in str(w.message)]


@pytest.mark.parametrize("way", WAYS)
def test_images_in_0_1_warn_once(model, way):
    messages = _warnings(lambda: [WAYS[way](model, _images(1.0)) for _ in range(2)])
    assert len(messages) == 1
    assert "largest value 1)" in messages[0]
    assert "Multiply them by 255" in messages[0]
    assert "include_preprocessing=False" in messages[0]


@pytest.mark.parametrize("way", WAYS)
def test_images_in_0_255_do_not(model, way):
    assert _warnings(lambda: WAYS[way](model, _images(255.0))) == []


@pytest.mark.parametrize("images", [_images(1.0).astype("uint8"), _images(260.0) - 4])
def test_other_ranges_do_not(model, images):
    """Bicubic resizing leaves [0, 255] on both sides."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(tf.constant(images))


@pytest.mark.parametrize("images", [_images(1.0) * 2 - 1, _images(1.0) * 4.5 - 2.1])
def test_normalised_images_warn(model, images):
    """By other networks' `preprocess_input`, or by ImageNet's statistics."""
    with pytest.warns(UserWarning, match=r"normalised already \(values .*Leave the normalisation"):
        model(tf.constant(images))


def test_a_black_batch_says_nothing(model):
    assert _warnings(lambda: model(tf.zeros((1, 8, 8, 3)))) == []
    assert len(_warnings(lambda: model(tf.constant(_images(0.9))))) == 1


def test_a_network_without_preprocessing_does_not(tiny_network):
    model = tiny_network(include_preprocessing=False)
    assert _warnings(lambda: model(tf.constant(_images(1.0)))) == []


def test_watching_changes_no_batch(model):
    dataset = tf.data.Dataset.from_tensor_slices({"x": _images(255.0)}).batch(3)
    pairs = zip(dataset, model.watch_first_batch(dataset), strict=True)
    for plain, watched in pairs:
        np.testing.assert_array_equal(plain["x"], watched["x"])
    assert model.watch_first_batch(dataset).cardinality() == 3


def test_building_on_a_network_does_not(model):
    image = keras.Input((None, None, 3))
    assert isinstance(model, EfficientNet)
    assert _warnings(lambda: model(image)) == []


def test_a_plain_fit_traces_its_step_once(tiny_network, monkeypatch):
    """Were the optimizer's variables created in the trace, TensorFlow would trace again."""
    traces = []
    plain_call = BatchNorm.call

    def counted(self, inputs, training=None):
        traces.append(id(self))
        return plain_call(self, inputs, training=training)

    model = tiny_network()
    model.compile("adam", "sparse_categorical_crossentropy")
    if not hasattr(model.optimizer, "built"):
        pytest.skip("Keras 2's optimizers do not tell whether they are built")
    monkeypatch.setattr(BatchNorm, "call", counted)
    images = np.zeros((8, 32, 32, 3), np.uint8)
    model.fit(images, np.zeros(8, np.int64), batch_size=4, verbose=0)
    assert traces
    assert len(traces) == len(set(traces))
    kernel = model.get_layer("stem").kernel
    model.get_layer("stem").trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = np.array(kernel)
    model.fit(images, np.zeros(8, np.int64), batch_size=4, verbose=0)
    np.testing.assert_array_equal(before, np.array(kernel))


def test_a_model_that_was_not_compiled_is_told_so(tiny_network):
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, np.int64)
    with pytest.raises((RuntimeError, ValueError), match="compile"):
        tiny_network().fit(images, labels, verbose=0)
