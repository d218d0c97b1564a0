"""SavedModels run where this package is not, and take files as evaluation does."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.data.pipeline import evaluation_dataset
from effnetv2_tf.data.sources import ArraySource
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.loading import predict, wrap_model
from effnetv2_tf.export.runtimes import SavedModelRunner
from effnetv2_tf.export.savedmodel import BYTES_SIGNATURE, WARMUP_FILE, export_savedmodel
from effnetv2_tf.models.layers import BatchNorm

SERVE_WITHOUT_PACKAGE = """
import sys
for name in ("effnetv2_tf", "keras", "tf_keras"):
    sys.modules[name] = None
import numpy as np
import tensorflow as tf

folder, pixels, outputs = sys.argv[1:]
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
    signature = meta.signature_def["serving_default"]
    feed = {signature.inputs["image"].name: np.load(pixels)}
    np.save(outputs, session.run(signature.outputs["probabilities"].name, feed))
"""


@pytest.fixture(scope="module")
def saved(exportable, tmp_path_factory):
    path, notes = export_savedmodel(exportable, tmp_path_factory.mktemp("base"), 3)
    return path, notes


def test_serves_in_a_process_without_this_package(saved, exportable, pixels, tmp_path):
    np.save(tmp_path / "pixels.npy", pixels.astype("f"))
    files = [str(tmp_path / "pixels.npy"), str(tmp_path / "outputs.npy")]
    command = [sys.executable, "-c", SERVE_WITHOUT_PACKAGE, str(saved[0]), *files]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    outputs = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(outputs, predict(exportable, pixels), atol=5e-5)
    assert len(set(outputs.argmax(-1))) > 1


def test_any_batch_and_image_size(saved, network):
    runner = SavedModelRunner(saved[0])
    assert (runner.batch_size, runner.image_size) == (None, None)
    for shape in ((1, 24, 40, 3), (5, 32, 32, 3)):
        x = np.random.default_rng(0).integers(0, 256, shape).astype("f")
        np.testing.assert_allclose(runner.run(x), network(x), atol=5e-5)


def test_files_are_prepared_as_for_evaluation(saved, exportable):
    """Odd sizes, so that crop and resize matter."""
    generator = np.random.default_rng(5)
    noise = generator.random((3, 9, 7, 3)).astype("f")
    photographs = tf.image.resize(noise, (61, 47), "bicubic").numpy()
    photographs = np.clip(photographs * 255, 0, 255).astype(np.uint8)
    source = ArraySource(photographs, np.array([0, 1, 1]))
    (images, _), *_ = evaluation_dataset(source, 32, 3, crop_padding=4)
    expected = predict(exportable, images.numpy())

    files = np.array([tf.io.encode_png(image).numpy() for image in photographs], object)
    outputs = SavedModelRunner(saved[0]).run_signature(BYTES_SIGNATURE, files)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=5e-5)
    best_first = np.argsort(-expected, axis=-1)[:, :5]
    np.testing.assert_array_equal(outputs["classes"], best_first)
    names = np.array(exportable.labels, object)[best_first]
    assert [[name.decode() for name in row] for row in outputs["labels"]] == names.tolist()


def test_jpeg_and_grey_files(saved):
    colour = np.random.default_rng(0).integers(0, 256, (50, 40, 3)).astype(np.uint8)
    files = [tf.io.encode_jpeg(colour).numpy(), tf.io.encode_png(colour[..., :1]).numpy()]
    outputs = SavedModelRunner(saved[0]).run_signature(BYTES_SIGNATURE, np.array(files, object))
    np.testing.assert_allclose(outputs["probabilities"].sum(-1), 1.0, atol=5e-5)


def test_layout(saved, exportable):
    path, notes = saved
    assert path.name == "3"
    assert notes == []
    labels = (path / "assets" / "labels.txt").read_text().splitlines()
    assert labels == list(exportable.labels)
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]


def test_warm_up_requests_can_be_replayed(saved):
    protos = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    runner = SavedModelRunner(saved[0])
    replayed = []
    for record in tf.data.TFRecordDataset(str(saved[0] / WARMUP_FILE)).as_numpy_iterator():
        request = protos.PredictionLog.FromString(record).predict_log.request
        (value,) = request.inputs.values()
        signature = request.model_spec.signature_name
        runner.run_signature(signature, tf.make_ndarray(value))
        replayed.append((signature, *request.inputs))
    assert replayed == [("serving_default", "image"), ("serving_bytes", "image_bytes")]


def test_weights_are_stored_once(saved, network):
    size = (saved[0] / "saved_model.pb").stat().st_size
    assert size < 4 * network.count_params() + 200_000


def test_an_existing_version_is_an_error(saved, exportable):
    with pytest.raises(UsageError, match=r"/3 exists already.*--version=4"):
        export_savedmodel(exportable, saved[0].parent, 3)


def test_uint8_and_fixed_shapes(exportable, pixels, tmp_path):
    path, _ = export_savedmodel(
        exportable, tmp_path, input_dtype=tf.uint8, batch_size=2, image_size=32
    )
    runner = SavedModelRunner(path)
    assert (runner.dtype, runner.batch_size, runner.image_size) == (np.uint8, 2, 32)
    np.testing.assert_allclose(runner.run(pixels[:2]), predict(exportable, pixels[:2]), atol=5e-5)


def test_preprocessing_left_out(exportable, pixels, tmp_path):
    path, _ = export_savedmodel(exportable, tmp_path, preprocessing=False)
    normalized = exportable.graph.normalization(pixels).numpy()
    outputs = SavedModelRunner(path).run(normalized)
    np.testing.assert_allclose(outputs, predict(exportable, pixels), atol=5e-5)
    with pytest.raises(UsageError, match="expected float32 with --nopreprocessing"):
        export_savedmodel(exportable, tmp_path, 2, preprocessing=False, input_dtype=tf.uint8)


def test_nothing_is_left_of_a_failed_write(exportable, tmp_path, monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*No space left"):
        export_savedmodel(exportable, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_folded_is_served(tmp_path):
    """Its activations have gradients of their own, which cannot be saved in a frozen function."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    x = keras.layers.Add()([x, BatchNorm(activation="silu")(x)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x))
    exportable = wrap_model(model)
    assert exportable.graph.note is not None
    path, _ = export_savedmodel(exportable, tmp_path / "base")
    x = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("f")
    np.testing.assert_allclose(SavedModelRunner(path).run(x), model(x), atol=1e-5)


def test_normalization_within_a_model_stays_there(tmp_path):
    image = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    subject = wrap_model(model)
    assert subject.metadata()["input"]["normalization"]["inside_the_model"]
    path, _ = export_savedmodel(subject, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("f")
    np.testing.assert_allclose(SavedModelRunner(path).run(pixels), model(pixels), atol=1e-6)
    with pytest.raises(UsageError, match="--nopreprocessing: .*layer 'rescaling"):
        export_savedmodel(subject, tmp_path, preprocessing=False)


def test_four_channels_are_served_but_no_files(tmp_path):
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x))
    path, _ = export_savedmodel(wrap_model(model), tmp_path / "base")
    runner = SavedModelRunner(path)
    assert BYTES_SIGNATURE not in runner.signatures
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 4)).astype("f")
    np.testing.assert_allclose(runner.run(x), model(x), atol=1e-5)
