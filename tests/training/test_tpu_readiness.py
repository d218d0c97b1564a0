"""What a TPU asks of the training step, tested without one: XLA, static shapes, bfloat16.

No network was trained on a TPU. XLA compiles for the CPU here, through the same bridge.
"""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import ProgressiveLearning
from effnetv2_tf.data.pipeline import Augmentation, TrainingPipeline
from effnetv2_tf.data.sources import ArraySource
from effnetv2_tf.models import families
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import StageSpec
from effnetv2_tf.training import optimizers
from effnetv2_tf.training.ema import ExponentialMovingAverage

CLASSES, BATCH = 4, 4

# Every form of block of the family, at a width and depth that compile in seconds.
V2_STAGES = (
    StageSpec("fused", 3, 1, 1, 8, 1),
    StageSpec("fused", 3, 2, 2, 8, 2),
    StageSpec("mbconv", 3, 2, 2, 16, 2, 0.25),
)
V1_STAGES = (StageSpec("mbconv", 3, 1, 1, 8, 1, 0.25), StageSpec("mbconv", 5, 2, 2, 8, 2, 0.25))
LITE_STAGES = (StageSpec("mbconv", 3, 1, 1, 8, 1), StageSpec("mbconv", 5, 2, 2, 8, 2))
SMALL = {"stem_filters": 8, "head_filters": 16, "drop_path_rate": 0.1, "dropout_rate": 0.1}
SPECS = {
    "V2-B0": replace(families.EFFICIENTNETV2_B0, stages=V2_STAGES, **SMALL),
    "V2-S": replace(families.EFFICIENTNETV2_S, stages=V2_STAGES, **SMALL),
    "V1-B0": replace(families.EFFICIENTNET_B0, stages=V1_STAGES, **SMALL),
    "V1-B0 symmetric": replace(
        families.EFFICIENTNET_B0, stages=V1_STAGES, padding="symmetric", **SMALL
    ),
    "Lite0": replace(families.EFFICIENTNET_LITE0, stages=LITE_STAGES, **SMALL),
}
HOST_ONLY = {
    "EagerPyFunc",
    "IteratorGetNext",
    "PrintV2",
    "PyFunc",
    "PyFuncStateless",
    "ReadFile",
    "StringFormat",
    "WriteFile",
    "WriteScalarSummary",
    "WriteSummary",
}


def _model(spec, optimizer=None, **arguments):
    model = build_network(spec, classes=CLASSES, input_shape=(None, None, 3), **arguments)
    model.compile(
        optimizer or optimizers.RMSProp(0.01, l2=1e-5),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _batch(size, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.uniform(0, 255, (BATCH, size, size, 3)).astype("float32")
    labels = np.eye(CLASSES, dtype="float32")[np.arange(BATCH) % CLASSES]
    return tf.constant(images), tf.constant(labels)


def _step(model, jit_compile):
    """The training step as a function of a batch of static shape."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(images, labels):
        return model.train_step((images, labels))

    return step


def _all_operations(concrete):
    """The types of all operations of a function and of those that it calls."""
    graph = concrete.graph.as_graph_def()
    nodes = [*graph.node, *(n for function in graph.library.function for n in function.node_def)]
    return {node.op for node in nodes}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", SPECS)
def test_the_step_compiles_at_every_stages_size(name, precision):
    keras.mixed_precision.set_global_policy(precision)
    model = _model(SPECS[name])
    step = _step(model, jit_compile=True)
    for size in (32, 48):
        losses = [float(step(*_batch(size))["loss"]) for _ in range(2)]
        assert np.isfinite(losses).all(), (size, losses)
    assert step.experimental_get_tracing_count() == 2  # one for every size
    assert int(model.optimizer.iterations) == 4
    for weight in model.weights:
        assert np.isfinite(np.asarray(weight)).all(), weight.name
        assert weight.dtype in ("float32", tf.float32), weight.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["V2-B0", "V1-B0", "Lite0"])
def test_the_compiled_step_computes_the_same(name):
    """Loss, weights and batch-norm statistics after three steps; without random drops."""
    spec = replace(SPECS[name], drop_path_rate=0.0, dropout_rate=0.0)
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(1)
        model = _model(spec)
        step = _step(model, jit_compile)
        losses = [float(step(*_batch(32, seed))["loss"]) for seed in range(3)]
        results.append((losses, model.get_weights()))
    (losses, weights), (compiled_losses, compiled_weights) = results
    assert compiled_losses == pytest.approx(losses, rel=1e-3)
    for weight, compiled in zip(weights, compiled_weights, strict=True):
        np.testing.assert_allclose(compiled, weight, rtol=2e-2, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["RMSProp", "SGD", "AdamW"])
def test_every_optimizer_compiles(kind):
    model = _model(SPECS["V2-B0"], getattr(optimizers, kind)(0.01, l2=1e-5))
    assert np.isfinite(float(_step(model, jit_compile=True)(*_batch(32))["loss"]))


@pytest.mark.slow
def test_the_averages_compile():
    model = _model(SPECS["V2-B0"])
    ema = ExponentialMovingAverage(0.9)
    ema.build(model)
    before = [average.numpy() for average in ema.averages]
    _step(model, jit_compile=False)(*_batch(32))
    tf.function(ema._update_replica, jit_compile=True, autograph=False)(tf.constant(0.9))
    share = 1 - 2 / 11  # of the weights after step 1: d = (1 + 1) / (10 + 1)
    for average, old, weight in zip(ema.averages, before, model.get_weights(), strict=True):
        np.testing.assert_allclose(average.numpy(), old + share * (weight - old), atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", SPECS)
def test_nothing_in_the_step_needs_the_host(name, precision, without_kernels):
    keras.mixed_precision.set_global_policy(precision)
    step = _step(_model(SPECS[name]), jit_compile=False)
    operations = _all_operations(step.get_concrete_function(*_batch(32)))
    assert not operations & HOST_ONLY
    assert "ResourceApplyRMSProp" in operations  # the walk sees the step


def test_the_walk_finds_host_operations():
    @tf.function
    def nested(x):
        return tf.cond(x > 0, lambda: tf.numpy_function(lambda v: v, [x], tf.float32), lambda: x)

    operations = _all_operations(nested.get_concrete_function(tf.constant(1.0)))
    assert operations & HOST_ONLY == {"PyFunc"}


@pytest.mark.parametrize("policy", ["none", "randaugment", "autoaugment", "cutout"])
@pytest.mark.parametrize("crop", ["none", "pad", "random_resized"])
def test_the_pipelines_shapes_are_static(make_schedule, ends, policy, crop):
    source = ArraySource(np.zeros((12, 10, 10, 3), np.uint8), np.arange(12) % CLASSES)
    magnitudes = ends(randaugment_magnitude=(5, 15), mixup_alpha=(0, 0.2), cutmix_alpha=(0, 1))
    pipeline = TrainingPipeline(source, Augmentation(crop=crop, policy=policy))
    context = tf.distribute.InputContext(2, 1, 4)
    for stage in make_schedule(**magnitudes).stages:
        size = stage.image_size
        for batch, arguments in ((4, ()), (1, (context,))):
            images, labels = pipeline(stage, stage.first_step, *arguments).element_spec
            assert images.shape.as_list() == [batch, size, size, 3]
            assert labels.shape.as_list() == [batch, CLASSES]


def test_static_batches_reach_the_model_under_xla(make_schedule, batches, monkeypatch):
    """On TPUs and with `jit_compile` the callback leaves the sizes in the type."""

    def static(stage):
        return batches(stage).unbatch().batch(stage.batch_size, drop_remainder=True)

    progressive = ProgressiveLearning(make_schedule(), static)
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.GlobalMaxPooling2D()])
    model.compile("sgd", "mse", jit_compile=True)
    progressive.set_model(model)
    stage = make_schedule().stages[0]
    progressive.next_step = 0
    images, _ = progressive._batches(stage, None).element_spec
    assert images.shape.as_list() == [4, 8, 8, 1]
    model.compile("sgd", "mse", jit_compile=False)
    images, _ = progressive._batches(stage, None).element_spec
    assert images.shape.as_list() == [4, None, None, 1]
