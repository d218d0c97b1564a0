"""RMSProp of many variables in one operation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import RMSProp
from effnetv2_tf.keras_compat import tf_variable
from effnetv2_tf.kernels import operations

pytestmark = pytest.mark.usefixtures("compiled")

# Tiny ones, and one of several threads' pieces with a remainder.
SHAPES = [(), (5,), (3, 3, 2, 4), (101, 1397), (0, 4)]


def run(steps=3, dtype="float32", factors=None, shapes=SHAPES):
    """The variables' values after some steps."""
    random = np.random.default_rng(0)
    variables = [
        keras.Variable(random.normal(size=shape).astype(dtype), dtype=dtype, name=f"v{i}")
        for i, shape in enumerate(shapes)
    ]
    optimizer = RMSProp(0.05, l2=0.01, learning_rate_factors=factors)
    optimizer.build(variables)

    @tf.function
    def step(gradients):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    gradients = [[tf.constant(random.normal(size=s), dtype) for s in shapes] for _ in range(steps)]
    for each in gradients:
        step(each)
    types = [x.type for x in step.get_concrete_function(gradients[0]).graph.get_operations()]
    return [variable.numpy() for variable in variables], types


@pytest.mark.parametrize("factors", [None, {"v1": 0.5, "v3": 0.1}], ids=["one rate", "three"])
def test_numbers_are_tensorflows(factors, monkeypatch):
    found, types = run(factors=factors)
    assert types.count("Effnetv2RmsProp") == (3 if factors else 1)
    assert "ResourceApplyRMSProp" not in types
    monkeypatch.setattr(operations, "in_use", lambda: False)
    expected, types = run(factors=factors)
    assert types.count("ResourceApplyRMSProp") == len(SHAPES)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_double_precision_is_tensorflows():
    _, types = run(dtype="float64", shapes=SHAPES[:2])
    assert "Effnetv2RmsProp" not in types
    assert types.count("ResourceApplyRMSProp") == 2


def test_a_run_is_the_same_again():
    for a, b in zip(run()[0], run()[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_was_read_before_stays():
    variable = keras.Variable(np.ones(4, "float32"))
    optimizer = RMSProp(0.1)
    optimizer.build([variable])
    before = tf_variable(variable).read_value()
    optimizer.apply_gradients([(tf.ones(4), variable)])
    np.testing.assert_array_equal(before, 1)
    assert variable.numpy().max() < 1


def test_a_gradient_of_another_shape():
    variable = keras.Variable(np.ones(4, "float32"))
    optimizer = RMSProp(0.1)
    optimizer.build([variable])
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"shaped \[3\], received float shaped \[4\]"
    ):
        optimizer.apply_gradients([(tf.ones(3), variable)])


def test_a_variable_twice():
    """Its updates come one after the other, as in Keras."""
    variable = keras.Variable(np.zeros(4, "float32"))
    optimizer = RMSProp(0.1, rho=0.9, momentum=0.5, epsilon=1e-3)
    optimizer.build([variable])
    optimizer.apply_gradients([(tf.fill(4, 1.0), variable), (tf.fill(4, 2.0), variable)])
    first = 0.1 / np.sqrt(0.1 + 1e-3)
    second = 0.5 * first + 0.2 / np.sqrt(0.09 + 0.4 + 1e-3)
    np.testing.assert_allclose(variable.numpy(), -first - second, rtol=1e-5)


def test_what_is_no_number_does_not_vanish():
    variable = keras.Variable(np.ones(40, "float32"))
    optimizer = RMSProp(0.1)
    optimizer.build([variable])
    gradient = np.ones(40, "float32")
    gradient[[3, 20]] = np.nan, np.inf
    optimizer.apply_gradients([(tf.constant(gradient), variable)])
    assert np.isnan(variable.numpy()[[3, 20]]).all()
    assert np.isfinite(np.delete(variable.numpy(), [3, 20])).all()


def test_replicas_of_a_strategy(two_cpus):
    """A strategy's variables change by its own ways."""
    two_cpus("""
        import keras
        from effnetv2_tf import RMSProp
        with strategy.scope():
            variable = keras.Variable(np.ones(4, "float32"))
            optimizer = RMSProp(0.1, momentum=0.9)
            optimizer.build([variable])
        step = lambda: optimizer.apply_gradients([(tf.ones(4), variable)])
        tf.function(lambda: strategy.run(step))()
        alone = keras.Variable(np.ones(4, "float32"))
        optimizer = RMSProp(0.1, momentum=0.9)
        optimizer.build([alone])
        optimizer.apply_gradients([(2 * tf.ones(4), alone)])
        np.testing.assert_allclose(variable.numpy(), alone.numpy(), rtol=1e-6)
    """)
