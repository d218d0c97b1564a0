"""From the command line: a training run or a file to artefacts, or one clear line."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest

import effnetv2_tf.export
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.loading import load_keras_file, load_model_dir, predict, wrap_model


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "effnetv2_tf.export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def last_line(done: subprocess.CompletedProcess) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_a_run_is_exported_with_its_averages_in_float32(model_dir):
    exportable = load_model_dir(model_dir)
    assert exportable.origin.endswith("step 7, averaged weights")
    assert exportable.labels == tuple("0123456789")
    assert exportable.preparation.as_dict() == {
        "image_size": 16,
        "channels": 1,
        "crop": "none",
        "crop_padding": 32,
        "interpolation": "bicubic",
        "decoded_channels": 1,
    }
    assert exportable.model.get_layer("stem").compute_dtype == "float32"
    images = exportable.images.held_out(exportable.preparation, 50)
    expected = predict(exportable, images.pixels)
    np.testing.assert_allclose(exportable.graph(images.pixels), expected, atol=1e-5)
    raw = load_model_dir(model_dir, raw_weights=True)
    assert np.abs(predict(raw, images.pixels) - expected).max() > 0.1


def test_labels_of_a_finished_run_need_no_data(model_dir):
    names = [f"digit {number}" for number in range(10)]
    (model_dir / "summary.json").write_text(json.dumps({"class_names": names}))
    assert load_model_dir(model_dir).labels == tuple(names)
    (model_dir / "summary.json").write_text('{"class_na')
    with pytest.raises(UsageError, match=r"summary\.json: damaged"):
        load_model_dir(model_dir)


def test_a_damaged_checkpoint_is_not_replaced_by_another(model_dir):
    (checkpoint,) = (model_dir / "checkpoints").iterdir()
    newer = checkpoint.with_name("step-0000000008.npz")
    newer.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"damaged.*--checkpoint=step-0000000007\.npz"):
        load_model_dir(model_dir)
    assert load_model_dir(model_dir, checkpoint.name).origin.count("step 7") == 1
    with pytest.raises(UsageError, match=r"best\.npz: no such checkpoint"):
        load_model_dir(model_dir, "best")
    newer.unlink()
    checkpoint.unlink()
    with pytest.raises(UsageError, match="holds no checkpoint"):
        load_model_dir(model_dir)


def test_a_keras_file(network, tmp_path):
    network.save(tmp_path / "model.keras")
    exportable = load_keras_file(tmp_path / "model.keras", image_size=32, crop="none")
    assert exportable.graph.note is None
    x = np.full((1, 32, 32, 3), 99.0, "f")
    np.testing.assert_allclose(exportable.graph(x), network(x), atol=1e-5)
    with pytest.raises(UsageError, match="takes images of any size"):
        load_keras_file(tmp_path / "model.keras")
    with pytest.raises(UsageError, match=r"--labels: expected 7 names, received 2"):
        load_keras_file(tmp_path / "model.keras", labels=["a", "b"], image_size=32)
    with pytest.raises(UsageError, match=r"--labels: expected none .* outputs are features"):
        wrap_model(
            keras.Model(network.input, network.get_layer("pool").output),
            labels=["a"],
            preparation=ImagePreparation(32),
        )
    (tmp_path / "half.keras").write_bytes((tmp_path / "model.keras").read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"half.keras cannot be loaded"):
        load_keras_file(tmp_path / "half.keras")


def test_a_foreign_model_says_that_it_is_not_folded():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.LeakyReLU()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))
    exportable = wrap_model(model)
    assert exportable.preparation.image_size == 16
    assert "not folded" in exportable.graph.note
    assert exportable.graph.has_classes
    assert not wrap_model(keras.Model(inputs, x)).graph.has_classes


def test_every_public_name_can_be_had():
    assert "ImagePreparation" in effnetv2_tf.export.__all__
    for name in effnetv2_tf.export.__all__:
        assert getattr(effnetv2_tf.export, name).__name__ == name


def test_the_command(model_dir):
    arguments = (f"--model_dir={model_dir}", "--tflite=float32", "--check_images=60")
    done = run(*arguments, "--formats=tflite,savedmodel")
    assert done.returncode == 0, done.stderr
    assert "savedmodel float32  passed" in done.stdout
    assert (model_dir / "export" / "tflite" / "model_float32.tflite").is_file()
    assert (model_dir / "export" / "savedmodel" / "1" / "saved_model.pb").is_file()
    report = json.loads((model_dir / "export" / "export_report.json").read_text())
    assert [a["comparisons"][0]["top_1_agreement"] for a in report["artefacts"]] == [1.0, 1.0]
    again = run(*arguments, "--version=1")
    assert again.returncode == 2
    assert "--version=2" in last_line(again)


def test_a_refusal_ends_with_1(model_dir):
    done = run(
        f"--model_dir={model_dir}", "--formats=tflite", "--tflite=int8", "--int8_threshold=1",
        "--calibration_images=32",
    )  # fmt: skip
    (verdict,) = json.loads((model_dir / "export" / "export_report.json").read_text())["artefacts"]
    assert verdict["comparisons"][0]["top_1_agreement"] < 1  # of a network that knows nothing
    assert verdict["status"] == "refused"
    assert done.returncode == 1
    assert last_line(done).startswith("error: tflite int8: not fit for use")


def test_an_unknown_format_is_named_at_once(model_dir):
    done = run(f"--model_dir={model_dir}", "--formats=tflit")
    assert done.returncode == 2
    assert done.stderr == "error: --formats: unknown format 'tflit'; did you mean 'tflite'?\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected either --model_dir or --keras_file"),
        (("--model_dir=/no/such",), "--model_dir: expected the folder of a training run"),
        (("--keras_file=/no/such.keras", "--output_dir=/tmp/x"), "does not exist"),
        ((f"--keras_file={__file__}",), "--output_dir: expected with --keras_file"),
        (("--formast=onnx",), "formast"),
        (("--model_dir=RUN", "--image_size=64"), "--image_size: expected with --keras_file alone"),
        (("--model_dir=RUN", "--labels=names.txt"), "--labels: expected with --keras_file alone"),
        (("--model_dir=RUN", "--formats=tflite", "--onnx=int8"), "--onnx: expected with onnx in"),
        (("--model_dir=a", "--output_dir="), "--output_dir: expected the folder to export to"),
    ],
)
def test_wrong_use_is_one_line_and_2(arguments, message, tmp_path):
    (tmp_path / "recipe.yaml").touch()
    done = run(*(argument.replace("RUN", str(tmp_path)) for argument in arguments))
    assert done.returncode == 2
    assert last_line(done).startswith("error: ")
    assert message in last_line(done)
    assert done.stdout == ""


def test_labels_of_logits_are_kept(make_network):
    model = make_network(classes=2, classifier_activation=None, input_shape=(32, 32, 3))
    assert wrap_model(model, labels=["cat", "dog"]).labels == ("cat", "dog")
    with pytest.raises(UsageError, match="--labels: expected 2 names, received 1"):
        wrap_model(model, labels=["cat"])


def test_a_size_that_the_network_does_not_take(make_network, tmp_path):
    make_network(classes=2, input_shape=(32, 32, 3)).save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match=r"32 px alone: expected .*--image_size.*received 48"):
        load_keras_file(tmp_path / "m.keras", image_size=48)


def test_a_label_file_from_elsewhere(network, tmp_path):
    network.save(tmp_path / "m.keras")
    names = ["caf\u00e9", "a\u2028b", "c\x0cd", *"4567"]
    (tmp_path / "labels.txt").write_bytes("\r\n".join(names).encode("utf-8-sig"))
    done = run(
        f"--keras_file={tmp_path / 'm.keras'}", f"--output_dir={tmp_path / 'out'}",
        f"--labels={tmp_path / 'labels.txt'}", "--image_size=32", "--formats=onnx",
        "--check_images=8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metadata = onnx.load(tmp_path / "out/onnx/model_float32.onnx").metadata_props
    assert json.loads(next(m.value for m in metadata if m.key == "labels")) == names


def test_images_that_are_not_square_are_refused():
    inputs = keras.Input((32, 48, 3))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
    with pytest.raises(UsageError, match="expected square images, or .* received 32 x 48 pixels"):
        wrap_model(model)
