"""Even and odd pixels, each with a 1x1 convolution."""

import numpy as np
import pytest

from effnetv2_tf.models.layers import FactorizedReduction


@pytest.mark.parametrize("sides", [(4, 4), (5, 7), (1, 2)])
def test_values(sides):
    """By hand: identity kernels show which pixels each half of the channels sees."""
    layer = FactorizedReduction(4)
    x = np.random.default_rng(0).normal(size=(2, *sides, 2)).astype("f")
    layer.build(x.shape)
    for part in (layer.even, layer.odd):
        part.kernel.assign(np.eye(2, dtype="f").reshape(1, 1, 2, 2))
    actual = np.asarray(layer(x)) * np.sqrt(1 + 1e-3)  # undoes the fresh batch norm
    positive = np.maximum(x, 0)
    rows, columns = -(-sides[0] // 2), -(-sides[1] // 2)
    expected = np.zeros((2, rows, columns, 4), "f")
    for row in range(rows):
        for column in range(columns):
            expected[:, row, column, :2] = positive[:, 2 * row, 2 * column]
            if 2 * row + 1 < sides[0] and 2 * column + 1 < sides[1]:
                expected[:, row, column, 2:] = positive[:, 2 * row + 1, 2 * column + 1]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert layer.compute_output_shape(x.shape) == actual.shape


def test_an_odd_width_is_divided():
    layer = FactorizedReduction(5)
    assert layer(np.zeros((1, 4, 4, 3), "f")).shape == (1, 2, 2, 5)
    assert [layer.even.filters, layer.odd.filters] == [2, 3]


def test_too_few_filters():
    with pytest.raises(ValueError, match="`filters` must be an integer of at least 2"):
        FactorizedReduction(1)


def test_config():
    layer = FactorizedReduction(6, 0.5, 1e-4, True, name="align")
    copy = FactorizedReduction.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
