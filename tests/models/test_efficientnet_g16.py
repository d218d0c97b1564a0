"""Group convolutions and norms within networks: parameter tables, independence, errors."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import effnetv2_tf
from effnetv2_tf import (
    NetworkSpec,
    StageSpec,
    build_network,
    load_weights,
    with_group_size,
)
from effnetv2_tf.errors import UsageError
from effnetv2_tf.keras_compat import flatten_layers, tf_variable, variable_path
from effnetv2_tf.models import families
from effnetv2_tf.models.flops import stage_table
from effnetv2_tf.models.layers import ProxyNorm
from effnetv2_tf.models.stage_costs import spec_stages, totals
from effnetv2_tf.weights.variants import spec_of, variable_shapes

# Parameters of G16 and of G1 (EfficientNet V1) in millions, with group or layer norm: Masters
# et al., arXiv 2106.03640. Multiply-adds of both in 1e9.
MILLIONS = {
    0: (5.914, 5.289),
    1: (8.332, 7.794),
    2: (9.504, 9.110),
    3: (12.591, 12.233),
    4: (19.328, 19.342),
    5: (28.715, 30.390),
}
MULTIPLY_ADDS = {0: (0.635, 0.386), 5: (13.50, 10.27)}

GROUPED = NetworkSpec(
    name="grouped",
    stages=(
        StageSpec("mbconv", 3, 1, 1, 16, 1, 0.25),
        StageSpec("fused", 3, 2, 4, 24, 2),
        StageSpec("mbconv", 5, 2, 4, 40, 2, 0.25),
    ),
    stem_filters=32,
    head_filters=48,
    dropout_rate=0.0,
    drop_path_rate=0.0,
    group_size=16,
)
NORMS = {
    "batch": {},
    "group": {"normalization": "group"},
    "layer": {"normalization": "layer"},
    "group-pn": {"normalization": "group", "proxy_normalization": True},
    "layer-pn": {"normalization": "layer", "proxy_normalization": True},
}
PER_IMAGE = [name for name in NORMS if name != "batch"]


def _images(count=3, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, 24, 32, 3)).astype("float32")


def _network(norm="layer-pn", **arguments):
    return build_network(replace(GROUPED, **NORMS[norm]), **{"classes": 4, **arguments})


@pytest.mark.parametrize("variant", MILLIONS)
def test_the_papers_parameter_counts(variant):
    base = getattr(families, f"EFFICIENTNET_B{variant}")
    grouped = with_group_size(base, group_size=16, expansion=4)
    for spec, expected in zip((grouped, base), MILLIONS[variant], strict=True):
        count, _ = totals(spec_stages(replace(spec, normalization="layer")))
        assert round(count / 1e6, 3) == expected, spec.name


@pytest.mark.parametrize("variant", MULTIPLY_ADDS)
def test_the_papers_multiply_adds(variant):
    base = getattr(families, f"EFFICIENTNET_B{variant}")
    specs = with_group_size(base), base
    for spec, expected in zip(specs, MULTIPLY_ADDS[variant], strict=True):
        _, count = totals(spec_stages(spec))
        assert count / 1e9 == pytest.approx(expected, abs=0.5 * 10 ** (-2 if variant else -3))


@pytest.mark.parametrize(
    ("options", "parameters"),
    [({}, 5_938_484), ({"proxy_normalization": False}, 5_913_796)],
)
def test_the_built_b0(options, parameters):
    model = effnetv2_tf.EfficientNetB0G16(**options)
    assert model.name == "efficientnet-b0-g16"
    assert model.count_params() == parameters
    spec = replace(families.EFFICIENTNET_B0_G16, **options)
    assert stage_table(model, 224) == spec_stages(spec, 224)


def test_constructors_build_their_rows():
    for variant in range(6):
        row = getattr(families, f"EFFICIENTNET_B{variant}_G16")
        assert (row.group_size, row.normalization, row.proxy_normalization) == (16, "layer", True)
        assert [stage.expansion for stage in row.stages] == [1, 4, 4, 4, 4, 4, 4]
        base = getattr(families, f"EFFICIENTNET_B{variant}")
        assert (row.width, row.depth, row.eval_size) == (base.width, base.depth, base.eval_size)
        assert callable(getattr(effnetv2_tf, f"EfficientNetB{variant}G16"))


@pytest.mark.parametrize("normalization", [None, "layer", "group", "batch"])
def test_a_constructor_with_any_norm(normalization):
    model = effnetv2_tf.EfficientNetB0G16(
        normalization=normalization, include_top=False, input_shape=(32, 32, 3)
    )
    is_proxied = any(isinstance(layer, ProxyNorm) for layer in flatten_layers(model))
    assert is_proxied == (normalization != "batch")


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "efficientnetv2-s", "efficientnet-b6"])
@pytest.mark.parametrize("group_size", [8, 16])
def test_every_spec_can_have_groups(name, group_size):
    base = families.SPECS[name]
    spec = with_group_size(base, group_size, expansion=4)
    assert spec.name == f"{name}-g{group_size}"
    assert {stage.expansion for stage in spec.stages} == {1, 4}
    assert base.group_size is None
    parameters, _ = totals(spec_stages(spec))
    shapes = variable_shapes(spec)
    assert parameters == sum(int(np.prod(shape)) for shape in shapes.values())
    grouped = {p: s for p, s in shapes.items() if p.endswith("group_conv/kernel")}
    assert grouped and not [path for path in shapes if "depthwise" in path]
    assert all(inputs >= min(group_size, filters) for _, _, inputs, filters in grouped.values())


@pytest.mark.parametrize("norm", NORMS)
def test_paths_and_costs_are_those_of_the_built_network(norm):
    spec = replace(GROUPED, **NORMS[norm])
    model = build_network(spec)
    built = {variable_path(v): tuple(v.shape) for v in model.weights}
    assert built == variable_shapes(spec)
    assert stage_table(model, 64) == spec_stages(spec, 64)
    assert variable_shapes(spec_of(model)) == built
    assert ("stage3_block1/project_norm/beta" in built) == (not spec.proxy_normalization)


@pytest.mark.parametrize("norm", PER_IMAGE)
def test_an_image_does_not_depend_on_its_batch_in_training(norm):
    model = _network(norm, classifier_activation=None)
    first, other = _images(), _images(seed=1)
    other[1] = first[1]
    found = [model(images, training=True).numpy() for images in (first, other)]
    assert not np.array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_with_batch_norm_it_does():
    """So that the test above could fail."""
    model = _network("batch", classifier_activation=None)
    first, other = _images(), _images(seed=1)
    other[1] = first[1]
    found = [model(images, training=True).numpy()[1] for images in (first, other)]
    assert not np.allclose(*found, atol=1e-3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_every_variable_gets_a_gradient(norm, precision):
    keras.mixed_precision.set_global_policy(precision)
    model = _network(norm)
    with tf.GradientTape() as tape:
        outputs = model(_images(4), training=True)
        loss = -tf.reduce_sum(tf.math.log(outputs) * tf.eye(4))
    assert outputs.dtype == tf.float32
    variables = [tf_variable(v) for v in model.trainable_weights]
    for variable, gradient in zip(
        model.trainable_weights, tape.gradient(loss, variables), strict=True
    ):
        path = variable_path(variable)
        assert gradient is not None, path
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path


def test_a_saved_network_computes_the_same(tmp_path):
    model = _network("group-pn")
    for weight in model.weights:
        noise = np.random.default_rng(len(weight.shape)).normal(0, 0.1, weight.shape)
        weight.assign(weight.numpy() + noise.astype("f"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(_images()), model(_images()))
    assert loaded.get_layer("stage3_block1").group_size == 16


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras"])
def test_weights_files_are_read(norm, name, tmp_path):
    spec = replace(GROUPED, **NORMS[norm])
    model, other = _network(norm), _network(norm)
    for number, weight in enumerate(model.weights):
        noise = np.random.default_rng(number).uniform(0, 0.1, weight.shape)
        weight.assign(weight.numpy() + noise.astype("f"))
    save = model.save if name.endswith(".keras") else model.save_weights
    save(tmp_path / name)
    assert load_weights(other, tmp_path / name, spec=spec) is not None
    for ours, theirs in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=variable_path(ours))


def test_weights_of_a_network_with_other_norms_are_refused(tmp_path):
    _network("batch").save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(UsageError, match="group_norm"):
        load_weights(_network("layer"), tmp_path / "a.weights.h5")


@pytest.mark.parametrize("norm", NORMS)
def test_a_file_that_does_not_name_the_norms_is_noted(norm, tmp_path):
    """Group and layer norms have the same tensors."""
    model = _network(norm)
    for name in ("a.keras", "a.weights.h5"):
        (model.save if name == "a.keras" else model.save_weights)(tmp_path / name)
        report = load_weights(_network(norm), tmp_path / name)
        told = [note for note in report.notes if "does not say" in note]
        assert len(told) == (name == "a.weights.h5" and norm != "batch")
        assert all(repr(norm.removesuffix("-pn")) in note for note in told)


def test_symmetric_padding():
    spec = replace(GROUPED, padding="symmetric")
    ours, same = build_network(spec, classes=4), build_network(GROUPED, classes=4)
    same.set_weights(ours.get_weights())
    odd = _images()[:, :, :25][:, :17]  # odd sides down to the last stage: 17, 9, 5, 3
    np.testing.assert_allclose(ours(odd), same(odd), atol=1e-5)
    assert not np.allclose(ours(_images()), same(_images()), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 0}, "`group_size` must be a positive integer. Received: 0"),
        ({"group_size": 2.5}, "`group_size` must be a positive integer. Received: 2.5"),
        ({"normalization_groups": 0}, "`normalization_groups` must be a positive integer"),
        ({"normalization": "instance"}, r"\('batch', 'group', 'layer'\)\. Received: 'instance'"),
        ({"proxy_normalization": True}, "'layer' or 'group' with it. Received: 'batch'"),
        (
            {"proxy_normalization": True, "normalization": "layer", "activation": "linear"},
            "`proxy_normalization` needs an `activation`.*'linear'",
        ),
    ],
)
def test_specs_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        replace(GROUPED, **options)


def test_norm_groups_that_do_not_divide():
    spec = replace(GROUPED, normalization="group", normalization_groups=5)
    with pytest.raises(ValueError, match=r"'stem_norm'.*groups=5, 32 channels\. Possible: 1, 2"):
        build_network(spec)
