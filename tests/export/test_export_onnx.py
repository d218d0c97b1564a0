"""ONNX files are valid, have one node for each convolution, and name their dimensions."""

from __future__ import annotations

import collections
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.loading import predict, wrap_model
from effnetv2_tf.export.onnx import export_onnx
from effnetv2_tf.export.runtimes import OnnxRunner


@pytest.fixture(scope="module")
def file(exportable, tmp_path_factory):
    return export_onnx(exportable, tmp_path_factory.mktemp("onnx") / "model.onnx")


def test_agrees_with_keras_at_any_size(file, network):
    runner = OnnxRunner(file)
    assert (runner.batch_size, runner.image_size) == (None, None)
    for shape in ((1, 24, 40, 3), (5, 32, 32, 3)):
        x = np.random.default_rng(0).integers(0, 256, shape).astype("f")
        np.testing.assert_allclose(runner.run(x), network(x), atol=5e-5)


def test_one_node_for_each_convolution(file, exportable):
    kinds = collections.Counter(node.op_type for node in onnx.load(file).graph.node)
    assert kinds["Conv"] == exportable.graph.convolution_count()
    assert "BatchNormalization" not in kinds
    # Only the gate of squeeze-excite and the classifier are outside convolutions' layout.
    assert kinds["Transpose"] <= 2


def test_names_opset_and_metadata(file, exportable):
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [("", 18)]

    def dimensions(value):
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    (image,), (output,) = model.graph.input, model.graph.output
    assert (image.name, dimensions(image)) == ("image", ["batch", "height", "width", 3])
    assert (output.name, dimensions(output)) == ("probabilities", ["batch", 7])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["labels"]) == list(exportable.labels)
    assert json.loads(metadata["preparation"])["crop_padding"] == 4
    assert json.loads(metadata["input"])["normalization"]["inside_the_model"]


def test_uint8_fixed_shape_and_another_opset(exportable, pixels, tmp_path):
    path = export_onnx(
        exportable,
        tmp_path / "a.onnx",
        opset=17,
        input_dtype=tf.uint8,
        batch_size=4,
        image_size=32,
    )
    runner = OnnxRunner(path)
    assert (runner.dtype, runner.batch_size, runner.image_size) == (np.uint8, 4, 32)
    np.testing.assert_allclose(runner.run(pixels[:4]), predict(exportable, pixels[:4]), atol=5e-5)


def test_int8(exportable, pixels, tmp_path):
    path = export_onnx(exportable, tmp_path / "a.onnx", "int8", representative=pixels)
    kinds = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
    assert kinds["DequantizeLinear"] > kinds["Conv"]
    expected = predict(exportable, pixels)
    outputs = OnnxRunner(path).run(pixels.astype("f"))
    assert np.abs(outputs - expected).max() < 0.5
    assert (outputs.argmax(-1) == expected.argmax(-1)).mean() > 0.5
    assert {entry.key for entry in onnx.load(path).metadata_props} >= {"labels", "preparation"}


def test_int8_of_a_fixed_batch(exportable, pixels, tmp_path):
    path = tmp_path / "a.onnx"
    export_onnx(exportable, path, "int8", representative=pixels, batch_size=3)
    assert OnnxRunner(path).run(pixels[:3].astype("f")).shape == (3, 7)


def test_int8_computes_what_its_numbers_say(exportable, pixels, tmp_path):
    """On any processor: without optimisations, onnxruntime computes quantised values in float."""
    path = export_onnx(exportable, tmp_path / "a.onnx", "int8", representative=pixels)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, plain, ["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": pixels.astype("f")})
    outputs = OnnxRunner(path).run(pixels.astype("f"))
    assert np.abs(outputs - expected).mean() < 0.02


@pytest.mark.parametrize("activation", ["gelu", "mish", "tanh", "hard_silu"])
def test_other_activations(activation, make_network, pixels, tmp_path):
    model = make_network(activation, classes=7)
    subject = wrap_model(model, None, ImagePreparation(32))
    runner = OnnxRunner(export_onnx(subject, tmp_path / "a.onnx"))
    x = pixels[:4].astype("f")
    np.testing.assert_allclose(runner.run(x), model(x), atol=5e-5)


def test_bad_arguments(exportable, pixels, tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(UsageError, match=r"unknown precision 'float33'; did you mean 'float32'"):
        export_onnx(exportable, path, "float33")
    with pytest.raises(UsageError, match="--opset: expected 13 to 18, received 19"):
        export_onnx(exportable, path, opset=19)
    with pytest.raises(UsageError, match=r"at least 32 representative.*received 3"):
        export_onnx(exportable, path, "int8", representative=pixels[:3])
    with pytest.raises(UsageError, match=r"--onnx=int8: .*received --nopreprocessing"):
        export_onnx(exportable, path, "int8", representative=pixels, preprocessing=False)
    assert not path.exists()
