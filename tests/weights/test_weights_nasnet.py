"""keras.applications' NASNets and this package's compute the same from the same weights."""

import dataclasses

import h5py
import keras
import numpy as np
import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.genotypes import Block, Cell, Genotype
from effnetv2_tf.models.nasnet import build_nasnet, without_auxiliary_head
from effnetv2_tf.models.nasnet_specs import NASNET_MOBILE, NASNetSpec
from effnetv2_tf.weights import load_weights, nasnet
from effnetv2_tf.weights.keras_applications import from_keras_applications

TOLERANCE = 1e-4
SMALL = NASNetSpec(
    name="small", cells_per_stack=1, penultimate_filters=96, stem_filters=8, stem_reductions=1
)
ONE_BLOCK = Cell((Block(0, "sep_conv_3x3", 1, "identity"),))
TINY = dataclasses.replace(SMALL, name="tiny", genotype=Genotype(ONE_BLOCK, ONE_BLOCK))


def keras_model(name="NASNetMobile", size=64, channels=3, **arguments):
    arguments = {"weights": None, "classifier_activation": None, **arguments}
    return getattr(keras.applications, name)(input_shape=(size, size, channels), **arguments)


@pytest.fixture(scope="module")
def mobile():
    """Theirs, without a classifier: its only large tensor."""
    keras.utils.set_random_seed(0)
    return keras_model(include_top=False, pooling="avg")


@pytest.fixture(scope="module")
def ours():
    """A network of this package for files; tests load other weights into it."""
    arguments = {"include_top": False, "pooling": "avg", "include_preprocessing": False}
    return build_nasnet(NASNET_MOBILE, **arguments)


def normalized(batch):
    return batch / 127.5 - 1


def check_logits(name, sizes, randomize, images, relative_difference):
    """Theirs is built for each size: it decides by that where to align."""
    source = randomize(keras_model(name, sizes[0], classes=5))
    model, report = from_keras_applications(source)
    assert report.count("loaded") == len(model.weights)
    assert report.count("left out") == 0
    for size in sizes:
        if size != sizes[0]:
            weights = source.get_weights()
            source = keras_model(name, size, classes=5)
            source.set_weights(weights)
        batch = normalized(images(size))
        difference = relative_difference(model(batch), source(batch, training=False))
        assert difference < TOLERANCE, f"{name} at {size} px: {difference:.2e}"


def test_logits_of_mobile_agree(randomize, images, relative_difference):
    check_logits("NASNetMobile", (64, 75), randomize, images, relative_difference)


@pytest.mark.slow
def test_logits_of_mobile_agree_at_more_sizes(randomize, images, relative_difference):
    sizes = (97, 113, 128, 224)
    check_logits("NASNetMobile", sizes, randomize, images, relative_difference)


@pytest.mark.slow
def test_logits_of_large_agree(randomize, images, relative_difference):
    check_logits("NASNetLarge", (64, 75), randomize, images, relative_difference)


def write_by_name(model, path):
    """A weights-only `.h5` in the layout of the published files."""
    with h5py.File(path, "w") as file:
        for layer in model.layers:
            group = file.create_group(layer.name)
            for variable in layer.weights:
                last = keras_compat.variable_path(variable).rsplit("/", 1)[-1]
                group[f"a_scope/{layer.name}/{last}:0"] = keras_compat.tf_variable(variable).numpy()
    return path


@pytest.mark.parametrize(
    "kind",
    [".h5", *(pytest.param(k, marks=pytest.mark.slow) for k in (".weights.h5", ".keras"))],
)
def test_files_give_the_live_models_weights(mobile, ours, kind, randomize, values, tmp_path):
    path = tmp_path / f"mobile{kind}"
    randomize(mobile, seed=len(kind))
    if kind == ".h5":
        write_by_name(mobile, path)
    elif kind == ".keras":
        mobile.save(path)
    else:
        mobile.save_weights(path)
    expected = values(from_keras_applications(mobile, ours)[0])
    randomize(ours, seed=99)
    report = load_weights(ours, path)
    assert report.count("loaded") == len(ours.weights)
    for name, value in values(ours).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_report_and_names(mobile, ours):
    _, report = from_keras_applications(mobile, ours)
    rows = {row.path: row for row in report}
    names = {
        "stem/kernel": "stem_conv1/kernel",
        "stem_cell2/align/odd/kernel": "adjust_conv_2_stem_2/kernel",
        "stack1_cell2/align/conv/kernel": "adjust_conv_projection_1/kernel",
        "stack2_cell1/project/norm/gamma": "normal_bn_1_5/gamma",
        "reduction2/block5_left/depthwise1/kernel": (
            "separable_conv_1_reduction_left4_reduce_8/kernel"
        ),
        "stack3_cell4/block2_right/pointwise2/kernel": (
            "separable_conv_2_normal_right2_12/pointwise_kernel"
        ),
    }
    for path, name in names.items():
        assert rows[path].tensor == name
    assert report.notes == (
        "The model does not normalise images: it expects (pixels - 127.5) / 127.5.",
    )
    assert report.preprocessing.mean == (127.5,)


@pytest.mark.slow
def test_the_built_network_has_the_sources_top():
    model, _ = from_keras_applications(
        keras_model(classes=7, classifier_activation="softmax", channels=1)
    )
    assert model.input_shape == (None, None, None, 1)
    assert model.output_shape == (None, 7)
    assert model.get_layer("classifier").activation is keras.activations.softmax
    assert "normalization" not in {layer.name for layer in model.layers}


@pytest.mark.slow
def test_classifier_is_left_out_of_a_model_without(ours):
    _, report = from_keras_applications(keras_model(classes=3), ours)
    left_out = [(row.tensor, row.reason) for row in report if row.action == "left out"]
    assert [name for name, _ in left_out] == ["predictions/kernel", "predictions/bias"]
    assert "include_top=False" in left_out[0][1]


@pytest.mark.parametrize("kind", [".weights.h5", ".keras"])
def test_own_files(kind, randomize, values, tmp_path):
    source = randomize(build_nasnet(TINY, classes=4))
    path = tmp_path / f"own{kind}"
    if kind == ".keras":
        source.save(path)
    else:
        source.save_weights(path)
    model = build_nasnet(TINY, classes=4)
    report = load_weights(model, path)
    assert report.source == "effnetv2_tf" and report.count("loaded") == len(model.weights)
    expected = values(source)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_own_file_of_another_width(tmp_path):
    path = tmp_path / "own.keras"
    build_nasnet(TINY, classes=4).save(path)
    model = build_nasnet(dataclasses.replace(TINY, penultimate_filters=192), classes=4)
    with pytest.raises(UsageError, match=r"own.keras.* does not fit model 'tiny'.*has shape"):
        load_weights(model, path)


@pytest.mark.parametrize("kind", [".weights.h5", ".keras"])
def test_own_file_of_another_class_count(kind, tmp_path):
    path = tmp_path / f"own{kind}"
    source = build_nasnet(TINY, classes=4)
    source.save(path) if kind == ".keras" else source.save_weights(path)
    with pytest.raises(UsageError, match=r"own.* classes=4 or include_top=False"):
        load_weights(build_nasnet(TINY, classes=3), path)


def test_own_file_of_another_genotype_with_the_same_shapes(tmp_path):
    path = tmp_path / "own.keras"
    build_nasnet(TINY, classes=4).save(path)
    swapped = Cell((Block(1, "sep_conv_3x3", 0, "identity"),))
    spec = dataclasses.replace(TINY, genotype=Genotype(swapped, swapped))
    with pytest.raises(UsageError, match="cells are of another genotype"):
        load_weights(build_nasnet(spec, classes=4), path)


def test_own_file_into_a_model_without_classifier(values, tmp_path):
    source = build_nasnet(TINY, classes=4)
    source.save(tmp_path / "own.keras")
    model = build_nasnet(TINY, include_top=False, pooling="avg")
    report = load_weights(model, tmp_path / "own.keras")
    left_out = [row.tensor for row in report if row.action == "left out"]
    assert left_out == ["classifier/kernel", "classifier/bias"]
    expected = values(source)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_another_genotype_is_refused(mobile):
    with pytest.raises(UsageError, match="NASNet-A.*'stem_cell1' of another genotype"):
        from_keras_applications(mobile, build_nasnet(TINY, classes=4))


@pytest.mark.slow
def test_another_class_count_is_refused_and_changes_nothing(values):
    model = build_nasnet(NASNET_MOBILE, classes=2)
    before = values(model)
    with pytest.raises(UsageError, match=r"'predictions/kernel' has shape \(1056, 3\).*classes=3"):
        from_keras_applications(keras_model(classes=3), model)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_auxiliary_head_is_not_theirs(mobile):
    model = build_nasnet(dataclasses.replace(SMALL, auxiliary_head=True), classes=3)
    with pytest.raises(UsageError, match=r"Load the weights into without_auxiliary_head\(model\)"):
        from_keras_applications(mobile, model)
    # Without it the widths are looked at.
    with pytest.raises(UsageError, match="another stem"):
        from_keras_applications(mobile, without_auxiliary_head(model))


def test_a_file_of_something_else(ours, tmp_path):
    path = tmp_path / "other.weights.h5"
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save_weights(path)
    with pytest.raises(UsageError, match="no NASNet of this package or of keras.applications"):
        load_weights(ours, path)


def test_published_weights_come_through_keras(mobile, ours, monkeypatch, values):
    asked = []

    def constructor(**arguments):
        asked.append(arguments)
        return mobile

    monkeypatch.setattr(keras.applications, "NASNetMobile", constructor)
    load_weights(ours, "imagenet")
    assert asked == [{"weights": "imagenet", "include_top": False}]
    expected = mobile.get_layer("stem_conv1").get_weights()[0]
    np.testing.assert_array_equal(values(ours)["stem/kernel"], expected)


def test_published_weights_that_cannot_be_fetched(ours, monkeypatch):
    def constructor(**arguments):
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "NASNetMobile", constructor)
    with pytest.raises(UsageError, match=r"nasnet/NASNet-mobile-no-top.h5 \(no network\)"):
        load_weights(ours, "imagenet")


def test_no_published_weights_for_another_network():
    model = build_nasnet(SMALL, classes=1000)
    with pytest.raises(UsageError, match="nasnet-mobile, nasnet-large.*1 cells in a stack"):
        load_weights(model, "imagenet")


def test_names_cover_all_variables_of_theirs(mobile, ours):
    names = {origin.name for origin in nasnet.origins(ours).values()}
    theirs = set(nasnet.read_model(mobile).tensors)
    assert theirs <= names
    assert names - theirs == {"predictions/kernel", "predictions/bias"}
