"""TFLite files hold built-in operations only, take any size, and say what they are."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.layer_errors import image_side, layer_errors
from effnetv2_tf.export.loading import predict, wrap_model
from effnetv2_tf.export.runtimes import TFLiteRunner
from effnetv2_tf.export.tflite import PRECISIONS, export_tflite
from effnetv2_tf.export.tflite_metadata import read_metadata


@pytest.fixture(scope="module")
def files(exportable, pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tflite")
    return {
        name: export_tflite(exportable, folder / f"{name}.tflite", name, representative=pixels)
        for name in PRECISIONS
    }


def operations(path) -> list[int]:
    model = flatbuffer_utils.read_model(str(path))
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


@pytest.mark.parametrize(
    ("precision", "difference"),
    [("float32", 5e-5), ("float16", 0.02), ("dynamic", 0.2), ("int8", 0.5), ("int16x8", 0.4)],
)
def test_agrees_with_keras(files, exportable, pixels, precision, difference):
    runner = TFLiteRunner(files[precision])
    expected = predict(exportable, pixels)
    outputs = runner.run(pixels.astype(runner.dtype))
    assert np.abs(outputs - expected).max() < difference
    assert (outputs.argmax(-1) == expected.argmax(-1)).mean() > 0.5
    assert len(set(expected.argmax(-1))) > 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_built_in_operations_only(files, precision):
    assert schema.BuiltinOperator.CUSTOM not in operations(files[precision])


def test_one_operation_for_each_convolution(files, exportable):
    kinds = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    found = [code for code in operations(files["float32"]) if code in kinds]
    assert len(found) == exportable.graph.convolution_count()


def test_any_batch_and_image_size(files, network):
    runner = TFLiteRunner(files["float32"])
    assert (runner.batch_size, runner.image_size) == (None, None)
    for shape in ((3, 24, 40, 3), (1, 57, 57, 3), (2, 32, 32, 3)):
        x = np.random.default_rng(0).integers(0, 256, shape).astype("f")
        np.testing.assert_allclose(runner.run(x), network(x), atol=5e-5)


def test_fixed_shape(exportable, tmp_path):
    path = export_tflite(exportable, tmp_path / "a.tflite", image_size=40, batch_size=1)
    runner = TFLiteRunner(path)
    assert (runner.batch_size, runner.image_size) == (1, 40)


def test_a_fixed_image_size_of_the_network(make_network, tmp_path):
    subject = wrap_model(make_network(classes=3, input_shape=(32, 32, 3)))
    runner = TFLiteRunner(export_tflite(subject, tmp_path / "a.tflite"))
    assert (runner.batch_size, runner.image_size) == (None, 32)


def test_feature_maps_grow_with_the_image(make_network, tmp_path):
    model = make_network(include_top=False)
    path = export_tflite(wrap_model(model, None, ImagePreparation(32)), tmp_path / "a.tflite")
    (output,) = Interpreter(str(path)).get_output_details()
    assert list(output["shape_signature"][:3]) == [-1, -1, -1]
    x = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3)).astype("f")
    np.testing.assert_allclose(TFLiteRunner(path).run(x), model(x), atol=5e-5)


def test_a_network_that_is_not_folded(make_network, tmp_path):
    """With SiLU's own gradient in it, and reshapes that the converter makes constant."""
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1.0)(image)
    outputs = keras.layers.Dense(4)(make_network(include_top=False, pooling="avg")(x))
    model = keras.Model(image, outputs)
    subject = wrap_model(model, None, ImagePreparation(32))
    assert subject.graph.note
    path = export_tflite(subject, tmp_path / "a.tflite")
    runner = TFLiteRunner(path)
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("f")
    assert runner.image_size in (None, 32)
    count = runner.batch_size or 2
    np.testing.assert_allclose(runner.run(x[:count]), model(x[:count]), atol=1e-4)


def test_int8_takes_pixels_as_they_are(files):
    model = flatbuffer_utils.read_model(str(files["int8"]))
    graph = model.subgraphs[0]
    image = graph.tensors[graph.inputs[0]]
    assert image.type == schema.TensorType.UINT8
    assert image.quantization.zeroPoint[0] == 0
    assert abs(image.quantization.scale[0] - 1) < 0.01


def test_labels_and_preparation_in_the_file(files, exportable):
    metadata, labels = read_metadata(files["float32"].read_bytes())
    assert labels == list(exportable.labels)
    assert metadata["labels"] == labels
    assert metadata["preparation"]["image_size"] == 32
    normalization = metadata["input"]["normalization"]
    assert normalization["inside_the_model"]
    np.testing.assert_allclose(normalization["mean"], [123.675, 116.28, 103.53])


def test_standard_metadata_buffer(files):
    model = flatbuffer_utils.read_model(str(files["int8"]))
    (entry,) = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
    content = bytes(model.buffers[entry.buffer].data)
    assert content[4:8] == b"M001"
    for text in (b"small", b"labels.txt", b"image", b"probabilities"):
        assert text in content


def test_offsets_of_the_archive_are_those_of_the_file(files):
    """Android's reader takes them as they stand, others add the length of what is before."""
    content = files["float32"].read_bytes()
    end = content.rindex(b"PK\x05\x06")
    directory = int.from_bytes(content[end + 16 : end + 20], "little")
    assert content[directory : directory + 4] == b"PK\x01\x02"
    entry = int.from_bytes(content[directory + 42 : directory + 46], "little")
    assert content[entry : entry + 4] == b"PK\x03\x04"


def test_a_network_that_the_converter_refuses(tmp_path):
    image = keras.Input((8, 8, 3))
    refused = keras.layers.Lambda(lambda x: tf.linalg.svd(x, compute_uv=False))(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(refused)))
    subject = wrap_model(model, None, ImagePreparation(8))
    with pytest.raises(TrainingFailure, match="TFLite float32: the converter failed"):
        export_tflite(subject, tmp_path / "a.tflite")


def test_signature_names(files):
    signature = Interpreter(str(files["float32"])).get_signature_list()["serving_default"]
    assert signature == {"inputs": ["image"], "outputs": ["probabilities"]}


def test_preprocessing_left_out(exportable, pixels, tmp_path):
    path = export_tflite(exportable, tmp_path / "a.tflite", preprocessing=False)
    outputs = TFLiteRunner(path).run(exportable.graph.normalization(pixels).numpy())
    np.testing.assert_allclose(outputs, predict(exportable, pixels), atol=5e-5)
    assert not read_metadata(path.read_bytes())[0]["input"]["normalization"]["inside_the_model"]


def test_bad_arguments(exportable, pixels, tmp_path):
    path = tmp_path / "a.tflite"
    with pytest.raises(UsageError, match=r"unknown precision 'int9'; did you mean 'int8'\?"):
        export_tflite(exportable, path, "int9")
    with pytest.raises(UsageError, match=r"at least 32 representative images.*received 5"):
        export_tflite(exportable, path, "int8", representative=pixels[:5])
    with pytest.raises(UsageError, match="received 0"):
        export_tflite(exportable, path, "int16x8")
    assert not path.exists()


def test_layer_errors_grow_from_the_input_on(files, pixels):
    errors = layer_errors(files["float32"], files["int8"], pixels[:4])
    assert len(errors) > 10
    assert errors[0].relative < 0.05
    assert all(0 <= error.relative < 5 for error in errors)
    same = layer_errors(files["float32"], files["float32"], pixels[:2])
    assert max(error.relative for error in same) == 0
    assert image_side(files["int8"]) == 32
    with pytest.raises(UsageError, match="expected a .tflite file"):
        image_side(Path(__file__))
    with pytest.raises(UsageError, match="does not exist"):
        layer_errors(files["float32"], files["float32"].with_name("none"), pixels)
