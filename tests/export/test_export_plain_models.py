"""Keras models of users: what they type, what is assumed of them, and what is not known."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import EfficientNetV2S
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export import ExportOptions, FolderImages, ImagePreparation, export, wrap_model
from effnetv2_tf.export.deploy_graph import build_deploy_graph
from effnetv2_tf.export.images import RandomImages
from effnetv2_tf.export.loading import load_keras_file, predict
from effnetv2_tf.export.runtimes import SavedModelRunner, TFLiteRunner
from effnetv2_tf.export.tflite import export_tflite
from effnetv2_tf.export.tflite_metadata import read_metadata
from effnetv2_tf.export.verification import _explained_variance, _median_latency_ms

layers = keras.layers


def small_model(*head, size=16, classes=3, model_class=keras.Model):
    """A convolution, pooling and a head; by default a softmax classifier."""
    image = keras.Input((size, size, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    for layer in head or (layers.Dense(classes, activation="softmax"),):
        x = layer(x)
    return model_class(image, x)


@pytest.fixture
def image_folder(tmp_path):
    for number, image in enumerate(RandomImages().held_out(ImagePreparation(24), 8).pixels):
        (tmp_path / "images").mkdir(exist_ok=True)
        path = tmp_path / "images" / f"{number}.png"
        path.write_bytes(tf.io.encode_png(image).numpy())
    return tmp_path / "images"


def test_a_model_itself_is_exported(tmp_path):
    report = export(small_model(), tmp_path, "onnx", ExportOptions(onnx="float32", check_images=16))
    assert report.ok
    assert (tmp_path / "onnx" / "model_float32.onnx").is_file()


def test_a_size_and_a_folder_will_do(make_network, image_folder):
    subject = wrap_model(make_network(classes=3), preparation=24, images=str(image_folder))
    assert subject.preparation.image_size == 24
    assert subject.images == FolderImages(image_folder)


def test_how_images_are_prepared_is_assumed_and_said(make_network, tmp_path):
    """As `image_dataset_from_directory` prepares them, which stretches them."""
    model = small_model()
    subject = wrap_model(model)
    assert (subject.preparation.crop, subject.preparation.interpolation) == ("none", "bilinear")
    assert any("crop none, bilinear" in note for note in subject.notes)
    stated = ImagePreparation(16, crop="center", interpolation="bicubic")
    assert wrap_model(model, preparation=stated).notes == ()
    model.save(tmp_path / "model.keras")
    loaded = load_keras_file(tmp_path / "model.keras", crop="center", interpolation="bicubic")
    assert (loaded.preparation, loaded.notes) == (stated, ())


def test_networks_of_the_families_keep_their_preparation(tmp_path):
    model = EfficientNetV2S(weights=None, classes=3)
    subject = wrap_model(model, preparation=64)
    assert (subject.preparation.crop, subject.preparation.interpolation) == ("none", "bilinear")
    assert subject.notes == ()


def test_a_file_in_a_run_tells_of_the_run(model_dir, network):
    network.save(model_dir / "model.keras")
    subject = load_keras_file(model_dir / "model.keras", image_size=16)
    assert any(f"--model_dir={model_dir} brings" in note for note in subject.notes)
    with pytest.raises(UsageError, match=rf"{model_dir} is a folder; --model_dir={model_dir} "):
        load_keras_file(model_dir)


@pytest.mark.parametrize(
    "labels",
    [
        {"cat": 1, "ape": 2, "dog": 0},
        {1: "cat", 2: "ape", 0: "dog"},
        ["dog", "cat", "ape"],
        np.array(["dog", "cat", "ape"]),
    ],
)
def test_labels_by_number(labels):
    assert wrap_model(small_model(), labels).labels == ("dog", "cat", "ape")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("cat", "expected a list of class names, received 'cat'"),
        ([0, 1, 2], "expected class names, received 0"),
        ({"a": 0, "b": 1, "c": 3}, "a name for each of 0 to 2"),
        (["a", "b"], "expected 3 names, received 2"),
    ],
)
def test_labels_that_are_none(labels, message):
    with pytest.raises(UsageError, match=message):
        wrap_model(small_model(), labels)


def test_names_that_are_no_text(tmp_path):
    name = b"caf\xe9".decode(errors="surrogateescape")  # as a folder's name is read
    subject = wrap_model(small_model(), [name, "b", "c"])
    assert subject.labels[0] == r"caf\udce9"
    json.dumps(subject.metadata()).encode()


def test_yes_or_no(tmp_path):
    model = small_model(layers.Dense(1, activation="sigmoid"))
    subject = wrap_model(model, ["cat", "dog"])
    report = export(subject, tmp_path, ["savedmodel", "tflite"], ExportOptions(check_images=16))
    assert report.ok, report.table()
    runner = SavedModelRunner(tmp_path / "savedmodel" / "1")
    files = [tf.io.encode_png(image).numpy() for image in random_pixels(16, 40)]
    served = runner.run_signature("serving_bytes", np.array(files, object))
    yes = served["probabilities"] > 0.5
    assert 0 < yes.mean() < 1, "the images do not tell"
    assert (served["classes"] == yes).all()
    assert (served["labels"] == np.where(yes, b"dog", b"cat")).all()
    file = tmp_path / "tflite" / "model_float32.tflite"
    assert read_metadata(file.read_bytes())[1] == ["dog"]
    assert wrap_model(model, ["dog"]).labels == ("not dog", "dog")
    with pytest.raises(UsageError, match="two names"):
        wrap_model(model, ["a", "b", "c"])


def random_pixels(size, count):
    return RandomImages().held_out(ImagePreparation(size), count).pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_int8_takes_pixels_also_if_no_calibration_image_is_black_or_white(
    make_network, tmp_path, channels
):
    subject = wrap_model(make_network(classes=4, input_shape=(32, 32, channels)))
    preparation = ImagePreparation(32, channels)
    dim = 60 + RandomImages().held_out(preparation, 40).pixels // 3
    path = export_tflite(subject, tmp_path / "a.tflite", "int8", representative=dim)
    runner = TFLiteRunner(path)
    assert runner.dtype == np.uint8
    difference = np.abs(runner.run(dim) - predict(subject, dim)).mean()
    float_path = export_tflite(subject, tmp_path / "b.tflite", "int16x8", representative=dim)
    finer = np.abs(TFLiteRunner(float_path).run(dim.astype("f")) - predict(subject, dim)).mean()
    assert difference < 0.05 + 3 * finer


def test_softmax_before_the_usual_last_layer_of_mixed_precision():
    model = small_model(
        layers.Dense(3, activation="softmax"), layers.Activation("linear", dtype="float32")
    )
    subject = wrap_model(model, ["a", "b", "c"])
    assert subject.graph.output_name == "probabilities"
    assert subject.graph.note is None
    x = random_pixels(16, 4).astype("f")
    np.testing.assert_allclose(subject.graph(x), model(x), atol=1e-5)


class Doubled(keras.Model):
    """Does more than its layers."""

    def call(self, inputs, training=None):
        return super().call(inputs * 2.0, training=training)


def _two_activations():
    return small_model(layers.Dense(5, activation="relu"), layers.Activation("tanh"))


def _norm_over_rows():
    image = keras.Input((16, 16, 3))
    x = layers.BatchNormalization(axis=1)(layers.Conv2D(16, 3, padding="same")(image))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    model.layers[2].moving_mean.assign(np.arange(16.0))
    return model


def _quantised():
    model = small_model()
    if not hasattr(model, "quantize"):
        pytest.skip("Keras 3 alone quantises models")
    model.quantize("int8")
    return model


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: small_model(model_class=Doubled), "Doubled with its own `call`"),
        (_two_activations, "second activation"),
        (_norm_over_rows, "does not normalise channels"),
        (_quantised, "quantised"),
    ],
)
def test_what_cannot_be_folded_is_taken_as_it_is(build, reason):
    model = build()
    graph = build_deploy_graph(model)
    assert reason in (graph.note or "")
    x = random_pixels(16, 4).astype("f")
    np.testing.assert_allclose(graph(x), model(x), rtol=1e-4, atol=1e-4)


def test_operations_may_normalise_pixels():
    image = keras.Input((16, 16, 3))
    x = keras.applications.mobilenet_v2.preprocess_input(image)
    x = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    subject = wrap_model(keras.Model(image, x))
    assert subject.metadata()["input"]["normalization"]["inside_the_model"] is None
    said = " ".join(subject.graph.notes)
    assert "an operation or code may do it" in said


def test_a_batch_size_of_the_model_is_refused():
    image = keras.Input(batch_shape=(2, 16, 16, 3))
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(image)))
    with pytest.raises(
        UsageError, match=r"for 2 alone; build it with keras\.Input\(shape=\.\.\.\)"
    ):
        wrap_model(model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": "centre"}, "crop: expected center or none, received 'centre'; did you mean"),
        ({"crop": None}, "crop: expected center or none, received None"),
        ({"interpolation": "nearest"}, "interpolation: expected bilinear or bicubic"),
        ({"image_size": (32, 32)}, r"image_size: .* received \(32, 32\)"),
    ],
)
def test_a_preparation_that_cannot_be(values, message):
    with pytest.raises(UsageError, match=message):
        ImagePreparation(**{"image_size": 32, **values})


@pytest.mark.parametrize(
    "values",
    [
        {"check_images": 0},
        {"opset": "18"},
        {"version": -3},
        {"version": "a"},
        {"batch_size": 0},
        {"batch_size": -1},
        {"image_size": 2.5},
    ],
)
def test_impossible_options(values):
    with pytest.raises(UsageError, match="expected a whole number above 0"):
        ExportOptions(**values)


def test_a_share_is_no_percentage():
    with pytest.raises(UsageError, match="int8_threshold: expected a share from 0 to 1"):
        ExportOptions(int8_threshold=98)


def test_numbers_of_numpy_are_options():
    options = ExportOptions(opset=np.int64(18), calibration_images=np.int64(50))
    assert (options.opset, options.calibration_images) == (18, 50)


def test_a_folder_in_a_files_place_is_noticed_first(tmp_path):
    (tmp_path / "tflite" / "model_float32.tflite").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"model_float32\.tflite is a folder, expected a file"):
        export(small_model(), tmp_path)
    assert not (tmp_path / "savedmodel").exists()


def test_values_of_int8_must_vary_as_keras_does(tmp_path):
    """Which of four coordinates is the largest is the same for all images, and tells nothing."""
    model = small_model(
        layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(0, 1e-6))
    )
    model.layers[-1].bias.assign([0.1, 0.2, 0.8, 0.9])
    pixels = random_pixels(16, 64)

    class Supply(RandomImages):
        def representative(self, preparation, count):
            return self.held_out(preparation, count)

    subject = wrap_model(model, images=Supply())
    options = ExportOptions(tflite=("float32", "int8"), check_images=64)
    report = export(subject, tmp_path, "tflite", options)
    exact, coarse = report.verdicts
    assert exact.ok
    assert exact.comparisons[0].explained_variance > 0.999
    assert coarse.status == "refused"
    assert coarse.comparisons[0].top_1_agreement == 1.0
    assert "vary over 64 images as Keras's do to" in coarse.problem
    assert any("all 64 images of random patterns are of one class" in n for n in report.notes)
    assert predict(subject, pixels).std(axis=0).max() > 0


def test_explained_variance():
    x = np.random.default_rng(0).normal(size=(100, 3))
    assert _explained_variance(x, x) == 1.0
    assert abs(_explained_variance(np.broadcast_to(x.mean(axis=0), x.shape), x)) < 1e-9
    assert _explained_variance(x, np.ones_like(x)) is None


def test_the_time_of_a_batch_is_shared_by_its_images(monkeypatch):
    seconds = iter(np.arange(1000) / 10)
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))

    class Feed:
        class runner:
            batch_size = 4

        def __call__(self, batch):
            assert len(batch) == 4

    assert _median_latency_ms(Feed(), np.zeros((2, 8, 8, 3))) == pytest.approx(25)
