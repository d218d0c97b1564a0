"""`load_weights` on this package's own files, and on what is no weights file."""

import dataclasses
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import effnetv2_tf
from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.families import SPECS
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import IMAGENET_STATISTICS
from effnetv2_tf.weights import WeightReport, load_weights

FORMS = ("model.weights.h5", "model.keras", "model.h5")


@pytest.fixture
def saved(tiny_network, randomize, tmp_path):
    """A network with random weights and the file that it was saved to."""

    def run(form, **arguments):
        model = randomize(tiny_network(**arguments))
        path = tmp_path / form
        (model.save_weights if form.endswith(".weights.h5") else model.save)(path)
        return model, path

    return run


def assert_unchanged(values, model, before):
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


@pytest.mark.parametrize("form", FORMS)
def test_own_files_load(form, saved, tiny_network, values, images):
    trained, path = saved(form)
    model = tiny_network()
    report = load_weights(model, path)
    assert isinstance(report, WeightReport) and report.source == "effnetv2_tf"
    assert report.count("loaded") == len(model.weights)
    assert_unchanged(values, model, values(trained))
    np.testing.assert_allclose(model(images(32)), trained(images(32)), rtol=1e-6)


def test_another_activation_is_refused(tiny_spec, tmp_path):
    """Its tensors have the same names and shapes."""
    other = build_network(dataclasses.replace(tiny_spec, activation="relu"), classes=4)
    other.save(tmp_path / "model.keras")
    model = build_network(tiny_spec, classes=4)
    with pytest.raises(UsageError, match="trained with activation 'relu', .* has 'silu'"):
        load_weights(model, tmp_path / "model.keras")


GROUPED = {"normalization": "group", "normalization_groups": 4}


@pytest.mark.parametrize("form", ["model.keras", "model.h5"])
@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({"stem_stride": 1}, {}, r"strides 1, .* has 2 in 'stem'.*stem_stride=1\)"),
        ({"stages": 1}, {}, r"stride 1, .* has 2 in 'stage2_block1'.*stages=\.\.\.\)"),
        (GROUPED, {**GROUPED, "normalization_groups": 8}, "normalization_groups 4, .* has 8"),
        (GROUPED, {"normalization": "layer"}, "normalization 'group', .* has 'layer'"),
        ({**GROUPED, "batch_norm_epsilon": 0.1}, GROUPED, "batch_norm_epsilon 0.1, .* has 0.001"),
    ],
    ids=["stem", "stage", "groups", "norm", "epsilon"],
)
def test_what_no_shape_shows_is_refused(form, theirs, ours, message, tiny_spec, tmp_path):
    if "stages" in theirs:
        stages = list(tiny_spec.stages)
        stages[1] = dataclasses.replace(stages[1], stride=1)
        theirs = {"stages": tuple(stages)}
    build_network(dataclasses.replace(tiny_spec, **theirs), classes=4).save(tmp_path / form)
    model = build_network(dataclasses.replace(tiny_spec, **ours), classes=4)
    with pytest.raises(UsageError, match=f"was trained with {message}"):
        load_weights(model, tmp_path / form)


@pytest.mark.parametrize("form", ["model.keras", "model.h5"])
def test_group_norms_that_agree_load(form, tiny_spec, tmp_path):
    spec = dataclasses.replace(tiny_spec, **GROUPED)
    build_network(spec, classes=4).save(tmp_path / form)
    report = load_weights(build_network(spec, classes=4), tmp_path / form)
    assert report.count("left out") == 0


@pytest.mark.parametrize("form", ["model.keras", "model.weights.h5"])
def test_a_network_within_a_model_is_said_to_be_one(form, tiny_network, tmp_path):
    outer = keras.Sequential([tiny_network(include_top=False, pooling="avg")])
    outer.add(keras.layers.Dense(3))
    (outer.save_weights if form.endswith("weights.h5") else outer.save)(tmp_path / form)
    with pytest.raises(UsageError, match=r"inside another model \(as 'efficient_net'\).*get_layer"):
        load_weights(tiny_network(include_top=False), tmp_path / form)


def test_a_constructor_tells_what_weights_set(tmp_path):
    saved = effnetv2_tf.EfficientNetV2B0(classes=2, batch_norm_epsilon=1e-5)
    saved.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="Epsilon of the batch norms set to the weights': 1e-05"):
        model = effnetv2_tf.EfficientNetV2B0(tmp_path / "model.keras", classes=2)
    assert model.get_layer("stem_norm").epsilon == 1e-5


@pytest.mark.parametrize("form", ["model.keras", "model.h5"])
def test_state_of_training_is_left_out(form, tiny_network, tmp_path, values):
    trained = tiny_network()
    trained.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    batch = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    trained.fit(batch, np.eye(4, dtype="float32")[:2], verbose=0)
    trained.save(tmp_path / form)
    model = tiny_network()
    report = load_weights(model, tmp_path / form)
    assert_unchanged(values, model, values(trained))
    reasons = [row.reason for row in report if row.action == "left out"]
    assert len(reasons) >= 2 * len(trained.trainable_variables)  # Adam's moments
    assert set(reasons) == {"state of the optimizer or of metrics"}


def test_own_files_agree_with_keras(saved, tiny_network, values):
    _, path = saved("model.weights.h5")
    ours, keras_own = tiny_network(), tiny_network()
    load_weights(ours, path)
    keras_own.load_weights(path)
    assert_unchanged(values, ours, values(keras_own))


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnetv2-b0", "efficientnet-lite0"])
def test_own_files_of_the_families(name, randomize, values, tmp_path):
    trained = randomize(build_network(SPECS[name], classes=3))
    trained.save_weights(tmp_path / "model.weights.h5")
    model = build_network(SPECS[name], classes=3)
    load_weights(model, tmp_path / "model.weights.h5", spec=SPECS[name])
    assert_unchanged(values, model, values(trained))


def test_a_keras_file_brings_its_preprocessing_and_epsilon(
    tiny_spec, tiny_network, randomize, images, tmp_path
):
    spec = dataclasses.replace(
        tiny_spec, preprocessing=IMAGENET_STATISTICS, batch_norm_epsilon=1e-2
    )
    trained = randomize(build_network(spec, classes=4))
    trained.save(tmp_path / "model.keras")
    model = tiny_network()
    before = model.predict(images(32), verbose=0)  # traced with the old numbers
    report = load_weights(model, tmp_path / "model.keras")
    assert len(report.notes) == 2
    np.testing.assert_allclose(model(images(32)), trained(images(32)), rtol=1e-5)
    after = model.predict(images(32), verbose=0)
    np.testing.assert_allclose(after, trained(images(32)), rtol=1e-5)
    assert abs(after - before).max() > 1e-3


def test_a_keras_file_of_another_padding_is_refused(tiny_spec, tiny_network, tmp_path):
    symmetric = build_network(dataclasses.replace(tiny_spec, padding="symmetric"), classes=4)
    symmetric.save(tmp_path / "model.keras")
    with pytest.raises(UsageError, match="padding='symmetric'"):
        load_weights(tiny_network(), tmp_path / "model.keras")


def test_an_older_file_of_another_padding_is_refused(tiny_spec, tiny_network, tmp_path):
    path = tmp_path / "model.h5"
    build_network(dataclasses.replace(tiny_spec, padding="symmetric"), classes=4).save(path)
    with pytest.raises(UsageError, match="was trained with padding 'symmetric'"):
        load_weights(tiny_network(), path)


@pytest.mark.parametrize("form", ["model.keras", "model.h5"])
def test_weights_for_normalised_images_are_noted(form, tiny_network, tmp_path):
    tiny_network(include_preprocessing=False).save(tmp_path / form)
    (note,) = load_weights(tiny_network(), tmp_path / form).notes
    assert "a network without preprocessing" in note
    assert load_weights(tiny_network(include_preprocessing=False), tmp_path / form).notes == ()


def test_none_leaves_the_model_alone(tiny_network, values):
    model = tiny_network()
    before = values(model)
    assert load_weights(model, None) is None
    assert_unchanged(values, model, before)


@pytest.mark.parametrize("form", FORMS)
def test_another_class_count(form, saved, tiny_network, values):
    _, path = saved(form, classes=9)
    model = tiny_network()
    before = values(model)
    with pytest.raises(UsageError, match=r"\(24, 9\).*\(24, 4\).*Pass classes=9 or include_top"):
        load_weights(model, path)
    assert_unchanged(values, model, before)


def test_other_channels(saved, tiny_network):
    _, path = saved("model.weights.h5", input_shape=(None, None, 1), classes=5)
    with pytest.raises(UsageError, match=r"\(3, 3, 1, 8\).*input_shape=\(None, None, 1\)"):
        load_weights(tiny_network(classes=5), path)


def test_another_variant(tiny_network, tmp_path, values):
    build_network(SPECS["efficientnet-lite0"]).save_weights(tmp_path / "lite.weights.h5")
    model = tiny_network()
    before = values(model)
    with pytest.raises(UsageError, match="those of 'efficientnet-lite0': build that network"):
        load_weights(model, tmp_path / "lite.weights.h5")
    assert_unchanged(values, model, before)


def test_a_file_without_classifier(saved, tiny_network):
    _, path = saved("model.weights.h5", include_top=False)
    with pytest.raises(UsageError, match=r"'dense/vars/0' is not in it.*include_top=False"):
        load_weights(tiny_network(), path)
    load_weights(tiny_network(include_top=False), path)


def test_a_classifier_is_left_out(saved, tiny_network):
    _, path = saved("model.weights.h5", classes=5)
    report = load_weights(tiny_network(include_top=False), path)
    assert [row.tensor for row in report if row.action == "left out"] == [
        "dense/vars/0",
        "dense/vars/1",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.h5", None, "which is no file"),
        ("empty.h5", b"", "which is an empty file"),
        ("text.h5", b"<html>404 not found</html>", "is no weights file, though its name says so"),
        (
            "text.keras",
            b"<html>404 not found</html>",
            "is no weights file, though its name says so",
        ),
        ("weights", b"<html>404 not found</html>", "is no weights file. Expected 'imagenet'"),
    ],
)
def test_no_weights_file(name, content, message, tiny_network, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        load_weights(tiny_network(), path)
    assert name in str(caught.value)


def test_a_folder_without_a_checkpoint(tiny_network, tmp_path):
    with pytest.raises(UsageError, match="a folder without a checkpoint"):
        load_weights(tiny_network(), tmp_path)


def test_an_archive_of_something_else(tiny_network, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(UsageError, match="is no weights file"):
        load_weights(tiny_network(), path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_file(form, share, saved, tiny_network, values):
    _, path = saved(form)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    model = tiny_network()
    before = values(model)
    with pytest.raises(UsageError, match=f"{form}.*(truncated or damaged|no weights file)"):
        load_weights(model, path)
    assert_unchanged(values, model, before)


@pytest.mark.parametrize("damage", ["flipped", "missing", "no JSON"])
def test_a_damaged_configuration(damage, saved, tiny_network, values):
    _, path = saved("model.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if damage == "missing":
        del members["config.json"]
    elif damage == "no JSON":
        members["config.json"] = b"{"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    if damage == "flipped":
        content = bytearray(path.read_bytes())
        content[content.index(members["config.json"][:50]) + 30] ^= 255
        path.write_bytes(content)
    model = tiny_network()
    before = values(model)
    with pytest.raises(UsageError, match=r"model\.keras.* is truncated or damaged"):
        load_weights(model, path)
    assert_unchanged(values, model, before)


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_a_network_in_bfloat16(form, tiny_network, values, tmp_path):
    keras_compat.set_float_precision("bfloat16")
    try:
        source = tiny_network()
        save = source.save_weights if form == "model.weights.h5" else source.save
        save(tmp_path / form)
    finally:
        keras_compat.set_float_precision("float32")
    model = tiny_network()
    load_weights(model, tmp_path / form)
    for one, other in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), tf.cast(other.numpy(), tf.float32))


@pytest.mark.parametrize("weights", [3, "", ["a.h5"]])
def test_what_is_no_file(weights, tiny_network):
    with pytest.raises(UsageError, match=r"expected None, 'imagenet' or a file, received"):
        load_weights(tiny_network(), weights)


def test_another_keras_model(tiny_network, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dense/dense/kernel:0"] = np.zeros((2, 2), "f")
    with pytest.raises(UsageError, match=r"neither this package's nor.*dense/dense/kernel:0"):
        load_weights(tiny_network(), tmp_path / "other.h5")


def test_a_model_that_is_no_network_of_ours(saved):
    _, path = saved("model.weights.h5")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="other")
    with pytest.raises(UsageError, match="model 'other'"):
        load_weights(model, path)


def test_ema_is_for_files_that_have_one(saved, tiny_network):
    _, path = saved("model.weights.h5")
    with pytest.raises(UsageError, match=r"`ema` chooses.*ema=True"):
        load_weights(tiny_network(), path, ema=True)


def test_damaged_files_of_pytorch_are_refused_by_name(tiny_network, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not tensors at all")
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        load_weights(tiny_network(), path)


def test_imagenet_weights_of_a_network_without_any(tiny_network):
    with pytest.raises(UsageError, match=r"published weights for efficientnet-b0.*'tiny'"):
        load_weights(tiny_network(), "imagenet")


def test_imagenet_weights_need_their_classes_and_channels():
    spec = SPECS["efficientnetv2-b0"]
    with pytest.raises(UsageError, match=r"1000 classes. Received: classes=10\. .*include_top"):
        load_weights(build_network(spec, classes=10), "imagenet", spec)
    grey = build_network(spec, include_top=False, input_shape=(None, None, 1))
    with pytest.raises(UsageError, match=r"3 channels. Received: 1\."):
        load_weights(grey, "imagenet", spec)
