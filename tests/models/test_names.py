"""Names as people type them."""

import inspect
import subprocess
import sys

import pytest

import effnetv2_tf
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.families import SPECS
from effnetv2_tf.models.names import find_spec


@pytest.mark.parametrize("name", SPECS)
def test_every_name_means_itself(name):
    assert find_spec(name) is SPECS[name]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("EfficientNetV2S", "efficientnetv2-s"),
        ("v2-s", "efficientnetv2-s"),
        ("V2_XL", "efficientnetv2-xl"),
        ("efficientnetv2_b3", "efficientnetv2-b3"),
        ("tf_efficientnetv2_s", "efficientnetv2-s"),
        ("effnetv2-l", "efficientnetv2-l"),
        ("lite0", "efficientnet-lite0"),
        ("EfficientNet Lite4", "efficientnet-lite4"),
        ("b0", "efficientnet-b0"),
        ("v1-b7", "efficientnet-b7"),
        ("EfficientNetL2", "efficientnet-l2"),
        ("l2", "efficientnet-l2"),
    ],
)
def test_loosely_typed_names(typed, name):
    assert find_spec(typed).name == name


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("efficientnetv2-sx", "did you mean 'efficientnetv2-s'"),
        ("lite9", "did you mean 'lite"),
        ("b12", "did you mean 'b"),
        ("resnet50", "known: efficientnetv2-b0, "),
        ("", "known: "),
    ],
)
def test_unknown_names_get_a_suggestion(typed, hint):
    with pytest.raises(UsageError, match="unknown network") as error:
        find_spec(typed)
    assert repr(typed) in str(error.value)
    assert hint in str(error.value)


@pytest.mark.parametrize("name", [n for n in dir(effnetv2_tf) if n.startswith("EfficientNet")])
def test_every_constructor_takes_what_all_take(name):
    common = inspect.signature(effnetv2_tf.EfficientNetV2S).parameters
    assert common.keys() <= inspect.signature(getattr(effnetv2_tf, name)).parameters.keys()


@pytest.mark.parametrize("name", [n for n in dir(effnetv2_tf) if n.startswith("EfficientNet")])
def test_help_tells_every_argument_of_a_constructor(name):
    constructor = getattr(effnetv2_tf, name)
    for argument in inspect.signature(constructor).parameters:
        assert f"\n      {argument}: " in constructor.__doc__


def test_synchronized_batch_norm_of_a_constructor():
    model = effnetv2_tf.EfficientNetV2B0(classes=2, synchronized_batch_norm=True)
    assert model.get_layer("stem_norm").synchronized


def test_the_rooms_of_the_package_are_found():
    code = "import effnetv2_tf; print(effnetv2_tf.models.layers.MBConv.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "MBConv"
