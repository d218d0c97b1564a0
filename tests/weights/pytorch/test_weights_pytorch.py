"""State dicts in the namings and layouts of timm, torchvision and efficientnet-pytorch."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.families import EFFICIENTNETV2_S, SPECS
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import NetworkSpec, StageSpec
from effnetv2_tf.weights import pytorch
from effnetv2_tf.weights.mapping import load_tensors
from effnetv2_tf.weights.pytorch_names import (
    EFFICIENTNET_PYTORCH,
    TIMM,
    TORCHVISION,
    NoSuchNetwork,
    network_origins,
)
from effnetv2_tf.weights.variants import variable_shapes

V2 = NetworkSpec(
    name="v2",
    stages=(
        StageSpec("fused", 3, 1, 1, 8, 1),
        StageSpec("fused", 3, 2, 2, 8, 2),
        StageSpec("mbconv", 3, 2, 2, 16, 1, 0.25),
    ),
    stem_filters=8,
    head_filters=24,
)
V1 = NetworkSpec(
    name="v1",
    stages=(StageSpec("mbconv", 3, 1, 1, 8, 1, 0.25), StageSpec("mbconv", 5, 2, 2, 16, 2, 0.25)),
    stem_filters=8,
    head_filters=24,
)
LITE = replace(
    V1,
    name="lite",
    activation="relu6",
    stages=tuple(replace(stage, se_ratio=0.0) for stage in V1.stages),
)

# Our layers and the modules they are in there, written from the module trees of the packages.
TIMM_ENDS = {
    "stem": "conv_stem",
    "stem_norm": "bn1",
    "head": "conv_head",
    "head_norm": "bn2",
    "classifier": "classifier",
}
TIMM_V2 = TIMM_ENDS | {
    "stage1_block1/fused": "blocks.0.0.conv",
    "stage1_block1/fused_norm": "blocks.0.0.bn1",
    "stage2_block1/fused": "blocks.1.0.conv_exp",
    "stage2_block1/fused_norm": "blocks.1.0.bn1",
    "stage2_block1/project": "blocks.1.0.conv_pwl",
    "stage2_block1/project_norm": "blocks.1.0.bn2",
    "stage2_block2/fused": "blocks.1.1.conv_exp",
    "stage2_block2/fused_norm": "blocks.1.1.bn1",
    "stage2_block2/project": "blocks.1.1.conv_pwl",
    "stage2_block2/project_norm": "blocks.1.1.bn2",
    "stage3_block1/expand": "blocks.2.0.conv_pw",
    "stage3_block1/expand_norm": "blocks.2.0.bn1",
    "stage3_block1/depthwise": "blocks.2.0.conv_dw",
    "stage3_block1/depthwise_norm": "blocks.2.0.bn2",
    "stage3_block1/squeeze_excite/reduce": "blocks.2.0.se.conv_reduce",
    "stage3_block1/squeeze_excite/expand": "blocks.2.0.se.conv_expand",
    "stage3_block1/project": "blocks.2.0.conv_pwl",
    "stage3_block1/project_norm": "blocks.2.0.bn3",
}
TIMM_LITE = TIMM_ENDS | {
    "stage1_block1/depthwise": "blocks.0.0.conv_dw",
    "stage1_block1/depthwise_norm": "blocks.0.0.bn1",
    "stage1_block1/project": "blocks.0.0.conv_pw",
    "stage1_block1/project_norm": "blocks.0.0.bn2",
    "stage2_block1/expand": "blocks.1.0.conv_pw",
    "stage2_block1/expand_norm": "blocks.1.0.bn1",
    "stage2_block1/depthwise": "blocks.1.0.conv_dw",
    "stage2_block1/depthwise_norm": "blocks.1.0.bn2",
    "stage2_block1/project": "blocks.1.0.conv_pwl",
    "stage2_block1/project_norm": "blocks.1.0.bn3",
    "stage2_block2/expand": "blocks.1.1.conv_pw",
    "stage2_block2/expand_norm": "blocks.1.1.bn1",
    "stage2_block2/depthwise": "blocks.1.1.conv_dw",
    "stage2_block2/depthwise_norm": "blocks.1.1.bn2",
    "stage2_block2/project": "blocks.1.1.conv_pwl",
    "stage2_block2/project_norm": "blocks.1.1.bn3",
}
TIMM_V1 = TIMM_LITE | {
    "stage1_block1/squeeze_excite/reduce": "blocks.0.0.se.conv_reduce",
    "stage1_block1/squeeze_excite/expand": "blocks.0.0.se.conv_expand",
    "stage2_block1/squeeze_excite/reduce": "blocks.1.0.se.conv_reduce",
    "stage2_block1/squeeze_excite/expand": "blocks.1.0.se.conv_expand",
    "stage2_block2/squeeze_excite/reduce": "blocks.1.1.se.conv_reduce",
    "stage2_block2/squeeze_excite/expand": "blocks.1.1.se.conv_expand",
}
TORCHVISION_V2 = {
    "stem": "features.0.0",
    "stem_norm": "features.0.1",
    "stage1_block1/fused": "features.1.0.block.0.0",
    "stage1_block1/fused_norm": "features.1.0.block.0.1",
    "stage2_block1/fused": "features.2.0.block.0.0",
    "stage2_block1/fused_norm": "features.2.0.block.0.1",
    "stage2_block1/project": "features.2.0.block.1.0",
    "stage2_block1/project_norm": "features.2.0.block.1.1",
    "stage2_block2/fused": "features.2.1.block.0.0",
    "stage2_block2/fused_norm": "features.2.1.block.0.1",
    "stage2_block2/project": "features.2.1.block.1.0",
    "stage2_block2/project_norm": "features.2.1.block.1.1",
    "stage3_block1/expand": "features.3.0.block.0.0",
    "stage3_block1/expand_norm": "features.3.0.block.0.1",
    "stage3_block1/depthwise": "features.3.0.block.1.0",
    "stage3_block1/depthwise_norm": "features.3.0.block.1.1",
    "stage3_block1/squeeze_excite/reduce": "features.3.0.block.2.fc1",
    "stage3_block1/squeeze_excite/expand": "features.3.0.block.2.fc2",
    "stage3_block1/project": "features.3.0.block.3.0",
    "stage3_block1/project_norm": "features.3.0.block.3.1",
    "head": "features.4.0",
    "head_norm": "features.4.1",
    "classifier": "classifier.1",
}
TORCHVISION_V1 = {
    "stem": "features.0.0",
    "stem_norm": "features.0.1",
    "stage1_block1/depthwise": "features.1.0.block.0.0",
    "stage1_block1/depthwise_norm": "features.1.0.block.0.1",
    "stage1_block1/squeeze_excite/reduce": "features.1.0.block.1.fc1",
    "stage1_block1/squeeze_excite/expand": "features.1.0.block.1.fc2",
    "stage1_block1/project": "features.1.0.block.2.0",
    "stage1_block1/project_norm": "features.1.0.block.2.1",
    "stage2_block1/expand": "features.2.0.block.0.0",
    "stage2_block1/expand_norm": "features.2.0.block.0.1",
    "stage2_block1/depthwise": "features.2.0.block.1.0",
    "stage2_block1/depthwise_norm": "features.2.0.block.1.1",
    "stage2_block1/squeeze_excite/reduce": "features.2.0.block.2.fc1",
    "stage2_block1/squeeze_excite/expand": "features.2.0.block.2.fc2",
    "stage2_block1/project": "features.2.0.block.3.0",
    "stage2_block1/project_norm": "features.2.0.block.3.1",
    "stage2_block2/expand": "features.2.1.block.0.0",
    "stage2_block2/expand_norm": "features.2.1.block.0.1",
    "stage2_block2/depthwise": "features.2.1.block.1.0",
    "stage2_block2/depthwise_norm": "features.2.1.block.1.1",
    "stage2_block2/squeeze_excite/reduce": "features.2.1.block.2.fc1",
    "stage2_block2/squeeze_excite/expand": "features.2.1.block.2.fc2",
    "stage2_block2/project": "features.2.1.block.3.0",
    "stage2_block2/project_norm": "features.2.1.block.3.1",
    "head": "features.3.0",
    "head_norm": "features.3.1",
    "classifier": "classifier.1",
}
EFFICIENTNET_PYTORCH_LITE = {
    "stem": "_conv_stem",
    "stem_norm": "_bn0",
    "stage1_block1/depthwise": "_blocks.0._depthwise_conv",
    "stage1_block1/depthwise_norm": "_blocks.0._bn1",
    "stage1_block1/project": "_blocks.0._project_conv",
    "stage1_block1/project_norm": "_blocks.0._bn2",
    "stage2_block1/expand": "_blocks.1._expand_conv",
    "stage2_block1/expand_norm": "_blocks.1._bn0",
    "stage2_block1/depthwise": "_blocks.1._depthwise_conv",
    "stage2_block1/depthwise_norm": "_blocks.1._bn1",
    "stage2_block1/project": "_blocks.1._project_conv",
    "stage2_block1/project_norm": "_blocks.1._bn2",
    "stage2_block2/expand": "_blocks.2._expand_conv",
    "stage2_block2/expand_norm": "_blocks.2._bn0",
    "stage2_block2/depthwise": "_blocks.2._depthwise_conv",
    "stage2_block2/depthwise_norm": "_blocks.2._bn1",
    "stage2_block2/project": "_blocks.2._project_conv",
    "stage2_block2/project_norm": "_blocks.2._bn2",
    "head": "_conv_head",
    "head_norm": "_bn1",
    "classifier": "_fc",
}
EFFICIENTNET_PYTORCH_V1 = EFFICIENTNET_PYTORCH_LITE | {
    "stage1_block1/squeeze_excite/reduce": "_blocks.0._se_reduce",
    "stage1_block1/squeeze_excite/expand": "_blocks.0._se_expand",
    "stage2_block1/squeeze_excite/reduce": "_blocks.1._se_reduce",
    "stage2_block1/squeeze_excite/expand": "_blocks.1._se_expand",
    "stage2_block2/squeeze_excite/reduce": "_blocks.2._se_reduce",
    "stage2_block2/squeeze_excite/expand": "_blocks.2._se_expand",
}
CASES = {
    "timm V2": (V2, TIMM_V2),
    "timm V1": (V1, TIMM_V1),
    "timm Lite": (LITE, TIMM_LITE),
    "torchvision V2": (V2, TORCHVISION_V2),
    "torchvision V1": (V1, TORCHVISION_V1),
    "efficientnet-pytorch V1": (V1, EFFICIENTNET_PYTORCH_V1),
    "efficientnet-pytorch Lite": (LITE, EFFICIENTNET_PYTORCH_LITE),
}


def _padding(case):
    return "symmetric" if case.startswith("torchvision") else "same"


def _random_network(spec, seed=1, **arguments):
    """A network whose every variable, statistics included, is random and keeps signals alive."""
    arguments = {"classes": 4, "classifier_activation": None, **arguments}
    model = build_network(spec, **arguments)
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        path = keras_compat.variable_path(variable)
        value = rng.normal(0, 0.3, variable.shape)
        if path.endswith(("gamma", "moving_variance")):
            value = rng.uniform(0.5, 1.5, variable.shape)
        variable.assign(value.astype("float32"))
    return model


def _kernel_there(layer, kernel):
    if layer == "classifier":
        return kernel.T  # (in, out) to (out, in)
    kernel = np.moveaxis(kernel, (2, 3), (1, 0))  # (h, w, in, out) to (out, in, h, w)
    # A depthwise kernel here is (h, w, channels, 1), there (channels, 1, h, w).
    return np.moveaxis(kernel, 1, 0) if layer.endswith("depthwise") else kernel


def _state_dict(model, modules):
    """The model's values as PyTorch holds them, step counters of the norms included."""
    state = {}
    for variable in model.weights:
        layer, _, part = keras_compat.variable_path(variable).rpartition("/")
        value = variable.numpy()
        name = modules[layer]
        if layer.endswith("_norm"):
            part = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}.get(
                part, "running_var"
            )
            state[f"{name}.num_batches_tracked"] = np.array(1000)
        elif part != "bias":
            part, value = "weight", _kernel_there(layer, value)
        state[f"{name}.{part}"] = value
    return state


def _images():
    return tf.constant(np.random.default_rng(2).uniform(0, 255, (2, 37, 42, 3)).astype("float32"))


@pytest.mark.parametrize("case", CASES)
def test_logits_of_the_network_that_was_written(torch_format, tmp_path, case):
    spec, modules = CASES[case]
    spec = replace(spec, padding=_padding(case))
    written = _random_network(spec)
    state = _state_dict(written, modules)
    path = torch_format.save(tmp_path / "model.pth", state, legacy="Lite" in case)
    model = _random_network(spec, seed=5)
    file = pytorch.read(path, spec)
    report = load_tensors(model, pytorch.origins(spec, file), file)
    for ours, theirs in zip(model.weights, written.weights, strict=True):
        np.testing.assert_array_equal(
            ours.numpy(), theirs.numpy(), keras_compat.variable_path(ours)
        )
    assert file.source == case.split()[0]
    np.testing.assert_allclose(model(_images()), written(_images()), rtol=1e-5, atol=1e-6)
    assert np.ptp(written(_images()).numpy()) > 0.01
    _check_report(report, state, model)


def _check_report(report, state, model):
    """A row for every tensor of the file; every variable in one of them."""
    rows = {row.tensor: row for row in report}
    assert rows.keys() == state.keys()
    for name, row in rows.items():
        assert row.shape == state[name].shape
        kernel = state[name].ndim > 1
        counter = name.endswith("num_batches_tracked")
        assert row.action == ("left out" if counter else "reshaped" if kernel else "loaded"), name
        if kernel:
            layout = "OI to IO" if state[name].ndim == 2 else "OIHW to HW"
            assert row.reason.startswith(layout)
        if counter:
            assert "training steps" in row.reason
    assert report.count("loaded") + report.count("reshaped") == len(model.weights)


NAMINGS = {"timm": TIMM, "torchvision": TORCHVISION, "efficientnet-pytorch": EFFICIENTNET_PYTORCH}


@pytest.mark.parametrize("source", NAMINGS)
@pytest.mark.parametrize("name", SPECS)
def test_every_variant_has_an_origin_for_every_variable(source, name):
    spec = SPECS[name]
    missing = {"torchvision": "lite", "efficientnet-pytorch": "v2"}.get(source, "no such name")
    if missing in name or "g16" in name:
        with pytest.raises(NoSuchNetwork, match=f"{source} has no network with"):
            network_origins(NAMINGS[source], spec)
        return
    origins = network_origins(NAMINGS[source], spec)
    assert list(origins) == list(variable_shapes(spec))
    names = [origin.name for origin in origins.values()]
    assert len(set(names)) == len(names)


# What the tensors do not say.

SAME, SYMMETRIC, UNKNOWN = ("same", 1e-3), ("symmetric", 1e-5), (None, None)
IMAGENET, HALF, LITE_MEAN = 0.485 * 255, 127.5, 127.0


@pytest.mark.parametrize(
    ("modules", "name", "trained", "mean"),
    [
        (TIMM_V2, "tf_efficientnetv2_s-eb54923e.pth", SAME, HALF),
        (TIMM_V2, "tf_efficientnetv2_xl_in21ft1k-06c35c48.pth", SAME, HALF),
        (TIMM_V2, "tf_efficientnetv2_b0-c7cc451f.pth", SAME, IMAGENET),
        (TIMM_V2, "efficientnetv2_s.pth", SYMMETRIC, IMAGENET),
        (TIMM_V1, "tf_efficientnet_b0_aa-827b6e33.pth", SAME, IMAGENET),
        (TIMM_V1, "tf_efficientnet_b0_ap-f262efe1.pth", SAME, HALF),
        (TIMM_V1, "tf_efficientnet_b0_ap/model.pth", SAME, HALF),
        (TIMM_V2, "tf_efficientnetv2_b3_in21k_ft_in1k.pth", SAME, HALF),
        (TIMM_V1, "efficientnet_b1_ra4_e3600_r240_in1k.pth", SYMMETRIC, HALF),
        (TIMM_V1, "efficientnet_experiments/run1/model.pth", UNKNOWN, None),
        (TIMM_V1, "tf_efficientnet_l2.ns_jft_in1k.pth", SAME, IMAGENET),
        (TIMM_V1, "efficientnet_b0_ra-3dd342df.pth", SYMMETRIC, IMAGENET),
        (TIMM_V1, "efficientnet_b0.ra4_e3600_r224_in1k.pth", SYMMETRIC, HALF),
        (TIMM_LITE, "tf_efficientnet_lite0-0aa007d2.pth", SAME, HALF),
        (TIMM_LITE, "efficientnet_lite0_ra-37913777.pth", SYMMETRIC, IMAGENET),
        (TIMM_V1, "model_best.pth.tar", UNKNOWN, None),
        (TORCHVISION_V1, "efficientnet_b0_rwightman-3dd342df.pth", ("symmetric", None), None),
        (EFFICIENTNET_PYTORCH_V1, "efficientnet-b0-355c32eb.pth", SAME, IMAGENET),
        (EFFICIENTNET_PYTORCH_V1, "adv-efficientnet-b0-b64d5a18.pth", SAME, HALF),
        (EFFICIENTNET_PYTORCH_LITE, "efficientnet-lite0.pth", SAME, LITE_MEAN),
        (EFFICIENTNET_PYTORCH_V1, "mine.pth", SAME, None),
    ],
)
def test_padding_epsilon_and_preprocessing_by_name(
    torch_format, tmp_path, modules, name, trained, mean
):
    spec = next(spec for spec, of_case in CASES.values() if of_case is modules)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    path = torch_format.save(tmp_path / name, _state_dict(_random_network(spec), modules))
    file = pytorch.read(path, spec)
    if trained == UNKNOWN:
        assert "tells which of timm's networks" in file.notes[0]
    assert (file.padding, file.batch_norm_epsilon) == trained
    assert (file.preprocessing and file.preprocessing.mean[0]) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("variant", "epsilon", "mean", "crop_padding"),
    [
        ("efficientnet-b0", 1e-5, IMAGENET, 32),
        ("efficientnet-b2", 1e-5, IMAGENET, 0),
        ("efficientnet-b3", 1e-5, IMAGENET, 20),
        ("efficientnet-b4", 1e-5, IMAGENET, 4),
        ("efficientnet-b5", 1e-3, IMAGENET, 0),
        ("efficientnet-b7", 1e-3, IMAGENET, 0),
        ("efficientnetv2-s", 1e-3, IMAGENET, 0),
        ("efficientnetv2-m", 1e-3, IMAGENET, 0),
        ("efficientnetv2-l", 1e-3, HALF, 0),
    ],
)
def test_torchvisions_networks(torch_format, tmp_path, variant, epsilon, mean, crop_padding):
    """Reading needs the spec and the names, not the values."""
    tensors = {"features.0.0.weight": np.zeros(1), "features.1.0.block.0.0.weight": np.zeros(1)}
    path = torch_format.save(tmp_path / "a.pth", tensors)
    file = pytorch.read(path, SPECS[variant])
    assert (file.padding, file.batch_norm_epsilon) == ("symmetric", epsilon)
    assert file.preprocessing.mean[0] == pytest.approx(mean)
    assert file.preprocessing.crop_padding == crop_padding


def test_the_name_that_timms_training_script_notes(torch_format, tmp_path):
    state = _state_dict(_random_network(V1), TIMM_V1)
    contents = {"arch": "efficientnet_b0", "state_dict": state}
    path = torch_format.save(tmp_path / "model_best.pth.tar", contents)
    file = pytorch.read(path, V1)
    assert (file.padding, file.batch_norm_epsilon) == SYMMETRIC
    assert file.preprocessing is None  # which its options decided
    assert "how images were normalised" in file.notes[0]


def test_numbers_that_are_none_are_noted(torch_format, tmp_path):
    state = _state_dict(_random_network(V1), TIMM_V1)
    state["conv_stem.weight"] = np.full_like(state["conv_stem.weight"], np.nan)
    path = torch_format.save(tmp_path / "tf_efficientnet_b0.pth", state)
    report = _read_into(build_network(V1, classes=4), path, V1)
    assert any("1 tensors hold NaN" in note for note in report.notes)


def test_the_folder_of_the_hubs_cache_counts_as_a_name(torch_format, tmp_path):
    folder = tmp_path / "models--timm--tf_efficientnet_b0.ap_in1k" / "snapshots" / "0af1"
    folder.mkdir(parents=True)
    path = torch_format.save(folder / "model.bin", _state_dict(_random_network(V1), TIMM_V1))
    file = pytorch.read(path, V1)
    assert (file.padding, file.preprocessing.mean) == ("same", (127.5,))


def _config(**changes):
    settings = {
        "input_size": [3, 320, 320],
        "interpolation": "bilinear",
        "crop_pct": 0.8,
        "mean": [0.5, 0.25, 0.0],
        "std": [0.5, 0.5, 1.0],
    }
    return {"architecture": "tf_efficientnet_b4", "pretrained_cfg": {**settings, **changes}}


def test_timms_configuration_counts_for_more_than_the_name(torch_format, tmp_path):
    state = _state_dict(_random_network(V1), TIMM_V1)
    path = torch_format.save(tmp_path / "efficientnet_b0.bin", state)
    (tmp_path / "config.json").write_text(json.dumps(_config()))
    file = pytorch.read(path, V1)
    assert (file.padding, file.batch_norm_epsilon) == SAME
    assert file.preprocessing.mean == (127.5, 63.75, 0)
    assert file.preprocessing.std == (127.5, 127.5, 255)
    assert (file.preprocessing.crop_padding, file.preprocessing.interpolation) == (80, "bilinear")
    (tmp_path / "config.json").write_text('{"of": "something else"}')
    assert pytorch.read(path, V1).padding == "symmetric"


@pytest.mark.parametrize(
    "text",
    ["{", json.dumps(_config(interpolation="lanczos")), json.dumps(_config(crop_pct=0))],
    ids=["no JSON", "interpolation", "crop"],
)
def test_a_broken_configuration(torch_format, tmp_path, text):
    path = torch_format.save(tmp_path / "a.bin", _state_dict(_random_network(V1), TIMM_V1))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json', beside the weights: expected"):
        pytorch.read(path, V1)


# What does not fit.


def _read_into(model, path, spec):
    file = pytorch.read(path, spec)
    return load_tensors(model, pytorch.origins(spec, file), file)


@pytest.fixture
def timm_v1(torch_format, tmp_path):
    """A file of timm's for V1 with four classes."""
    return torch_format.save(tmp_path / "a.pth", _state_dict(_random_network(V1), TIMM_V1))


def test_another_class_count(timm_v1):
    model = _random_network(V1, classes=7)
    message = r"'classifier\.weight' has shape \(24, 4\).*has shape \(24, 7\).*classes=4 or include"
    with pytest.raises(ValueError, match=message):
        _read_into(model, timm_v1, V1)


def test_without_the_top(timm_v1):
    model = _random_network(V1, include_top=False)
    report = _read_into(model, timm_v1, V1)
    rows = {row.tensor: row for row in report if row.action == "left out"}
    assert "include_top=False" in rows["classifier.weight"].reason
    assert "include_top=False" in rows["classifier.bias"].reason


def test_another_channel_count(timm_v1):
    model = _random_network(V1, input_shape=(None, None, 1))
    with pytest.raises(ValueError, match=r"'conv_stem\.weight'.*input_shape=\(None, None, 3\)"):
        _read_into(model, timm_v1, V1)


def test_another_network(timm_v1):
    deeper = replace(V1, depth=2.0)
    with pytest.raises(ValueError, match=r"'blocks\.0\.1\.conv_dw\.weight' is not in it"):
        _read_into(_random_network(deeper), timm_v1, deeper)
    shallower = replace(V1, stages=(V1.stages[0], replace(V1.stages[1], repeats=1)))
    with pytest.raises(ValueError, match=r"no variable for tensor 'blocks\.1\.1\."):
        _read_into(_random_network(shallower), timm_v1, shallower)


def test_another_padding(torch_format, tmp_path):
    state = _state_dict(_random_network(V1), TORCHVISION_V1)
    path = torch_format.save(tmp_path / "a.pth", state)
    with pytest.raises(ValueError, match="Pass padding='symmetric'"):
        _read_into(_random_network(V1), path, V1)


def test_a_kind_of_network_that_the_implementation_lacks(torch_format, tmp_path):
    """The advice is by shapes, so it takes a real network's."""
    spec = SPECS["efficientnet-b0"]
    layers = network_origins(TORCHVISION, spec)
    shapes = variable_shapes(spec, classes=7)
    state = {layers[path].name: np.zeros(shape, "bool") for path, shape in shapes.items()}
    path = torch_format.save(tmp_path / "a.pth", state)
    lite = SPECS["efficientnet-lite0"]
    file = pytorch.read(path, lite)
    message = (
        r"a\.pth.*does not fit 'efficientnet-lite0'.*without squeeze.*'efficientnet-b0': build"
    )
    with pytest.raises(UsageError, match=message):
        pytorch.origins(lite, file)


def test_another_family(torch_format, tmp_path):
    path = torch_format.save(tmp_path / "resnet.pth", {"conv1.weight": np.zeros((64, 3, 7, 7))})
    message = r"resnet\.pth.*its 1 tensors are not named as.*'conv_stem.weight'.*'conv1.weight'"
    with pytest.raises(UsageError, match=message):
        pytorch.read(path, V1)


def test_relatives_with_the_same_name_are_refused(torch_format, tmp_path):
    """There are networks called EfficientNetV2 that differ in their first stage."""
    tensors = {"conv_stem.weight": np.zeros(1), "blocks.0.0.conv_pwl.weight": np.zeros(1)}
    path = torch_format.save(tmp_path / "efficientnet_v2s_ra2_288.pth", tensors)
    with pytest.raises(UsageError, match=r"efficientnetv2_rw_\*.*tf_efficientnetv2_\*"):
        pytorch.read(path, EFFICIENTNETV2_S)


def test_a_network_with_the_same_tensors_is_refused(torch_format, tmp_path):
    state = _state_dict(_random_network(V1), TIMM_V1)
    path = torch_format.save(tmp_path / "efficientnet_blur_b0.pth", state)
    with pytest.raises(UsageError, match="blurs before it strides"):
        pytorch.read(path, V1)
