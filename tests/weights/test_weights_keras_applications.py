"""keras.applications and this package compute the same from the same weights."""

import dataclasses
import functools
import sys

import h5py
import keras
import numpy as np
import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.families import SPECS
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import CENTRED_127, CENTRED_128, IMAGENET_STATISTICS
from effnetv2_tf.weights import load_weights
from effnetv2_tf.weights.keras_applications import from_keras_applications
from effnetv2_tf.weights.keras_published import PUBLISHED

FAST = ("efficientnet-b0", "efficientnetv2-b0")
TOLERANCE = 1e-4
# The official V1 files hold these where a variance belongs.
DEVIATIONS = np.array([0.229, 0.224, 0.225], "float32")
MEANS = np.array([0.485, 0.456, 0.406], "float32")


@functools.cache
def keras_model(row, size=64, channels=3, **arguments):
    """A model of keras.applications; built once for all tests that ask for the same."""
    constructor = getattr(keras.applications, PUBLISHED[row][0])
    arguments = {"weights": None, "classifier_activation": None, **arguments}
    return constructor(input_shape=(size, size, channels), **arguments)


def write_by_name(model, path):
    """A weights-only `.h5` in the layout of the published files."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = []
            for variable in layer.weights:
                last = keras_compat.variable_path(variable).rsplit("/", 1)[-1]
                last = "depthwise_kernel" if "dwconv" in layer.name else last
                names.append(f"{layer.name}/{last}:0")
                group[names[-1]] = keras_compat.tf_variable(variable).numpy()
            group.attrs["weight_names"] = [name.encode() for name in names]
    return path


def with_published_statistics(model):
    """As in Google's files: ImageNet's means, and its deviations for variances."""
    (layer,) = [x for x in model.layers if isinstance(x, keras.layers.Normalization)]
    layer.set_weights([MEANS, DEVIATIONS, np.zeros((), "int64")])
    layer.finalize_state()
    return model


@pytest.mark.parametrize(
    "row", [pytest.param(r, marks=[] if r in FAST else pytest.mark.slow) for r in PUBLISHED]
)
def test_logits_agree(row, randomize, images, relative_difference):
    build = keras_model if row in FAST else keras_model.__wrapped__  # keeps no large ones
    source = randomize(build(row, 64))
    model, report = from_keras_applications(source)
    assert report.count("loaded") == len(model.weights)
    for size in (64, 75):
        if size != 64:  # Keras's V1 pads by the size it was built with
            weights = source.get_weights()
            source = build(row, size)
            source.set_weights(weights)
        batch = images(size)
        difference = relative_difference(model(batch), source(batch, training=False))
        assert difference < TOLERANCE, f"{row} at {size} px: {difference:.2e}"


@pytest.mark.parametrize("pooling", [None, "max"])
def test_features_agree_without_top(pooling, randomize, images, relative_difference):
    source = randomize(keras_model("efficientnetv2-b0", include_top=False, pooling=pooling))
    model, report = from_keras_applications(source)
    assert report.count("left out") == 0
    batch = images(64)
    assert relative_difference(model(batch), source(batch, training=False)) < TOLERANCE


def test_the_built_network_has_the_sources_top(randomize, images):
    source = keras_model("efficientnet-b0", classes=7, classifier_activation="softmax")
    model, _ = from_keras_applications(randomize(source))
    batch = images(64)
    assert model.output_shape == (None, 7)
    np.testing.assert_allclose(model(batch), source(batch, training=False), rtol=1e-3)


def test_report_of_a_live_model():
    source = keras_model("efficientnet-b0", classes=3)
    _, report = from_keras_applications(source)
    rows = {row.path: row for row in report if row.path}
    assert rows["stem/kernel"].tensor == "stem_conv/kernel"
    assert rows["stage1_block1/depthwise/kernel"].tensor == "block1a_dwconv/kernel"
    assert rows["stage3_block2/squeeze_excite/reduce/bias"].tensor == "block3b_se_reduce/bias"
    assert rows["classifier/kernel"].shape == (1280, 3)
    left_out = [row for row in report if row.action == "left out"]
    assert [row.tensor.split("/")[1] for row in left_out] == ["mean", "variance", "count"]
    assert all(row.reason.startswith("input normalisation") for row in left_out)
    # A fresh V1 model of Keras's only divides by 255.
    assert report.preprocessing.mean == pytest.approx((0,) * 3, abs=1e-6)
    assert report.preprocessing.std == pytest.approx((255,) * 3)


@pytest.mark.parametrize(
    ("row", "arguments", "expected"),
    [
        ("efficientnetv2-b0", {}, IMAGENET_STATISTICS),
        ("efficientnetv2-b0", {"channels": 1}, CENTRED_128),
        ("efficientnetv2-b0", {"include_preprocessing": False}, None),
        pytest.param("efficientnetv2-s", {}, CENTRED_128, marks=pytest.mark.slow),
    ],
)
def test_preprocessing_of_v2(row, arguments, expected, randomize, images, relative_difference):
    channels = arguments.get("channels", 3)
    source = randomize(keras_model(row, include_top=False, pooling="avg", **arguments))
    model, report = from_keras_applications(source)
    assert report.preprocessing == expected
    batch = images(64, channels)
    if expected is None:
        batch = batch / 128 - 1
        assert "normalization" not in {layer.name for layer in model.layers}
    assert relative_difference(model(batch), source(batch, training=False)) < TOLERANCE


def test_a_given_model_takes_the_normalisation(randomize, images, relative_difference):
    source = with_published_statistics(randomize(keras_model("efficientnet-b0", classes=5)))
    model = build_network(SPECS["efficientnet-b0"], classes=5, classifier_activation=None)
    same, report = from_keras_applications(source, model)
    assert same is model
    # What this live model does, divisor sqrt(deviation) and all, not what was meant.
    assert report.preprocessing.std == pytest.approx(tuple(255 * np.sqrt(DEVIATIONS)))
    assert len(report.notes) == 1
    batch = images(64)
    assert relative_difference(model(batch), source(batch, training=False)) < TOLERANCE


def test_published_weights_through_keras(
    randomize, images, relative_difference, tmp_path, monkeypatch
):
    """With `weights="imagenet"` Keras adds a Rescaling that the file does not show."""
    published = with_published_statistics(randomize(keras_model("efficientnet-b0", 224)))
    path = write_by_name(published, tmp_path / "efficientnetb0.h5")
    module = sys.modules[keras.applications.EfficientNetB0.__module__]
    download = getattr(module, "file_utils", None) or module.data_utils
    monkeypatch.setattr(download, "get_file", lambda *args, **kwargs: str(path))

    source = keras.applications.EfficientNetB0(classifier_activation=None)  # as users call it
    batch = images(224, batch=1)
    expected = source(batch, training=False)
    for weights in ("imagenet", path):
        model = build_network(SPECS["efficientnet-b0"], classifier_activation=None)
        report = load_weights(model, weights)
        assert report.preprocessing == IMAGENET_STATISTICS, weights
        assert report.notes == (), weights
        assert relative_difference(model(batch), expected) < TOLERANCE, weights


def test_imagenet_weights_for_a_network_without_top(monkeypatch, randomize, values):
    asked = {}
    source = keras_model("efficientnet-b0", include_top=False)

    def fetched(**arguments):
        asked.update(arguments)
        return randomize(source)

    monkeypatch.setattr(keras.applications, "EfficientNetB0", fetched)
    model = build_network(SPECS["efficientnet-b0"], include_top=False)
    load_weights(model, "imagenet")
    assert asked == {"weights": "imagenet", "include_top": False}
    np.testing.assert_array_equal(
        values(model)["head_norm/beta"], source.get_layer("top_bn").get_weights()[1]
    )


def test_without_a_network_the_message_says_where_the_file_goes(monkeypatch):
    def fail(**arguments):
        raise Exception("URL fetch failure on https://...: None -- no route to host")

    monkeypatch.setattr(keras.applications, "EfficientNetV2B0", fail)
    monkeypatch.setenv("KERAS_HOME", "/home/me/keras")
    model = build_network(SPECS["efficientnetv2-b0"], include_top=False)
    with pytest.raises(UsageError) as caught:
        load_weights(model, "imagenet")
    message = str(caught.value)
    assert "no route to host" in message
    assert (
        "https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2/"
        "efficientnetv2-b0_notop.h5" in message
    )
    assert "/home/me/keras/models/efficientnetv2-b0_notop.h5" in message
    assert "weights='.../efficientnetv2-b0_notop.h5'" in message


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ("efficientnet-b0", "named.h5"),
        ("efficientnet-b0", "model.h5"),
        ("efficientnet-b0", "model.weights.h5"),
        ("efficientnet-b0", "model.keras"),
        ("efficientnetv2-b0", "named.h5"),
        ("efficientnetv2-b0", "model.weights.h5"),
    ],
)
def test_files_load(row, form, randomize, images, relative_difference, tmp_path):
    source = randomize(keras_model(row, classes=6))
    path = tmp_path / form
    if form == "named.h5":
        write_by_name(source, path)
    elif form == "model.weights.h5":
        source.save_weights(path)
    else:
        source.compile("sgd", "mse")
        source.save(path)
    model = build_network(SPECS[row], classes=6, classifier_activation=None)
    report = load_weights(model, path)
    assert report.source == "keras.applications"
    assert report.count("loaded") == len(model.weights)
    batch = images(64)
    assert relative_difference(model(batch), source(batch, training=False)) < TOLERANCE


def test_a_file_with_top_loads_into_a_network_without(randomize, values, tmp_path):
    source = randomize(keras_model("efficientnetv2-b0"))
    path = write_by_name(source, tmp_path / "b0.h5")
    model = build_network(SPECS["efficientnetv2-b0"], include_top=False)
    report = load_weights(model, path)
    left_out = {row.tensor: row.reason for row in report if row.action == "left out"}
    reason = "the model has no classifier (include_top=False)"
    assert left_out == {"predictions/bias": reason, "predictions/kernel": reason}
    np.testing.assert_array_equal(
        values(model)["head/kernel"], source.get_layer("top_conv").get_weights()[0]
    )


@pytest.mark.parametrize("form", ["named.h5", "model.weights.h5"])
def test_a_file_of_another_variant_is_named(form, tmp_path, values):
    source = keras_model("efficientnetv2-b1")
    path = tmp_path / form
    if form == "named.h5":
        write_by_name(source, path)
    else:
        source.save_weights(path)
    model = build_network(SPECS["efficientnetv2-b0"])
    before = values(model)
    with pytest.raises(UsageError, match=r"those of 'efficientnetv2-b1': build that network"):
        load_weights(model, path)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_another_class_count_says_what_to_pass(tmp_path):
    path = write_by_name(keras_model("efficientnet-b0", classes=6), tmp_path / "b0.h5")
    model = build_network(SPECS["efficientnet-b0"], classes=4)
    with pytest.raises(
        UsageError,
        match=r"'predictions/kernel' has shape \(1280, 6\).*'classifier/kernel' has shape "
        r"\(1280, 4\).*Pass classes=6 or include_top=False",
    ):
        load_weights(model, path)


def test_other_input_channels_say_what_to_pass(tmp_path):
    source = keras_model("efficientnet-b0", channels=1, include_top=False)
    path = write_by_name(source, tmp_path / "b0.h5")
    model = build_network(SPECS["efficientnet-b0"], include_top=False)
    with pytest.raises(UsageError, match=r"'stem_conv/kernel' .*input_shape=\(None, None, 1\)"):
        load_weights(model, path)


def test_a_live_model_that_does_not_fit_is_refused():
    source = keras_model("efficientnet-b0", classes=6)
    model = build_network(SPECS["efficientnet-b0"], classes=4)
    with pytest.raises(UsageError, match="classes=6"):
        from_keras_applications(source, model)


def test_another_kind_of_model_is_refused():
    source = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), alpha=0.35)
    with pytest.raises(UsageError, match=r"must be an EfficientNet of keras\.applications"):
        from_keras_applications(source)


def test_layers_before_the_stem_are_refused_by_name():
    inputs = keras.Input((64, 64, 3))
    flipped = keras.layers.RandomFlip(name="flip")(inputs)
    source = keras.applications.EfficientNetB0(weights=None, input_tensor=flipped)
    with pytest.raises(UsageError, match=r"layer 'flip' \(RandomFlip\) before its stem"):
        from_keras_applications(source)


def test_a_network_within_a_model_is_refused(tmp_path):
    inner = keras_model("efficientnet-b0", include_top=False, pooling="avg")
    outer = keras.Sequential([keras.Input((64, 64, 3)), inner, keras.layers.Dense(2)])
    path = write_nested(inner, outer.layers[-1], tmp_path / "outer.h5")
    model = build_network(SPECS["efficientnet-b0"], include_top=False)
    with pytest.raises(UsageError, match="holds a network inside another model"):
        load_weights(model, path)


def write_nested(inner, dense, path):
    with h5py.File(path, "w") as file:
        for layer in inner.layers:
            for number, value in enumerate(layer.get_weights()):
                file[f"{inner.name}/{layer.name}/variable{number}"] = value
        for number, value in enumerate(dense.get_weights()):
            file[f"{dense.name}/{dense.name}/variable{number}"] = value
    return path


def test_symmetric_padding_is_refused():
    symmetric = dataclasses.replace(SPECS["efficientnet-b0"], padding="symmetric")
    with pytest.raises(UsageError, match="padding='same'"):
        from_keras_applications(keras_model("efficientnet-b0"), build_network(symmetric))


def test_a_networks_own_preprocessing_can_be_overruled(tmp_path):
    path = write_by_name(keras_model("efficientnetv2-b0"), tmp_path / "b0.h5")
    model = build_network(SPECS["efficientnetv2-b0"])
    report = load_weights(model, path, preprocessing=CENTRED_127)
    assert report.preprocessing == CENTRED_127
    assert model.get_layer("normalization").mean == (127.0,)
