"""The size rule of training at reduced resolution: the paper's table, and what breaks it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnetv2_tf.training.reduced_sizes import check_reduced_size, reduced_size


@pytest.mark.parametrize(
    ("test_size", "expected"),
    [(224, 160), (240, 176), (260, 196), (300, 204), (380, 252), (456, 328)],
)
def test_the_papers_sizes(test_size, expected):
    """EfficientNet-B0 to B5 of arXiv 2106.03640."""
    assert reduced_size(test_size) == expected


@pytest.mark.parametrize(
    ("test_size", "modulo", "expected"), [(48, 8, 32), (28, 4, 20), (32, 16, 16), (40, 32, 8)]
)
def test_small_networks(test_size, modulo, expected):
    assert reduced_size(test_size, modulo) == expected


@given(modulo=st.integers(1, 64), steps=st.integers(1, 40), rest=st.integers(0, 63))
def test_what_is_picked_is_allowed_and_the_nearest(modulo, steps, rest):
    test_size = 8 + rest % modulo + steps * modulo
    size = reduced_size(test_size, modulo)
    check_reduced_size(size, test_size, modulo)
    others = range(test_size - modulo, 7, -modulo)
    assert abs(size - 0.7 * test_size) <= min(abs(o - 0.7 * test_size) for o in others) + 1e-9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (28,),
            "28 leaves no smaller size of at least 8 pixels .* modulo 32; expected at least 40",
        ),
        ((224, 0), "`modulo` must be at least 1. Received: modulo=0"),
    ],
)
def test_no_size_to_pick(arguments, message):
    with pytest.raises(ValueError, match=message):
        reduced_size(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((161, 224), r"remainder modulo 32 \(0\), received 161; the nearest is 160"),
        ((224, 224), "smaller than the test size 224, .*received 224; the nearest is 192"),
        ((9, 224), "received 9; the nearest is 32"),
        ((16, 28), "received 16; there is none"),
        ((250, 380), r"\(28\), received 250; the nearest is 252"),
    ],
)
def test_a_size_that_breaks_the_rule(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_reduced_size(*arguments)
