"""The activation that a model ends with, however it is spelt."""

import keras
import pytest

from effnetv2_tf.models.outputs import output_activation


def _classifier(*layers):
    image = keras.Input((4,))
    output = image
    for layer in layers:
        output = layer(output)
    return keras.Model(image, output)


def _dense(activation=None):
    return keras.layers.Dense(3, activation=activation)


@pytest.mark.parametrize(
    ("make", "activation"),
    [
        (lambda: _classifier(_dense()), "linear"),
        (lambda: _classifier(_dense("softmax")), "softmax"),
        (lambda: _classifier(_dense(), keras.layers.Activation("sigmoid")), "sigmoid"),
        (lambda: _classifier(_dense(), keras.layers.Softmax()), "softmax"),
        (lambda: _classifier(_dense(), keras.layers.Activation("linear")), "linear"),
        (lambda: _classifier(_dense("softmax"), keras.layers.Activation("linear")), "softmax"),
        (lambda: keras.Sequential([keras.Input((4,)), _classifier(_dense())]), "linear"),
        (lambda: _classifier(_classifier(_dense("softmax"))), "softmax"),
        (lambda: _classifier(_dense(), keras.layers.BatchNormalization()), None),
    ],
)
def test_layers_and_models_within(make, activation):
    assert output_activation(make()) == activation


@pytest.mark.skipif(not hasattr(keras, "ops"), reason="Keras 2 has no operations")
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_operations(name):
    assert output_activation(_classifier(_dense(), getattr(keras.ops, name))) == name
