"""Pareto fronts against tables by hand, and what must hold for any points."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnetv2_tf.reporting.pareto import pareto_front

COST_ACCURACY = [(1, 0.7), (2, 0.8), (2, 0.75), (3, 0.8), (4, 0.9), (5, 0.89)]


@pytest.mark.parametrize(
    ("points", "directions", "expected"),
    [
        (COST_ACCURACY, ("min", "max"), (0, 1, 4)),
        (COST_ACCURACY, ("max", "max"), (4, 5)),
        (COST_ACCURACY, ("min", "min"), (0,)),
        ([(3,), (1,), (2,), (1,)], ("min",), (1, 3)),  # equal points stay together
        ([(3,), (1,), (3,)], ("max",), (0, 2)),
        ([(1, 1, 9), (1, 2, 8), (2, 2, 8), (0, 5, 5)], ("min", "min", "max"), (0, 3)),
        ([(1, math.inf), (2, -math.inf)], ("min", "max"), (0,)),
        ([], ("min", "max"), ()),
        ([(5, 5)], ("min", "max"), (0,)),
    ],
)
def test_fronts_by_hand(points, directions, expected):
    assert pareto_front(points, directions) == expected


NUMBERS = st.integers(-3, 3)


@given(
    points=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=12),
    directions=st.tuples(*[st.sampled_from(["min", "max"])] * 3),
)
def test_a_point_is_in_the_front_or_dominated_by_one_in_it(points, directions):
    signs = [1 if direction == "min" else -1 for direction in directions]

    def dominates(a, b):
        differences = [s * (x - y) for s, x, y in zip(signs, a, b, strict=True)]
        return max(differences) <= 0 and min(differences) < 0

    front = pareto_front(points, directions)
    assert front
    for index, point in enumerate(points):
        dominated = any(dominates(points[other], point) for other in front)
        assert dominated == (index not in front)


@given(points=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=10), seed=st.randoms())
def test_the_order_of_the_points_does_not_matter(points, seed):
    shuffled = list(points)
    seed.shuffle(shuffled)
    ours, theirs = (
        sorted(each[i] for i in pareto_front(each, ("min", "max"))) for each in (points, shuffled)
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("points", "directions", "message"),
    [
        ([(1, 2), (1,)], ("min", "max"), r"must hold 2 numbers each.*points\[1\]=\[1\]"),
        ([(1, math.nan)], ("min", "max"), r"points\[0\]=\[1, nan\]; leave such points out"),
        ([(1, 2)], ("min", "up"), "`directions` must be 'min' or 'max'. Received: 'up'"),
    ],
)
def test_what_has_no_front(points, directions, message):
    with pytest.raises(ValueError, match=message):
        pareto_front(points, directions)
