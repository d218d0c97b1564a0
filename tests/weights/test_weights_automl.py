"""Checkpoints in the naming and layout of google/automl and tensorflow/tpu."""

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.families import SPECS
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import IMAGENET_STATISTICS, NetworkSpec, Preprocessing, StageSpec
from effnetv2_tf.weights import load_weights
from effnetv2_tf.weights.variants import variable_shapes

AVERAGE = "/ExponentialMovingAverage"
# Every form of block that the reference has: fused and not, with and without expansion.
SPEC = NetworkSpec(
    name="mini",
    stages=(
        StageSpec("fused", 3, 1, 1, 8, 2),
        StageSpec("fused", 3, 2, 4, 16, 1),
        StageSpec("mbconv", 3, 2, 1, 16, 1, 0.25),
        StageSpec("mbconv", 5, 1, 6, 16, 1, 0.25),
        StageSpec("mbconv", 3, 2, 6, 24, 1),
    ),
    stem_filters=8,
    head_filters=32,
)
# The reference's names, spelt out: our layer to theirs.
LAYERS = {
    "stem": "stem/conv2d",
    "stem_norm": "stem/tpu_batch_normalization",
    "stage1_block1/fused": "blocks_0/conv2d",
    "stage1_block1/fused_norm": "blocks_0/tpu_batch_normalization",
    "stage1_block2/fused": "blocks_1/conv2d",
    "stage1_block2/fused_norm": "blocks_1/tpu_batch_normalization",
    "stage2_block1/fused": "blocks_2/conv2d",
    "stage2_block1/fused_norm": "blocks_2/tpu_batch_normalization",
    "stage2_block1/project": "blocks_2/conv2d_1",
    "stage2_block1/project_norm": "blocks_2/tpu_batch_normalization_1",
    "stage3_block1/depthwise": "blocks_3/depthwise_conv2d",
    "stage3_block1/depthwise_norm": "blocks_3/tpu_batch_normalization",
    "stage3_block1/squeeze_excite/reduce": "blocks_3/se/conv2d",
    "stage3_block1/squeeze_excite/expand": "blocks_3/se/conv2d_1",
    "stage3_block1/project": "blocks_3/conv2d",
    "stage3_block1/project_norm": "blocks_3/tpu_batch_normalization_1",
    "stage4_block1/expand": "blocks_4/conv2d",
    "stage4_block1/expand_norm": "blocks_4/tpu_batch_normalization",
    "stage4_block1/depthwise": "blocks_4/depthwise_conv2d",
    "stage4_block1/depthwise_norm": "blocks_4/tpu_batch_normalization_1",
    "stage4_block1/squeeze_excite/reduce": "blocks_4/se/conv2d",
    "stage4_block1/squeeze_excite/expand": "blocks_4/se/conv2d_1",
    "stage4_block1/project": "blocks_4/conv2d_1",
    "stage4_block1/project_norm": "blocks_4/tpu_batch_normalization_2",
    "stage5_block1/expand": "blocks_5/conv2d",
    "stage5_block1/expand_norm": "blocks_5/tpu_batch_normalization",
    "stage5_block1/depthwise": "blocks_5/depthwise_conv2d",
    "stage5_block1/depthwise_norm": "blocks_5/tpu_batch_normalization_1",
    "stage5_block1/project": "blocks_5/conv2d_1",
    "stage5_block1/project_norm": "blocks_5/tpu_batch_normalization_2",
    "head": "head/conv2d",
    "head_norm": "head/tpu_batch_normalization",
    "classifier": "head/dense",
}


def reference_name(path):
    layer, variable = path.rsplit("/", 1)
    variable = "depthwise_kernel" if layer.endswith("/depthwise") else variable
    return f"efficientnetv2-s/{LAYERS[layer]}/{variable}"


def save(prefix, tensors):
    """Writes a checkpoint by variables' names, as tf.compat.v1.train.Saver does."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )
    single = prefix.with_name(prefix.name + ".data-00000-of-00001")
    assert single.is_file() and prefix.with_name(prefix.name + ".index").is_file()
    return prefix


def training_checkpoint(values, averages=True):
    """Weights, their moving averages, the optimizer's slots and the step, as after training."""
    tensors = {"global_step": np.int64(109474)}
    for path, value in values.items():
        name = reference_name(path)
        tensors[name] = value + 1 if averages else value
        if averages:
            tensors[name + AVERAGE] = value
        if not name.endswith(("moving_mean", "moving_variance")):
            for slot in ("RMSProp", "RMSProp_1", "Momentum"):
                tensors[f"{name}/{slot}"] = np.full_like(value, 7)
    return tensors


def network(**arguments):
    return build_network(SPEC, **{"classes": 5, "classifier_activation": None, **arguments})


@pytest.fixture
def trained(randomize):
    return randomize(network())


@pytest.fixture
def checkpoint(trained, values, tmp_path):
    return save(tmp_path / "run" / "model.ckpt-109474", training_checkpoint(values(trained)))


def test_the_names_cover_the_network():
    assert {path.rsplit("/", 1)[0] for path in variable_shapes(SPEC)} == LAYERS.keys()


@pytest.mark.parametrize(
    "given",
    ["model.ckpt-109474", "model.ckpt-109474.index", "model.ckpt-109474.data-00000-of-00001", ""],
    ids=["prefix", "index", "data", "folder"],
)
def test_moving_averages_are_loaded(given, checkpoint, trained, values, images):
    model = network()
    report = load_weights(model, checkpoint.parent / given)
    expected, loaded = values(trained), values(model)
    for path, value in expected.items():
        np.testing.assert_array_equal(loaded[path], value, err_msg=path)
    batch = images(64)
    np.testing.assert_allclose(model(batch), trained(batch), rtol=1e-6)

    rows = {row.path: row for row in report if row.path}
    assert rows["stage4_block1/depthwise/kernel"].tensor == (
        "efficientnetv2-s/blocks_4/depthwise_conv2d/depthwise_kernel" + AVERAGE
    )
    assert report.count("loaded") == len(expected) == len(model.weights)


def test_every_tensor_of_the_checkpoint_has_a_row(checkpoint, trained, values):
    report = load_weights(network(), checkpoint)
    reasons = {row.tensor: row.reason for row in report}
    assert reasons.keys() == training_checkpoint(values(trained)).keys()
    kernel = "efficientnetv2-s/blocks_0/conv2d/kernel"
    assert reasons[kernel] == "its moving average is taken (ema=True)"
    assert reasons[f"{kernel}/RMSProp_1"] == "the optimizer's RMSProp_1"
    assert reasons["global_step"] == "state of the training, no variable of the network"
    assert reasons[kernel + AVERAGE] == ""


def test_raw_weights_on_request(checkpoint, trained, values):
    model = network()
    report = load_weights(model, checkpoint, ema=False)
    loaded = values(model)
    for path, value in values(trained).items():
        np.testing.assert_array_equal(loaded[path], value + 1, err_msg=path)
    reasons = {row.tensor: row.reason for row in report}
    name = "efficientnetv2-s/head/dense/bias" + AVERAGE
    assert reasons[name] == "the raw weight is taken (ema=False)"


def test_a_checkpoint_without_averages_gives_its_weights(trained, values, tmp_path):
    path = save(tmp_path / "model.ckpt", training_checkpoint(values(trained), averages=False))
    model = network()
    load_weights(model, path)
    for name, value in values(trained).items():
        np.testing.assert_array_equal(values(model)[name], value, err_msg=name)


def test_a_checkpoint_of_v1(values, randomize, tmp_path, images):
    """tensorflow/tpu's names for EfficientNet-B0, whose block 1 has no expansion."""
    spec = SPECS["efficientnet-b0"]
    trained = randomize(build_network(spec, classes=3, classifier_activation=None))
    tensors = {}
    for path, value in values(trained).items():
        layer, variable = path.rsplit("/", 1)
        outer, _, inner = layer.partition("/")
        if not inner:
            name = LAYERS[layer]
        else:
            number = [p.name for p in trained.layers if p.name.startswith("stage")].index(outer)
            model_block = "stage3_block1" if number == 0 else "stage4_block1"
            name = LAYERS[f"{model_block}/{inner}"].replace(
                "blocks_3" if number == 0 else "blocks_4", f"blocks_{number}"
            )
        variable = "depthwise_kernel" if inner == "depthwise" else variable
        tensors[f"efficientnet-b0/{name}/{variable}"] = value
    assert "efficientnet-b0/blocks_15/se/conv2d_1/bias" in tensors
    path = save(tmp_path / "efficientnet-b0" / "model.ckpt", tensors)
    model = build_network(spec, classes=3, classifier_activation=None)
    report = load_weights(model, path)
    assert report.preprocessing is IMAGENET_STATISTICS
    np.testing.assert_allclose(model(images(64)), trained(images(64)), rtol=1e-6)


def test_other_preprocessing_on_request(checkpoint):
    """AdvProp's checkpoints were trained with other pixels than the checkpoint's names say."""
    model = network()
    advprop = Preprocessing(mean=(127.5,), std=(127.5,))
    report = load_weights(model, checkpoint, preprocessing=advprop)
    assert model.get_layer("normalization").mean == (127.5,)
    assert report.preprocessing == advprop


def test_the_head_of_21k_says_how_to_build_the_network(values, randomize, tmp_path):
    large = randomize(network(classes=21843))
    path = save(tmp_path / "model.ckpt", training_checkpoint(values(large)))
    with pytest.raises(UsageError, match=r"\(32, 21843\).*Pass classes=21843 or include_top=False"):
        load_weights(network(), path)
    load_weights(network(classes=21843), path)
    load_weights(network(include_top=False), path)


def test_a_network_without_top_leaves_the_classifier_out(checkpoint, trained, values):
    model = network(include_top=False)
    report = load_weights(model, checkpoint)
    reasons = {row.tensor: row.reason for row in report}
    name = "efficientnetv2-s/head/dense/kernel" + AVERAGE
    assert reasons[name] == "the model has no classifier (include_top=False)"
    np.testing.assert_array_equal(values(model)["head/kernel"], values(trained)["head/kernel"])


def test_another_variant_is_refused_and_nothing_changes(checkpoint, values, tiny_network):
    model = tiny_network(classes=5)
    before = values(model)
    with pytest.raises(UsageError, match=r"tensor 'efficientnetv2-s/blocks_"):
        load_weights(model, checkpoint)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


def test_the_variant_of_a_checkpoint_is_named(tmp_path):
    spec = SPECS["efficientnet-b0"]
    shapes = variable_shapes(spec, 10)
    tensors = {f"efficientnet-b0/{n}": np.zeros(s, "f") for n, s in shapes.items()}
    tensors["efficientnet-b0/stem/conv2d/kernel"] = tensors.pop("efficientnet-b0/stem/kernel")
    path = save(tmp_path / "model.ckpt", tensors)
    with pytest.raises(UsageError, match="those of 'efficientnet-b0': build that network"):
        load_weights(network(), path)


def test_a_missing_tensor_is_an_error(trained, values, tmp_path):
    tensors = training_checkpoint(values(trained), averages=False)
    del tensors["efficientnetv2-s/blocks_4/se/conv2d/bias"]
    path = save(tmp_path / "model.ckpt", tensors)
    with pytest.raises(
        UsageError, match=r"'efficientnetv2-s/blocks_4/se/conv2d/bias' is not in it"
    ):
        load_weights(network(), path)


def test_an_unknown_tensor_is_an_error(trained, values, tmp_path):
    tensors = training_checkpoint(values(trained))
    tensors["efficientnetv2-s/blocks_6/conv2d/kernel"] = np.zeros((1, 1, 2, 2), "f")
    path = save(tmp_path / "model.ckpt", tensors)
    with pytest.raises(UsageError, match=r"no variable for tensor '.*/blocks_6/conv2d/kernel'"):
        load_weights(network(), path)


def test_a_checkpoint_of_objects_is_refused_by_name(tmp_path):
    saved = tf.train.Checkpoint(step=tf.Variable(1)).write(str(tmp_path / "objects"))
    with pytest.raises(UsageError, match="names objects rather than variables"):
        load_weights(network(), saved)


def test_another_networks_checkpoint_is_refused(tmp_path):
    path = save(tmp_path / "model.ckpt", {"resnet/conv1/kernel": np.zeros((3, 3), "f")})
    with pytest.raises(UsageError, match=r"no EfficientNet of google/automl.*resnet/conv1/kernel"):
        load_weights(network(), path)


@pytest.mark.parametrize("part", [".index", ".data-00000-of-00001"])
def test_a_truncated_checkpoint_is_refused(part, checkpoint, values):
    file = checkpoint.with_name(checkpoint.name + part)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    model = network()
    before = values(model)
    with pytest.raises(UsageError, match=r"model\.ckpt-109474.*truncated or damaged"):
        load_weights(model, checkpoint)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


def test_a_folder_with_several_checkpoints_must_say_which(checkpoint, trained, values):
    save(checkpoint.with_name("model.ckpt-200000"), training_checkpoint(values(trained)))
    with pytest.raises(UsageError, match=r"has 2 checkpoints.*model\.ckpt-200000"):
        load_weights(network(), checkpoint.parent)
    record = checkpoint.with_name("checkpoint")
    record.write_text('model_checkpoint_path: "model.ckpt-109474"\n')
    report = load_weights(network(), checkpoint.parent)
    assert report.path.endswith("model.ckpt-109474")
