"""The mapping of tensors to variables: strict, atomic, with a row for every tensor."""

import dataclasses

import keras
import numpy as np
import pytest

from effnetv2_tf.errors import UsageError
from effnetv2_tf.loading import load_model
from effnetv2_tf.models.families import SPECS
from effnetv2_tf.models.layers import BatchNorm
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import CENTRED_127, IMAGENET_STATISTICS
from effnetv2_tf.weights.mapping import Origin, WeightFile, load_tensors, variables_by_path
from effnetv2_tf.weights.variants import matching_row, spec_of, variable_shapes


def file_of(values, **changes):
    """A file whose tensors are called as the variables, in capitals."""
    file = WeightFile("test", "file.bin", {path.upper(): v for path, v in values.items()})
    return dataclasses.replace(file, **changes)


def random_values(spec, classes=4, channels=3):
    rng = np.random.default_rng(1)
    shapes = variable_shapes(spec, classes, channels)
    return {p: rng.uniform(0.5, 1, shape).astype("float32") for p, shape in shapes.items()}


@pytest.fixture
def origins(tiny_spec):
    return {path: Origin(path.upper()) for path in variable_shapes(tiny_spec)}


def test_every_variable_gets_its_value(tiny_spec, tiny_network, origins, values):
    model, expected = tiny_network(), random_values(tiny_spec)
    report = load_tensors(model, origins, file_of(expected))
    loaded = values(model)
    assert loaded.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(loaded[path], value, err_msg=path)
    assert report.count("loaded") == len(report) == len(expected)
    assert [row.path for row in report] == list(expected)


def test_a_transform_is_applied_and_reported(tiny_spec, tiny_network, origins, values):
    model, expected = tiny_network(), random_values(tiny_spec)
    stored = dict(expected)
    stored["stem/kernel"] = expected["stem/kernel"].transpose(3, 2, 0, 1)
    origins["stem/kernel"] = Origin(
        "STEM/KERNEL", lambda tensor: tensor.transpose(2, 3, 1, 0), "OIHW to HWIO"
    )
    report = load_tensors(model, origins, file_of(stored))
    np.testing.assert_array_equal(values(model)["stem/kernel"], expected["stem/kernel"])
    (row,) = [row for row in report if row.action == "reshaped"]
    assert (row.path, row.tensor, row.shape) == ("stem/kernel", "STEM/KERNEL", (8, 3, 3, 3))
    assert row.reason == "OIHW to HWIO"


def test_half_precision_is_widened_and_reported(tiny_spec, tiny_network, origins):
    stored = random_values(tiny_spec)
    stored["stem_norm/gamma"] = stored["stem_norm/gamma"].astype("float16")
    report = load_tensors(tiny_network(), origins, file_of(stored))
    (row,) = [row for row in report if row.action == "reshaped"]
    assert (row.path, row.reason) == ("stem_norm/gamma", "float16 to float32")


def test_report_is_a_table_with_notes_and_a_summary(tiny_spec, tiny_network, origins):
    stored = file_of(
        {**random_values(tiny_spec), "step": np.zeros(())}, left_out={"STEP": "a counter"}
    )
    report = load_tensors(tiny_network(), origins, stored)
    lines = str(report).splitlines()
    assert lines[0].split() == ["variable", "tensor", "shape", "action", "reason"]
    assert lines[1].split() == ["stem/kernel", "STEM/KERNEL", "3x3x3x8", "loaded"]
    assert lines[-2].split() == ["-", "STEP", "scalar", "left", "out", "a", "counter"]
    assert lines[-1] == report.summary()
    assert report.summary() == (
        f"test, file.bin: {len(report) - 1} tensors loaded, 0 reshaped, 1 left out."
    )


def test_a_network_without_top_leaves_the_classifier_out(tiny_spec, tiny_network, origins):
    model = tiny_network(include_top=False)
    report = load_tensors(model, origins, file_of(random_values(tiny_spec)))
    left_out = [(row.tensor, row.reason) for row in report if row.action == "left out"]
    reason = "the model has no classifier (include_top=False)"
    assert left_out == [("CLASSIFIER/KERNEL", reason), ("CLASSIFIER/BIAS", reason)]
    assert report.count("loaded") == len(model.weights)


def test_a_tensor_without_use_is_an_error(tiny_spec, tiny_network, origins):
    stored = file_of({**random_values(tiny_spec), "surplus": np.zeros((2, 5))})
    with pytest.raises(UsageError, match=r"no variable for tensor 'SURPLUS' of shape \(2, 5\)"):
        load_tensors(tiny_network(), origins, stored)


def test_a_missing_tensor_is_an_error(tiny_spec, tiny_network, origins):
    stored = random_values(tiny_spec)
    del stored["head/kernel"]
    with pytest.raises(UsageError, match=r"'HEAD/KERNEL' is not in it, but variable 'head/kernel'"):
        load_tensors(tiny_network(), origins, file_of(stored))


@pytest.mark.parametrize(
    ("stored", "advice"),
    [
        ({"classes": 7}, r"'CLASSIFIER/KERNEL' has shape \(24, 7\).*\(24, 4\).*Pass classes=7 or "),
        (
            {"channels": 1},
            r"'STEM/KERNEL' has shape \(3, 3, 1, 8\).*\(3, 3, 3, 8\).*"
            r"Pass input_shape=\(None, None, 1\)\.",
        ),
        (
            {"classes": 7, "channels": 1},
            r"Pass input_shape=\(None, None, 1\) and classes=7 or include_top=False\.",
        ),
    ],
    ids=["classes", "channels", "both"],
)
def test_errors_say_what_to_pass(tiny_spec, tiny_network, origins, stored, advice):
    with pytest.raises(UsageError, match=advice):
        load_tensors(tiny_network(), origins, file_of(random_values(tiny_spec, **stored)))


def test_a_file_without_classifier_says_so(tiny_spec, tiny_network, origins):
    stored = random_values(tiny_spec)
    del stored["classifier/kernel"], stored["classifier/bias"]
    with pytest.raises(UsageError, match=r"'CLASSIFIER/KERNEL' is not in it.*include_top=False"):
        load_tensors(tiny_network(), origins, file_of(stored))


def test_another_variant_is_named(tiny_network, origins):
    stored = random_values(SPECS["efficientnetv2-b1"], classes=1000)
    with pytest.raises(UsageError, match=r"those of 'efficientnetv2-b1': build that network"):
        load_tensors(tiny_network(), origins, file_of(stored))


def test_a_network_of_no_family_is_said_to_be_one(tiny_spec, tiny_network, origins):
    wider = dataclasses.replace(tiny_spec, width=2.0)
    with pytest.raises(UsageError, match=r"no network in effnetv2_tf\.models\.families\.SPECS"):
        load_tensors(tiny_network(), origins, file_of(random_values(wider)))


def test_a_failed_import_changes_nothing(tiny_spec, tiny_network, origins, values):
    model = tiny_network()
    before = values(model)
    config = model.get_config()
    stored = file_of(
        random_values(tiny_spec, classes=7), preprocessing=CENTRED_127, batch_norm_epsilon=1e-5
    )
    with pytest.raises(UsageError):
        load_tensors(model, origins, stored)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)
    assert model.get_config() == config


def test_a_spec_of_another_model_is_refused(tiny_spec, tiny_network):
    deeper = dataclasses.replace(tiny_spec, depth=2.0)
    origins = {path: Origin(path.upper()) for path in variable_shapes(deeper)}
    with pytest.raises(UsageError, match=r"`spec` does not describe .* has no 'stage1_block2/"):
        load_tensors(tiny_network(), origins, file_of(random_values(deeper)))


def test_another_padding_is_refused(tiny_spec, tiny_network, origins):
    stored = file_of(random_values(tiny_spec), padding="symmetric")
    with pytest.raises(UsageError, match=r"Pass padding='symmetric' to the constructor"):
        load_tensors(tiny_network(), origins, stored)
    symmetric = build_network(dataclasses.replace(tiny_spec, padding="symmetric"), classes=4)
    load_tensors(symmetric, origins, stored)


def test_preprocessing_comes_along(tiny_spec, tiny_network, origins, tmp_path):
    model = tiny_network()
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    model.predict(images, verbose=0)  # traces with the old numbers
    stored = file_of(random_values(tiny_spec), preprocessing=IMAGENET_STATISTICS)
    report = load_tensors(model, origins, stored)

    assert report.preprocessing == IMAGENET_STATISTICS
    (note,) = report.notes
    assert note.startswith("Input normalisation set to the weights': (pixels - (123.675, ")
    assert note.endswith("it was (pixels - 128) / 128.")
    assert note in str(report)

    spec = dataclasses.replace(tiny_spec, preprocessing=IMAGENET_STATISTICS)
    expected_model = build_network(spec, classes=4)
    load_tensors(expected_model, origins, file_of(random_values(tiny_spec)))
    expected = np.asarray(expected_model(images))
    np.testing.assert_allclose(model(images), expected, rtol=1e-5)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(load_model(tmp_path / "model.keras")(images), expected, rtol=1e-5)


def test_colour_statistics_are_averaged_for_grey_images(tiny_spec, tiny_network, origins):
    model = tiny_network(input_shape=(None, None, 1))
    stored = random_values(tiny_spec, channels=1)
    load_tensors(model, origins, file_of(stored, preprocessing=IMAGENET_STATISTICS))
    assert model.get_layer("normalization").mean == pytest.approx([0.449 * 255])


def test_preprocessing_is_only_told_where_the_model_has_none(tiny_spec, tiny_network, origins):
    model = tiny_network(include_preprocessing=False)
    stored = file_of(random_values(tiny_spec), preprocessing=CENTRED_127)
    report = load_tensors(model, origins, stored)
    assert report.notes == (
        "The model does not normalise images: it expects (pixels - 127) / 128.",
    )


def test_agreeing_preprocessing_needs_no_note(tiny_spec, tiny_network, origins):
    same = dataclasses.replace(tiny_spec.preprocessing, mean=(128.0,) * 3, std=(128.0,) * 3)
    stored = file_of(random_values(tiny_spec), preprocessing=same, batch_norm_epsilon=1e-3)
    assert load_tensors(tiny_network(), origins, stored).notes == ()


def test_epsilon_comes_along(tiny_spec, tiny_network, origins, tmp_path):
    model = tiny_network()
    stored = file_of(random_values(tiny_spec), batch_norm_epsilon=1e-1)
    report = load_tensors(model, origins, stored)
    assert report.notes == ("Epsilon of the batch norms set to the weights': 0.1; it was 0.001.",)

    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected_model = build_network(
        dataclasses.replace(tiny_spec, batch_norm_epsilon=1e-1), classes=4
    )
    load_tensors(expected_model, origins, file_of(random_values(tiny_spec)))
    expected = np.asarray(expected_model(images))
    np.testing.assert_allclose(model(images), expected, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), expected, rtol=1e-5)
    norms = [layer for layer in loaded._flatten_layers() if isinstance(layer, BatchNorm)]
    assert len(norms) == 13 and {norm.epsilon for norm in norms} == {0.1}


@pytest.mark.parametrize(
    "name", ["efficientnetv2-b0", "efficientnet-b0", "efficientnet-lite0", "tiny"]
)
def test_shapes_are_those_of_the_built_network(name, tiny_spec):
    spec = SPECS.get(name, tiny_spec)
    model = build_network(spec, classes=5, input_shape=(None, None, 1))
    built = {path: tuple(v.shape) for path, v in variables_by_path(model).items()}
    assert variable_shapes(spec, classes=5, channels=1) == built


@pytest.mark.parametrize("name", SPECS)
def test_a_row_is_found_by_its_shapes(name):
    shapes = [shape[::-1] for shape in variable_shapes(SPECS[name], 21843, 1).values()]
    assert matching_row(shapes) is SPECS[name]
    assert matching_row(shapes[:-2]) is SPECS[name]  # without the classifier
    assert matching_row(shapes[:-20]) is None


def test_the_spec_is_read_off_a_network(tiny_spec):
    symmetric = dataclasses.replace(tiny_spec, padding="symmetric", batch_norm_epsilon=1e-5)
    spec = spec_of(build_network(symmetric, classes=4))
    assert variable_shapes(spec) == variable_shapes(tiny_spec)
    assert (spec.name, spec.padding, spec.batch_norm_epsilon) == ("tiny", "symmetric", 1e-5)
    assert [stage.stride for stage in spec.stages] == [1, 2, 2]
    assert spec.stem_stride == 2 and spec.activation == "silu"
    assert spec.preprocessing.mean == tiny_spec.preprocessing.mean


def test_a_scaled_network_is_recognised_as_its_row():
    row = SPECS["efficientnet-b1"]
    renamed = dataclasses.replace(row, name="mine", preprocessing=CENTRED_127)
    spec = spec_of(build_network(renamed, classes=4))
    assert spec.name == "efficientnet-b1"
    assert variable_shapes(spec, 4) == variable_shapes(row, 4)
    assert spec.preprocessing.mean == (127.0,)


def test_another_model_has_no_spec():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="other")
    with pytest.raises(UsageError, match=r"Received: model 'other' with layers"):
        spec_of(model)
