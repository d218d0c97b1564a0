"""Files to classes: as in evaluation, in order, and nothing fails silently."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.data.pipeline import evaluation_dataset
from effnetv2_tf.data.sources import open_source
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.prediction import Prediction, Predictor, Unreadable, predict_images

NAMES = ("red", "green", "blue", "bright")


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_what_evaluation_sees(image_folder, classifier, crop, interpolation):
    (image_folder / "notes.txt").unlink()
    source = open_source("image_folder", "train", directory=image_folder, validation_share=0)
    dataset = evaluation_dataset(
        source, 24, 4, crop=crop, crop_padding=6, interpolation=interpolation
    )
    ((expected, _),) = dataset.as_numpy_iterator()
    preparation = ImagePreparation(24, 3, crop, 6, interpolation)
    predictor = Predictor(classifier, preparation)
    files = sorted(p for p in image_folder.rglob("*.*") if p.name[0] != ".")
    assert len(files) == 4
    np.testing.assert_array_equal(np.stack([predictor.read(file) for file in files]), expected)


def test_classes_in_the_order_of_their_probabilities(image_folder, classifier):
    predictor = Predictor(classifier, ImagePreparation(16), NAMES)
    files = [image_folder / "cats/wide.jpg", image_folder / "dogs/grey.jpeg"]
    results = list(predictor.predict(files, top=3, batch_size=1))
    assert [result.file for result in results] == files
    for result in results:
        scores = predictor.probabilities(predictor.read(result.file)[None])[0]
        assert [score.index for score in result.classes] == list(np.argsort(-scores)[:3])
        assert [score.name for score in result.classes] == [NAMES[s.index] for s in result.classes]
        np.testing.assert_allclose([s.probability for s in result.classes], -np.sort(-scores)[:3])


def test_a_colour_is_recognised(tmp_path, classifier):
    for name, colour in {"red": (200, 10, 10), "green": (0, 99, 0), "blue": (5, 5, 80)}.items():
        pixels = np.full((20, 20, 3), colour, np.uint8)
        (tmp_path / f"{name}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    results = predict_images(
        classifier, ImagePreparation(8), sorted(tmp_path.iterdir()), labels=NAMES, top=1
    )
    assert [result.classes[0].name for result in results] == ["blue", "green", "red"]
    assert all(result.classes[0].probability > 0.8 for result in results)


def test_more_classes_than_there_are_gives_all(image_folder, classifier):
    (result,) = predict_images(
        classifier, ImagePreparation(8), [image_folder / "cats/wide.jpg"], top=99
    )
    assert sorted(score.name for score in result.classes) == ["0", "1", "2", "3"]
    assert sum(score.probability for score in result.classes) == pytest.approx(1)


def test_unreadable_files_keep_their_place(image_folder, classifier):
    good = image_folder / "cats/wide.jpg"
    half = image_folder / "half.jpg"
    half.write_bytes(good.read_bytes()[:900])
    middle = image_folder / "middle.png"
    data = bytearray((image_folder / "cats/tall.PNG").read_bytes())
    data[len(data) // 2] ^= 255
    middle.write_bytes(data)
    files = [image_folder / "notes.txt", good, half, image_folder / "none.png", middle, good]
    results = predict_images(classifier, ImagePreparation(16), files, batch_size=2)
    assert [type(result) for result in results] == [
        Unreadable, Prediction, Unreadable, Unreadable, Unreadable, Prediction,
    ]  # fmt: skip
    reasons = [result.reason for result in results if isinstance(result, Unreadable)]
    assert reasons[0].startswith("not an image: ")
    assert reasons[1] == "truncated JPEG: no end-of-image marker"
    assert reasons[2] == "missing file"
    assert reasons[3].startswith("broken image: ")
    assert results[1].classes == results[5].classes


def test_a_jpeg_damaged_within_is_reported(image_folder, classifier):
    bad = image_folder / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0" + b"rubbish" * 20 + b"\xff\xd9")
    (result,) = predict_images(classifier, ImagePreparation(16), [bad])
    assert result == Unreadable(bad, "broken image: it cannot be decoded")


@pytest.mark.skipif(not hasattr(keras, "ops"), reason="Keras 2 has no operations")
def test_probabilities_by_an_operation_stay_as_they_are(image_folder, classifier):
    model = keras.Model(classifier.input, keras.ops.softmax(classifier.output * 1.0))
    pixels = Predictor(model, ImagePreparation(16)).read(image_folder / "cats/wide.jpg")[None]
    found = Predictor(model, ImagePreparation(16)).probabilities(pixels)
    np.testing.assert_allclose(found, model(pixels), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "no", "yes"),
    [(None, "0", "1"), (["cat", "dog"], "cat", "dog"), (["dog"], "not dog", "dog")],
)
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_a_single_output_is_the_probability_of_yes(image_folder, labels, no, yes, activation):
    """As exports have it."""
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, activation=activation, bias_initializer="ones"),
        ]
    )
    model.layers[-1].kernel.assign(np.zeros((3, 1)))
    predictor = Predictor(model, ImagePreparation(16), labels)
    (result,) = predictor.predict([image_folder / "cats/wide.jpg"])
    likely = 1 / (1 + np.exp(-1))
    assert [(s.index, s.name) for s in result.classes] == [(1, yes), (0, no)]
    assert [s.probability for s in result.classes] == pytest.approx([likely, 1 - likely])
    with pytest.raises(UsageError, match="expected two names, for no and for yes"):
        Predictor(model, ImagePreparation(16), ["a", "b", "c"])


@pytest.mark.parametrize("scaled", [1 / 255, 1.0])
def test_outputs_that_are_no_probabilities_are_refused(image_folder, scaled):
    """Whether they are cannot be told from a layer such as a pooling: what it gives tells."""
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(scaled),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    predictor = Predictor(model, ImagePreparation(16))
    pixels = predictor.read(image_folder / "cats/wide.jpg")[None]
    if scaled == 1:
        with pytest.raises(UsageError, match=r"of a GlobalAveragePooling2D from .*Softmax\(\)"):
            predictor.probabilities(pixels)
    else:
        np.testing.assert_allclose(predictor.probabilities(pixels), model(pixels), atol=1e-6)


def test_logits_become_probabilities(image_folder, classifier):
    files = [image_folder / "cats/wide.jpg"]
    (expected,) = predict_images(classifier, ImagePreparation(16), files)
    classifier.get_layer("classes").activation = keras.activations.linear
    logits = keras.models.clone_model(classifier)
    logits.set_weights(classifier.get_weights())
    (result,) = predict_images(logits, ImagePreparation(16), files)
    assert [s.index for s in result.classes] == [s.index for s in expected.classes]
    np.testing.assert_allclose(
        [s.probability for s in result.classes],
        [s.probability for s in expected.classes],
        rtol=1e-5,
    )


@pytest.mark.parametrize(("option", "value"), [("top", 0), ("top", -3), ("batch_size", 0)])
def test_numbers_below_one(classifier, option, value):
    message = f"{option}: expected a whole number from 1 up, received {value}"
    with pytest.raises(UsageError, match=message):
        Predictor(classifier, ImagePreparation(16)).predict([], **{option: value})


def test_what_does_not_fit_the_model(classifier, tiny_network):
    with pytest.raises(UsageError, match="labels: expected 4 names, .* received 2"):
        Predictor(classifier, ImagePreparation(16), ["a", "b"])
    with pytest.raises(
        UsageError, match=r"expected images .* \(None, None, 3\), received \(8, 8, 1\)"
    ):
        Predictor(classifier, ImagePreparation(8, 1))
    with pytest.raises(UsageError, match=r"expected images .* \(32, 32, 3\)"):
        Predictor(tiny_network(input_shape=(32, 32, 3)), ImagePreparation(16))
    with pytest.raises(UsageError, match="expected a classifier, .*include_top=True"):
        Predictor(tiny_network(include_top=False), ImagePreparation(32))


def test_our_networks_take_the_pixels(image_folder, tiny_network):
    model = tiny_network()
    file = image_folder / "cats/wide.jpg"
    predictor = Predictor(model, ImagePreparation(32))
    (result,) = predictor.predict([file])
    pixels = predictor.read(file)[None].astype(np.float32)
    expected = np.sort(model(pixels, training=False).numpy()[0])[::-1]
    np.testing.assert_allclose([s.probability for s in result.classes], expected, rtol=1e-5)
