"""Networks in the compiled operations compute what plain ones do, and are exported and checked."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export import ExportOptions, export, export_savedmodel, wrap_model
from effnetv2_tf.export.compiled_steps import with_compiled_operations
from effnetv2_tf.export.deploy_graph import build_deploy_graph
from effnetv2_tf.export.loading import predict
from effnetv2_tf.export.runtimes import Artefact, load
from effnetv2_tf.kernels import compiler
from effnetv2_tf.models.families import EFFICIENTNET_B0, EFFICIENTNET_LITE0, EFFICIENTNETV2_B0
from effnetv2_tf.models.network import build_network

pytestmark = pytest.mark.usefixtures("compiled")

SERVE_WITHOUT_KERAS_MODEL = """
import sys
import numpy as np
import tensorflow as tf
from effnetv2_tf import kernels

folder, pixels, outputs = sys.argv[1:]
kernels.load()
network = tf.saved_model.load(folder).signatures["serving_default"]
np.save(outputs, network(image=tf.constant(np.load(pixels)))["probabilities"])
"""


def operations_of(graph, size):
    traced = graph.function(batch_size=1, image_size=size).get_concrete_function().graph
    return [operation.type for operation in traced.get_operations()]


def assert_computes_the_same(model, size):
    graph = build_deploy_graph(model)
    images = np.random.default_rng(1).integers(0, 256, (2, size, size + 5, 3)).astype("f")
    expected = graph.logits(images).numpy()
    assert np.ptp(expected) > 0
    found = with_compiled_operations(graph).logits(images).numpy()
    worst = np.abs(found - expected).max() / np.abs(expected).max()
    assert worst < 1e-4, f"logits differ by {worst:.2g} of the largest"


@pytest.mark.parametrize("activation", ["silu", "relu6", "hard_swish"])
def test_logits_equal(make_network, activation):
    assert_computes_the_same(make_network(activation, classes=7), 37)


@pytest.mark.parametrize(
    "spec", [EFFICIENTNETV2_B0, EFFICIENTNET_B0, EFFICIENTNET_LITE0], ids=lambda spec: spec.name
)
def test_logits_of_families_equal(spec):
    assert_computes_the_same(build_network(spec), 64)


def test_group_convolutions_stay_tensorflows(tiny_spec):
    model = build_network(replace(tiny_spec, group_size=4), classes=4)
    assert_computes_the_same(model, 32)


def test_what_the_graph_has_of_each_operation(network):
    found = operations_of(with_compiled_operations(build_deploy_graph(network)), 32)
    counts = {name: found.count(name) for name in set(found)}
    blocks = {"Effnetv2InferenceExpandedDepthwiseConv": 2, "Effnetv2InferenceGates": 2}
    convolutions = {
        "Effnetv2InferenceNormalize": 1,
        "Effnetv2InferenceConv3x3": 1,
        "Effnetv2InferenceProjectedConv3x3": 1,
        "Effnetv2InferencePointwiseConv": 4,
    }
    assert blocks.items() <= counts.items()
    assert convolutions.items() <= counts.items()
    for name in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
        assert name not in counts


def test_serves_in_a_process_that_loads_the_operations(exportable, pixels, tmp_path):
    path, _ = export_savedmodel(exportable, tmp_path / "base", compiled=True)
    np.save(tmp_path / "pixels.npy", pixels.astype("f"))
    files = [str(tmp_path / "pixels.npy"), str(tmp_path / "outputs.npy")]
    command = [sys.executable, "-c", SERVE_WITHOUT_KERAS_MODEL, str(path), *files]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    outputs = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(outputs, predict(exportable, pixels), atol=5e-5)
    assert len(set(outputs.argmax(-1))) > 1


def test_is_checked_as_every_artefact_is(exportable, tmp_path):
    report = export(
        exportable, tmp_path, ["savedmodel", "compiled"], ExportOptions(check_images=32)
    )
    assert report.ok
    assert [verdict.artefact.name for verdict in report.verdicts] == [
        "savedmodel float32",
        "compiled float32",
    ]
    runner, _ = load(Artefact("compiled", "float32", tmp_path / "compiled" / "1"))
    images = np.zeros((3, 40, 24, 3), "f")
    np.testing.assert_allclose(runner.run(images), exportable.model(images), atol=5e-5)


def test_files_are_taken_too(exportable, pixels, tmp_path):
    path, _ = export_savedmodel(exportable, tmp_path / "base", compiled=True)
    runner, _ = load(Artefact("compiled", "float32", path))
    files = [tf.io.encode_png(image.astype("uint8")).numpy() for image in pixels[:2]]
    outputs = runner.run_signature("serving_bytes", np.array(files, object))
    assert outputs["labels"].shape == (2, 5)


def test_a_model_whose_layers_are_not_known_is_refused(tmp_path):
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x + 1.0))
    with pytest.raises(UsageError, match=r"--formats=compiled: expected a network whose layers"):
        export(wrap_model(model, preparation=16), tmp_path / "out", "compiled")
    assert not (tmp_path / "out").exists()


def test_without_the_operations_nothing_is_begun(exportable, monkeypatch, tmp_path):
    monkeypatch.setenv(compiler.SWITCH, "0")
    with pytest.raises(UsageError, match=compiler.SWITCH):
        export(exportable, tmp_path / "out", "compiled")
    assert not (tmp_path / "out").exists()
