"""Networks that start from somebody's tensor, as keras.applications' do."""

import warnings

import keras
import numpy as np
import pytest

import effnetv2_tf
from effnetv2_tf import EfficientNetV2B0, build_network
from effnetv2_tf.export import export_onnx, wrap_model
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.runtimes import Artefact, load
from effnetv2_tf.models import families
from effnetv2_tf.models.nasnet import build_nasnet
from effnetv2_tf.models.nasnet_specs import NASNET_MOBILE


@pytest.fixture
def grey():
    """(input, images of three channels in [0, 255]): grey ones in [0, 1] brought into range."""
    image = keras.Input((64, 64, 1), name="grey")
    colour = keras.layers.Concatenate(name="colour")([image, image, image])
    return image, keras.layers.Rescaling(255.0, name="pixels")(colour)


@pytest.fixture
def grey_images():
    return np.random.default_rng(0).uniform(0, 1, (2, 64, 64, 1)).astype(np.float32)


def test_a_plain_input_is_the_models_input():
    image = keras.Input((48, 32, 3), name="mine")
    model = EfficientNetV2B0(input_tensor=image, classes=4)
    assert model.inputs[0] is image
    assert (model.input_shape, model.output_shape) == ((None, 48, 32, 3), (None, 4))
    with pytest.warns(UserWarning, match=r"lie in \[0, 1\]"):  # as of any of the networks
        model(np.full((1, 48, 32, 3), 0.5, np.float32))


def test_layers_before_the_network_are_part_of_the_model(grey, grey_images):
    _, pixels = grey
    model = EfficientNetV2B0(input_tensor=pixels, classes=4)
    names = [layer.name for layer in model.layers]
    assert names[:4] == ["grey", "colour", "pixels", "normalization"]
    alone = EfficientNetV2B0(classes=4)
    alone.set_weights(model.get_weights())
    expected = alone(np.repeat(grey_images * 255, 3, axis=-1)).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # values in [0, 1] are right here
        np.testing.assert_allclose(model(grey_images), expected, atol=1e-6)
    inner = keras.Model(model.input, model.get_layer("stage3_block1").output)
    assert inner(grey_images).shape == (2, 8, 8, 48)


def test_weights_are_the_networks_own(grey, grey_images, tmp_path):
    source = EfficientNetV2B0(classes=4)
    source.save_weights(tmp_path / "b0.weights.h5")
    image, pixels = grey
    mine = keras.layers.Conv2D(3, 1, name="mine")(pixels)
    model = EfficientNetV2B0(weights=tmp_path / "b0.weights.h5", input_tensor=mine, classes=4)
    between = keras.Model(image, model.get_layer("mine").output)
    expected = source(between(grey_images)).numpy()
    np.testing.assert_allclose(model(grey_images), expected, atol=1e-6)
    # The layers' outputs are still those of this model, and it is saved whole.
    features = keras.Model(model.input, model.get_layer("head").output)
    assert features(grey_images).shape == (2, 2, 2, 1280)
    model.save(tmp_path / "b0.keras")
    loaded = keras.models.load_model(tmp_path / "b0.keras")
    np.testing.assert_allclose(loaded(grey_images), expected, atol=1e-6)


def test_several_inputs(tiny_spec):
    one, other = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    model = build_network(tiny_spec, classes=2, input_tensor=keras.layers.Add()([one, other]))
    assert [tuple(shape) for shape in model.input_shape] == [(None, 32, 32, 3)] * 2
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    same = model([images, np.zeros_like(images)]) - model([np.zeros_like(images), images])
    assert abs(same.numpy()).max() == 0


def test_it_trains_and_is_exported(grey, grey_images, tmp_path):
    _, pixels = grey
    model = EfficientNetV2B0(input_tensor=pixels, classes=2)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(grey_images, np.array([0, 1]), epochs=1, verbose=0)
    exportable = wrap_model(model, preparation=ImagePreparation(64, channels=1))
    path = export_onnx(exportable, tmp_path / "grey.onnx")
    runner, _ = load(Artefact("onnx", "float32", path))
    np.testing.assert_allclose(runner.run(grey_images), model(grey_images), atol=1e-5)


@pytest.mark.parametrize("name", ["EfficientNetB0", "EfficientNetLite0", "EfficientNetB0G16"])
def test_other_families(name):
    image = keras.Input((32, 32, 1))
    model = getattr(effnetv2_tf, name)(input_tensor=image, include_top=False, pooling="avg")
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 1), (None, 1280))


def test_nasnet():
    image = keras.Input((64, 64, 3))
    model = build_nasnet(NASNET_MOBILE, input_tensor=image, classes=3)
    assert model.inputs[0] is image
    assert effnetv2_tf.NASNetMobile(input_tensor=image, classes=3).inputs[0] is image


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_tensor": np.zeros((1, 32, 32, 3))}, "symbolic.*Received: ndarray.*on values"),
        ({"input_tensor": (32, 32)}, r"images, \(batch.*Received: shape \(None, 32, 32\)"),
        (
            {"input_tensor": (32, 32, 3), "input_shape": (64, 64, 3)},
            r"that of `input_tensor`, \(32, 32, 3\).*input_shape=\(64, 64, 3\)",
        ),
        (
            {"input_tensor": (32, 32, 3), "input_shape": 32},
            "that of `input_tensor`.*input_shape=32",
        ),
        ({"input_tensor": (32, 32, None)}, "`input_shape` must be"),
    ],
)
def test_what_cannot_be_an_input_tensor(arguments, message):
    given = arguments["input_tensor"]
    tensor = keras.Input(given) if isinstance(given, tuple) else given
    with pytest.raises(ValueError, match=message):
        build_network(families.EFFICIENTNETV2_B0, **{**arguments, "input_tensor": tensor})


def test_the_shape_may_be_given_twice():
    image = keras.Input((32, 32, 1))
    assert EfficientNetV2B0(input_tensor=image, input_shape=(32, 32, 1)).inputs[0] is image
