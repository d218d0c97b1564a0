"""A NASNet is exported as it is: its cells are no chain, so nothing is folded."""

from __future__ import annotations

import numpy as np
import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.export.deploy_graph import build_deploy_graph
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.loading import wrap_model
from effnetv2_tf.export.onnx import export_onnx
from effnetv2_tf.export.runtimes import OnnxRunner, TFLiteRunner
from effnetv2_tf.export.tflite import export_tflite
from effnetv2_tf.models.genotypes import Block, Cell, Genotype
from effnetv2_tf.models.nasnet import build_nasnet
from effnetv2_tf.models.nasnet_specs import NASNetSpec

pytestmark = pytest.mark.slow
NORMAL = Cell(
    (Block(0, "sep_conv_3x3", 1, "avg_pool_3x3"), Block(0, "conv_1x3_3x1", 1, "identity"))
)
REDUCTION = Cell(
    (Block(0, "max_pool_3x3", 1, "sep_conv_5x5"), Block(0, "avg_pool_3x3", 2, "dilated_conv_3x3"))
)
SPEC = NASNetSpec(
    name="small-nasnet",
    cells_per_stack=1,
    penultimate_filters=64,
    genotype=Genotype(NORMAL, REDUCTION),
    stem_filters=8,
    stem_reductions=1,
)
PIXELS = np.random.default_rng(1).integers(0, 256, (2, 33, 33, 3)).astype("f")


def network(**arguments):
    model = build_nasnet(SPEC, classes=5, **arguments)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        name = keras_compat.variable_path(weight).rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape).astype("f"))
        elif name in ("beta", "moving_mean", "bias"):
            weight.assign(generator.normal(0, 0.3, weight.shape).astype("f"))
    return model


def test_the_deploy_graph_takes_it_as_it_is():
    model = network()
    graph = build_deploy_graph(model)
    assert graph.note is not None and graph.note.startswith("batch norms not folded")
    assert graph.output_name == "probabilities"
    for sides in ((33, 33), (40, 31)):
        x = PIXELS[:, :31, :31] if sides != (33, 33) else PIXELS
        np.testing.assert_allclose(graph(x), model(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", [None, 33])
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_files_agree_with_keras(kind, side, tmp_path):
    model = network(input_shape=(side, side, 3))
    exportable = wrap_model(model, list("abcde"), ImagePreparation(33))
    path = tmp_path / f"model.{kind}"
    if kind == "onnx":
        runner = OnnxRunner(export_onnx(exportable, path))
    else:
        runner = TFLiteRunner(export_tflite(exportable, path, "float32"))
    for sides in ((33, 33), (24, 31)) if side is None else ((33, 33),):
        x = PIXELS[:, : sides[0], : sides[1]]
        np.testing.assert_allclose(runner.run(x), model(x), atol=5e-5, err_msg=str(sides))
