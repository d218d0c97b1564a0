"""Networks with group convolutions and norms per image through every exporter."""

from __future__ import annotations

import collections
from dataclasses import replace

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from effnetv2_tf import keras_compat
from effnetv2_tf.export.deploy_graph import build_deploy_graph
from effnetv2_tf.export.graph_steps import Block, Convolution, GroupNormalization
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.loading import wrap_model
from effnetv2_tf.export.onnx import export_onnx
from effnetv2_tf.export.runtimes import Artefact, OnnxRunner, TFLiteRunner
from effnetv2_tf.export.savedmodel import export_savedmodel
from effnetv2_tf.export.tflite import export_tflite
from effnetv2_tf.export.verification import held_out, verify
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import IMAGENET_STATISTICS, NetworkSpec, StageSpec

SPEC = NetworkSpec(
    name="grouped",
    stages=(
        StageSpec("mbconv", 3, 1, 1, 16, 1, 0.25),
        StageSpec("fused", 3, 2, 4, 24, 1),
        StageSpec("mbconv", 5, 2, 4, 40, 2, 0.25),
    ),
    stem_filters=32,
    head_filters=48,
    group_size=16,
    preprocessing=IMAGENET_STATISTICS,
)
NORMS = {
    "batch": {},
    "group": {"normalization": "group"},
    "group-pn": {"normalization": "group", "proxy_normalization": True},
    "layer-pn": {"normalization": "layer", "proxy_normalization": True},
}
SHAPES = ((1, 40, 56, 3), (5, 32, 32, 3), (2, 33, 33, 3))


def _randomized(model: keras.Model) -> keras.Model:
    """Weights off their initial values, as training would; logits of a few units."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        name = keras_compat.variable_path(weight).rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape).astype("f"))
        elif name != "kernel":
            weight.assign(generator.normal(0, 0.3, weight.shape).astype("f"))
    return model


def _images(shape, seed=1):
    return np.random.default_rng(seed).integers(0, 256, shape).astype("f")


@pytest.fixture(scope="module", params=NORMS)
def network(request):
    keras.utils.set_random_seed(0)
    spec = replace(SPEC, name=request.param, **NORMS[request.param])
    return _randomized(build_network(spec, classes=7, classifier_activation=None))


@pytest.fixture(scope="module")
def exportable(network):
    labels = [f"class {number}" for number in range(7)]
    return wrap_model(network, labels, ImagePreparation(32, crop_padding=4))


def _check(run, network, shapes=SHAPES):
    for shape in shapes:
        expected = network(_images(shape)).numpy()
        assert np.ptp(expected) > 0.5
        np.testing.assert_allclose(run(_images(shape)), expected, atol=1e-4, err_msg=str(shape))


def test_the_deploy_graph(network):
    graph = build_deploy_graph(network)
    assert graph.note is None
    _check(lambda x: graph.logits(x).numpy(), network)


def _steps(steps):
    for step in steps:
        yield from _steps(step.branch) if isinstance(step, Block) else (step,)


def test_proxy_statistics_are_constants(network):
    """Every proxy-normalised activation is one step with two constants; nothing is sampled."""
    steps = list(_steps(build_deploy_graph(network).steps))
    norms = [step for step in steps if isinstance(step, GroupNormalization)]
    assert len(norms) == (0 if network.name == "batch" else 12)
    with_proxy = [norm for norm in norms if norm.scale is not None]
    assert len(with_proxy) == (8 if network.name.endswith("pn") else 0)
    layer = network.get_layer("stem_norm")
    if with_proxy:
        scale, offset = layer.proxy_scale_and_offset()
        np.testing.assert_array_equal(with_proxy[0].scale, scale)
        np.testing.assert_array_equal(with_proxy[0].offset, offset)


def test_batch_norms_are_folded_into_group_convolutions(network):
    grouped = [
        step.kernel.shape
        for step in _steps(build_deploy_graph(network).steps)
        if isinstance(step, Convolution) and step.kernel.shape[:2] != (1, 1)
    ]
    # 96 channels: 6 groups of 16; 160: 10 groups of 16; fused: 16 channels, a group.
    expected = [(3, 3, 3, 32), (3, 3, 16, 32), (3, 3, 16, 64), (5, 5, 16, 96), (5, 5, 16, 160)]
    assert grouped == expected


def test_savedmodel(network, exportable, tmp_path):
    folder, _ = export_savedmodel(exportable, tmp_path / "saved")
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    _check(lambda x: next(iter(serve(tf.constant(x)).values())).numpy(), network)


def test_onnx_has_one_grouped_node_a_convolution(network, exportable, tmp_path):
    path = export_onnx(exportable, tmp_path / "any.onnx")
    nodes = onnx.load(path).graph.node
    groups = [
        attribute.i
        for node in nodes
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group"
    ]
    assert len(groups) == exportable.graph.convolution_count()
    assert sorted(groups)[-3:] == [2, 6, 10]
    kinds = collections.Counter(node.op_type for node in nodes)
    assert not {"Split", "Concat", "BatchNormalization"} & kinds.keys(), kinds
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    _check(OnnxRunner(path).run, network)


def test_onnx_of_a_fixed_size(network, exportable, tmp_path):
    path = export_onnx(exportable, tmp_path / "fixed.onnx", batch_size=2, image_size=48)
    _check(OnnxRunner(path).run, network, [(2, 48, 48, 3)])


def test_tflite_has_built_in_operations_only(network, exportable, tmp_path):
    path = export_tflite(exportable, tmp_path / "any.tflite")
    model = flatbuffer_utils.read_model(str(path))
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    found = [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]
    assert schema.BuiltinOperator.CUSTOM not in found
    convolutions = found.count(schema.BuiltinOperator.CONV_2D)
    assert convolutions == exportable.graph.convolution_count()
    _check(TFLiteRunner(path).run, network)


def test_tflite_of_a_fixed_size(network, exportable, tmp_path):
    path = export_tflite(exportable, tmp_path / "a.tflite", image_size=48, batch_size=1)
    _check(TFLiteRunner(path).run, network, [(1, 48, 48, 3)])


def test_tflite_of_16_bit_activations(network, exportable, tmp_path):
    representative = _images((32, 32, 32, 3)).astype(np.uint8)
    path = export_tflite(
        exportable, tmp_path / "a.tflite", "int16x8", representative=representative
    )
    images = _images((5, 32, 32, 3))
    expected = network(images).numpy()
    np.testing.assert_allclose(TFLiteRunner(path).run(images), expected, atol=0.1)


def test_the_files_pass_the_verification(network, exportable, tmp_path):
    sets = held_out(exportable, 24)
    artefacts = (
        Artefact("onnx", "float32", export_onnx(exportable, tmp_path / "a.onnx")),
        Artefact("tflite", "float32", export_tflite(exportable, tmp_path / "a.tflite")),
        Artefact("tflite", "float16", export_tflite(exportable, tmp_path / "b.tflite", "float16")),
    )
    for artefact in artefacts:
        verdict = verify(artefact, exportable, sets)
        assert (verdict.status, verdict.ok) == ("passed", True), verdict
        assert {comparison.image_size for comparison in verdict.comparisons} == {32, 64}
