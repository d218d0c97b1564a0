"""The deploy graph computes what the training network computes."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.deploy_graph import build_deploy_graph, float32_copy
from effnetv2_tf.export.folding import NotFoldable, fold, layers_in_order
from effnetv2_tf.export.graph_steps import Convolution, DepthwiseConvolution, KerasNetwork
from effnetv2_tf.models.families import (
    EFFICIENTNET_B0,
    EFFICIENTNET_LITE0,
    EFFICIENTNETV2_B0,
    EFFICIENTNETV2_S,
)
from effnetv2_tf.models.layers import BatchNorm
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import IMAGENET_STATISTICS, NetworkSpec, StageSpec

SMALL = NetworkSpec(
    name="small",
    stages=(
        StageSpec("fused", 3, 1, 1, 8, 2),
        StageSpec("fused", 3, 2, 4, 16, 2),
        StageSpec("mbconv", 3, 2, 4, 24, 2, 0.25),
        StageSpec("mbconv", 5, 1, 1, 24, 1, 0.25),
    ),
    stem_filters=8,
    head_filters=32,
)
NO_SE_RELU6 = replace(
    SMALL,
    name="no-se-relu6",
    activation="relu6",
    stages=tuple(replace(stage, se_ratio=0.0) for stage in SMALL.stages),
)
SE_IN_FUSED = replace(SMALL, name="se-in-fused", stages=(StageSpec("fused", 3, 1, 4, 8, 2, 0.5),))
STRIDE_1_STEM = replace(
    SMALL, name="stride-1-stem", stem_stride=1, preprocessing=IMAGENET_STATISTICS
)
POINTWISE_FUSED = replace(SMALL, name="1x1-fused", stages=(StageSpec("fused", 1, 1, 4, 8, 2),))
SYMMETRIC = replace(SMALL, name="symmetric", padding="symmetric")
SPECS = [SMALL, NO_SE_RELU6, SE_IN_FUSED, STRIDE_1_STEM, POINTWISE_FUSED, SYMMETRIC]


@pytest.fixture(autouse=True)
def float32_afterwards():
    yield
    keras_compat.set_float_precision("float32")


def randomized(model: keras.Model, seed: int = 0) -> keras.Model:
    """Gives every weight a value that matters, as training would."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        name = keras_compat.variable_path(weight).rsplit("/", 1)[-1]
        shape = weight.shape
        if name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.5, 1.5, shape).astype("f"))
        elif name in ("beta", "moving_mean", "bias"):
            weight.assign(generator.normal(0, 0.3, shape).astype("f"))
    return model


def images(channels: int = 3, batch: int = 3, size: int = 37) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, size, size, channels)).astype("f")


def make(spec: NetworkSpec = SMALL, **arguments) -> keras.Model:
    arguments = {"classes": 7, "classifier_activation": None, **arguments}
    return randomized(build_network(spec, **arguments))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_equal(spec, channels):
    model = make(spec, input_shape=(None, None, channels))
    x = images(channels)
    graph = build_deploy_graph(model)
    expected = model(x, training=False).numpy()
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(graph.logits(x), expected, atol=1e-4)
    assert graph.note is None
    assert graph.output_name == "logits"


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_precision_network_is_exported_in_float32(precision):
    keras_compat.set_float_precision(precision)
    model = make(SMALL)
    keras_compat.set_float_precision("float32")
    reference = float32_copy(model)
    assert reference.get_layer("stem").compute_dtype == "float32"
    x = images()
    graph = build_deploy_graph(model)
    np.testing.assert_allclose(graph.logits(x), reference(x, training=False), atol=1e-4)
    # The network trained in low precision computes the same but for its rounding.
    np.testing.assert_allclose(graph.logits(x), model(x, training=False), atol=0.1)


def test_uint8_and_float_images_give_the_same():
    graph = build_deploy_graph(make())
    x = images()
    np.testing.assert_array_equal(graph(x), graph(x.astype(np.uint8)))


def test_probabilities_and_their_name():
    model = make(classifier_activation="softmax")
    graph = build_deploy_graph(model)
    assert (graph.output_name, graph.classes, graph.is_classifier) == ("probabilities", 7, True)
    np.testing.assert_allclose(graph(images()), model(images()), atol=1e-5)
    np.testing.assert_allclose(np.sum(graph(images()), axis=-1), 1.0, atol=1e-5)


def test_sigmoid_classifier():
    model = make(classifier_activation="sigmoid")
    graph = build_deploy_graph(model)
    np.testing.assert_allclose(graph(images()), model(images()), atol=1e-5)
    assert graph.is_classifier


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_features(pooling):
    model = make(include_top=False, pooling=pooling)
    graph = build_deploy_graph(model)
    np.testing.assert_allclose(graph(images()), model(images()), atol=1e-4)
    assert graph.output_name == "features"
    assert not graph.is_classifier
    assert not graph.has_classes


def test_preprocessing_can_be_left_out():
    graph = build_deploy_graph(make(STRIDE_1_STEM))
    x = images()
    normalized = graph.normalization(x)
    mean, std = (
        np.array(values, "f") for values in (graph.normalization.mean, graph.normalization.std)
    )
    np.testing.assert_allclose(normalized, (x - mean) / std, atol=1e-5)
    np.testing.assert_allclose(graph.without_normalization()(normalized), graph(x), atol=1e-6)


def test_a_model_without_preprocessing_has_no_normalization():
    model = make(include_preprocessing=False)
    graph = build_deploy_graph(model)
    assert graph.normalization is None
    x = images() / 128 - 1
    np.testing.assert_allclose(graph(x), model(x), atol=1e-4)


def test_folding_by_hand():
    convolution = keras.layers.Conv2D(1, 1, use_bias=True)
    norm = keras.layers.BatchNormalization(epsilon=0.0)
    convolution.build((None, 1, 1, 1))
    norm.build((None, 1, 1, 1))
    convolution.set_weights([np.full((1, 1, 1, 1), 3.0), np.array([1.0])])
    norm.set_weights([np.array([v]) for v in (2.0, 5.0, 7.0, 16.0)])  # gamma, beta, mean, var
    (step,), _ = fold([convolution, norm])
    # 2 * (3x + 1 - 7) / 4 + 5 = 1.5x + 2
    assert step.kernel.item() == 1.5
    assert step.bias.item() == 2.0


def test_depthwise_folding_with_a_multiplier():
    layers = [
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="valid", use_bias=True),
        keras.layers.BatchNormalization(scale=False),
    ]
    model = randomized(keras.Sequential([keras.Input((8, 8, 3)), *layers]))
    (step,), _ = fold(layers)
    assert isinstance(step, DepthwiseConvolution)
    np.testing.assert_allclose(step(images(size=8)), model(images(size=8)), rtol=1e-4, atol=1e-3)


def test_no_training_operations_in_the_graph():
    graph = build_deploy_graph(make())
    traced = graph.function().get_concrete_function()
    kinds = {node.type for node in traced.graph.get_operations()}
    assert not kinds & {
        "FusedBatchNormV3",
        "ReadVariableOp",
        "MatMul_1",
        "StatelessRandomUniformV2",
    }
    assert not traced.captured_inputs
    convolutions = [n for n in traced.graph.get_operations() if n.type.endswith("Conv2dNative")]
    dense = [n for n in traced.graph.get_operations() if n.type == "Conv2D"]
    assert len(convolutions) + len(dense) == graph.convolution_count()
    assert [op.name for op in traced.graph.get_operations() if op.type == "Placeholder"] == [
        "image"
    ]


def test_fixed_shapes_on_request():
    function = build_deploy_graph(make()).function(tf.uint8, batch_size=2, image_size=32)
    spec = function.get_concrete_function().inputs[0]
    assert (spec.shape.as_list(), spec.dtype) == ([2, 32, 32, 3], tf.uint8)


def test_a_foreign_model_is_taken_as_it_is():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Add()([x, keras.layers.Conv2D(4, 1)(x)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(5, activation="softmax")(x)
    model = keras.Model(inputs, outputs, name="foreign")
    graph = build_deploy_graph(model)
    np.testing.assert_allclose(graph(images()), model(images()), atol=1e-5)
    assert isinstance(graph.steps[0], KerasNetwork)
    assert "batch norms not folded: layer" in graph.note
    assert graph.output_name == "probabilities"
    assert not graph.function().get_concrete_function().captured_inputs


def _within_a_functional_model(network):
    image = keras.Input((None, None, 3))
    x = keras.layers.Dropout(0.2)(network(image))
    return keras.Model(image, keras.layers.Dense(4, activation="softmax")(x))


def _within_a_sequential_model(network):
    classifier = keras.layers.Dense(4, activation="softmax")
    model = keras.Sequential([network, keras.layers.Dropout(0.2), classifier])
    model.build((None, None, None, 3))
    return model


@pytest.mark.parametrize("embed", [_within_a_functional_model, _within_a_sequential_model])
def test_a_network_within_a_model_is_folded(embed):
    """As users put their own classifier on a backbone."""
    network = make(include_top=False, pooling="avg", classes=None)
    model = embed(network)
    graph = build_deploy_graph(model)
    assert graph.note is None
    assert (graph.output_name, graph.classes) == ("probabilities", 4)
    np.testing.assert_allclose(graph(images()), model(images(), training=False), atol=1e-5)
    alone = build_deploy_graph(network)  # that it is called elsewhere, too, is nothing to it
    assert alone.note is None
    np.testing.assert_allclose(alone(images()), network(images(), training=False), atol=1e-4)


def _with_a_hidden_layer(x):
    x = keras.layers.Dense(6, activation="relu")(x)
    return keras.layers.Dense(4, activation="softmax")(x)


def _with_activations_of_their_own(x):
    x = keras.layers.Activation("tanh")(keras.layers.Dense(6)(x))
    return keras.layers.Softmax()(keras.layers.Dense(4)(x))


@pytest.mark.parametrize("head", [_with_a_hidden_layer, _with_activations_of_their_own])
def test_a_users_head_and_augmentation_are_folded(head):
    network = make(include_top=False, pooling="avg", classes=None)
    image = keras.Input((None, None, 3))
    x = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(image))
    model = keras.Model(image, head(network(x)))
    graph = build_deploy_graph(model)
    assert (graph.note, graph.output_name, graph.classes) == (None, "probabilities", 4)
    np.testing.assert_allclose(graph(images()), model(images(), training=False), atol=1e-5)


class _CosineDense(keras.layers.Dense):
    def call(self, inputs):
        kernel = tf.math.l2_normalize(tf.convert_to_tensor(self.kernel), 0)
        return tf.matmul(tf.math.l2_normalize(inputs, -1), kernel)


class _HalvedConvolution(keras.layers.Conv2D):
    def call(self, inputs):
        return super().call(inputs) / 2


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.GlobalAveragePooling2D(), _CosineDense(4)],
        [_HalvedConvolution(4, 3), keras.layers.GlobalAveragePooling2D()],
        [keras.layers.GlobalAveragePooling2D(keepdims=True)],
        [keras.layers.GlobalMaxPooling2D(keepdims=True)],
        [keras.layers.GlobalAveragePooling2D(), keras.layers.Softmax(), keras.layers.Dense(2)],
    ],
    ids=["dense", "convolution", "mean", "maximum", "softmax"],
)
def test_what_only_resembles_a_known_layer_is_taken_as_it_is(layers):
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    graph = build_deploy_graph(model)
    assert "not folded" in graph.note
    x = images()[:, :8, :8]
    np.testing.assert_allclose(graph(x), model(x), atol=1e-5)


def test_an_output_in_a_dictionary():
    image = keras.Input((None, None, 3))
    network = make(include_top=False, pooling="avg", classes=None)
    model = keras.Model(image, {"a": keras.layers.Dense(2, activation="softmax")(network(image))})
    np.testing.assert_allclose(build_deploy_graph(model)(images()), model(images())["a"], atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "classes", "decisions"),
    [("softmax", 4, False), ("sigmoid", 4, True), ("sigmoid", 1, True), (None, 1, True)],
)
def test_outputs_that_decide_on_their_own(activation, classes, decisions):
    graph = build_deploy_graph(make(classes=classes, classifier_activation=activation))
    assert graph.has_decisions is decisions


def test_normalization_within_a_model_cannot_be_left_out():
    image = keras.Input((8, 8, 3))
    network = make(include_top=False, pooling="avg", classes=None)
    x = keras.layers.Rescaling(255.0)(image)
    graph = build_deploy_graph(keras.Model(image, keras.layers.Dense(2)(network(x))))
    assert graph.inner_normalization[0].startswith("rescaling")
    with pytest.raises(UsageError, match="--nopreprocessing: .* it is layer 'rescaling"):
        graph.without_normalization()
    (note,) = graph.notes
    assert "not folded" in note


def test_normalization_by_an_operation_cannot_be_left_out():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3)(keras.layers.Lambda(lambda pixels: pixels / 127.5 - 1)(image))
    graph = build_deploy_graph(keras.Model(image, x))
    with pytest.raises(UsageError, match="--nopreprocessing: .* it is not known"):
        graph.without_normalization()


def test_a_network_without_normalization_says_so():
    graph = build_deploy_graph(make(include_preprocessing=False))
    (note,) = graph.notes
    assert "no layer that normalises" in note
    assert build_deploy_graph(make()).notes == []


def test_layers_beside_the_chain_are_not_left_out():
    inputs = keras.Input((8, 8, 3))
    double = keras.layers.Conv2D(3, 3, padding="same")
    twice = keras.Model(inputs, double(double(inputs)))
    graph = build_deploy_graph(twice)
    assert "batch norms not folded" in graph.note
    x = images()[:, :8, :8]
    np.testing.assert_allclose(graph(x), twice(x), atol=1e-4)


def test_a_foreign_mixed_precision_model_becomes_float32():
    policy = keras.mixed_precision.Policy("mixed_bfloat16")
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, dtype=policy)(inputs)
    x = keras.layers.Flatten(dtype=policy)(x)
    model = keras.Model(inputs, keras.layers.Dense(5, dtype="float32")(x))
    graph = build_deploy_graph(model)
    operations = graph.function().get_concrete_function().graph.get_operations()
    assert all(o.dtype != tf.bfloat16 for op in operations for o in op.outputs)
    assert graph.output_name == "outputs"


def test_errors_name_what_is_wrong():
    with pytest.raises(UsageError, match=r"expected one input \(batch, height, width, channels\)"):
        build_deploy_graph(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    inputs = keras.Input((8, 8, 3))
    two = keras.Model(inputs, [keras.layers.Flatten()(inputs), keras.layers.Flatten()(inputs)])
    with pytest.raises(UsageError, match="expected one output, received 2"):
        build_deploy_graph(two)


def test_unknown_layers_are_named():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.UpSampling2D(name="up")])
    with pytest.raises(NotFoldable, match="layer 'up' is a UpSampling2D"):
        fold(layers_in_order(model))
    dilated = keras.layers.Conv2D(2, 3, dilation_rate=2, name="dilated")
    dilated.build((None, 8, 8, 3))
    with pytest.raises(NotFoldable, match="'dilated' is dilated"):
        fold([dilated])


def test_kernels_of_1x1_are_convolutions():
    graph = build_deploy_graph(make())
    head = [step for step in graph.steps if isinstance(step, Convolution)][-1]
    assert head.kernel.shape == (1, 1, 24, 32)
    assert head.activation == "silu"


def settle_statistics(model: keras.Model, batch: np.ndarray) -> None:
    """Moves batch-norm statistics to what the weights give, as training would.

    With made-up statistics a deep network is chaotic: its logits reach millions, and the same
    network differs from itself between batch sizes.
    """
    norms = [x for x in keras_compat.flatten_layers(model) if isinstance(x, BatchNorm)]
    for norm in norms:
        norm.momentum = 0.1
    for _ in range(4):
        model(batch, training=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [EFFICIENTNETV2_B0, EFFICIENTNETV2_S, EFFICIENTNET_B0, EFFICIENTNET_LITE0],
    ids=lambda s: s.name,
)
def test_whole_families(spec):
    model = make(spec, classes=1000, drop_path_rate=0.0, dropout_rate=0.0)
    settle_statistics(model, images(batch=8, size=96))
    x = images(batch=1, size=96)
    np.testing.assert_allclose(build_deploy_graph(model).logits(x), model(x), atol=1e-4)
