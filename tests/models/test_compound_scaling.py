"""Compound scaling: the rule's values, the grid, and how far the published networks follow."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnetv2_tf.models import compound_scaling, families, scaling
from effnetv2_tf.models.compound_scaling import (
    Coefficients,
    compound_scale,
    nonuniform_scale,
    scale_size,
    scaling_grid,
)
from effnetv2_tf.models.published_scaling import comparison_table, published_scaling

B0 = families.EFFICIENTNET_B0
S = families.EFFICIENTNETV2_S
PHIS = st.floats(-3, 8)
FACTORS = st.floats(1, 2)


def test_one_phi_by_hand():
    scaled = compound_scale(B0, 1)
    assert (scaled.depth, scaled.width) == (1.2, 1.1)
    assert (scaled.train_size, scaled.eval_size) == (256, 256)  # 224 * 1.15 = 257.6
    assert scaled.name == "efficientnet-b0-phi1"
    assert scaled == replace(
        B0, name=scaled.name, depth=1.2, width=1.1, train_size=256, eval_size=256
    )


def test_two_phi_on_a_network_that_is_scaled_already():
    scaled = compound_scale(families.EFFICIENTNETV2_B3, 2, 1.1, 1.3, 1.2, name="mine")
    assert scaled.name == "mine"
    assert scaled.depth == 1.694  # 1.4 * 1.21
    assert scaled.width == 2.028  # 1.2 * 1.69
    assert (scaled.train_size, scaled.eval_size) == (344, 432)  # 240, 300 * 1.44 = 345.6, 432


def test_nothing_changes_at_phi_0():
    assert compound_scale(B0, 0, name=B0.name) == B0
    odd = replace(B0, eval_size=225)
    assert compound_scale(odd, 0).eval_size == 225


@given(PHIS, PHIS, FACTORS, FACTORS, FACTORS)
def test_more_phi_is_never_less(one, other, alpha, beta, gamma):
    few, many = sorted((one, other))
    small = compound_scale(S, few, alpha, beta, gamma)
    large = compound_scale(S, many, alpha, beta, gamma)
    for quantity in ("depth", "width", "train_size", "eval_size"):
        assert getattr(small, quantity) <= getattr(large, quantity), quantity
    for stage in S.stages:
        filters, repeats = scaling.scaled_stage(small, stage)
        more_filters, more_repeats = scaling.scaled_stage(large, stage)
        assert filters <= more_filters
        assert repeats <= more_repeats


@given(st.integers(8, 1000), st.floats(0.05, 20), st.sampled_from([1, 4, 8, 32]))
def test_sizes_are_multiples_and_never_turn_the_direction(size, factor, multiple):
    scaled = scale_size(size, factor, multiple)
    assert scaled % multiple == 0 or scaled == size
    assert scaled >= size if factor >= 1 else scaled <= size
    assert abs(scaled - size * factor) <= multiple or scaled == multiple


@pytest.mark.parametrize(
    ("size", "factor", "multiple", "expected"),
    [
        (224, 1.15, 4, 256),  # 257.6
        (224, 1.15, 1, 258),
        (224, 1.15, 32, 256),
        (30, 1.01, 32, 32),
        (17, 1.01, 16, 17),  # 16 would be smaller than before
        (33, 0.99, 32, 32),
        (8, 0.1, 8, 8),
    ],
)
def test_known_sizes(size, factor, multiple, expected):
    assert scale_size(size, factor, multiple) == expected


# (variant, phi of the published size, depth and width of the rule there)
RULE = [
    ("b1", 0.4936, 1.0942, 1.0482),
    ("b2", 1.0664, 1.2146, 1.1070),
    ("b3", 2.0902, 1.4639, 1.2205),
    ("b4", 3.7816, 1.9927, 1.4339),
    ("b5", 5.0861, 2.5277, 1.6238),
    ("b6", 6.1351, 3.0604, 1.7945),
    ("b7", 7.0497, 3.6158, 1.9580),
]


def test_published_networks_beside_the_rule():
    rows = published_scaling()
    values = [(r.variant, r.phi, r.depth.formula, r.width.formula) for r in rows]
    for value, expected in zip(values, RULE, strict=True):
        assert value[0] == expected[0]
        assert value[1:] == pytest.approx(expected[1:], abs=6e-5), expected[0]
    assert [row.size.published for row in rows] == [240, 260, 300, 380, 456, 528, 600]
    assert [row.width.published for row in rows] == [1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0]
    assert [row.depth.published for row in rows] == [1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1]
    assert [row.width.rounded for row in rows] == [1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0]
    assert [row.depth.rounded for row in rows] == [1.1, 1.2, 1.5, 2.0, 2.5, 3.1, 3.6]
    assert all(abs(row.size.difference) < 1e-9 for row in rows)
    assert rows[6].depth.difference == pytest.approx(-0.5158, abs=1e-4)


def test_only_the_depths_of_b3_to_b7_were_set_by_hand():
    by_hand = {row.variant: row.set_by_hand for row in published_scaling()}
    assert by_hand == {
        "b1": (),
        "b2": (),
        **dict.fromkeys(("b3", "b4", "b5", "b6", "b7"), ("depth",)),
    }


def test_what_each_number_implies_alone():
    b7 = published_scaling()[-1]
    assert b7.width.phi == pytest.approx(math.log(2.0) / math.log(1.1))
    assert b7.depth.phi == pytest.approx(6.2056, abs=1e-4)
    assert b7.size.phi == b7.phi


@pytest.mark.parametrize("row", published_scaling(), ids=lambda row: row.variant)
def test_the_tool_makes_the_published_networks(row):
    published = families.SPECS[f"efficientnet-{row.variant}"]
    made = compound_scale(B0, row.phi, decimals=1)
    assert (made.width, made.train_size, made.eval_size) == (
        published.width,
        published.train_size,
        published.eval_size,
    )
    assert (made.depth == published.depth) == ("depth" not in row.set_by_hand)
    made = replace(made, depth=published.depth)
    assert scaling.scaled_head_filters(made) == scaling.scaled_head_filters(published)
    for stage in B0.stages:
        assert scaling.scaled_stage(made, stage) == scaling.scaled_stage(published, stage)


def test_the_comparison_as_text():
    lines = comparison_table(published_scaling()).splitlines()
    assert len(lines) == 2 + 7
    assert lines[2].split()[:4] == ["b1", "0.49", "0.00", "0.52"]
    assert lines[8].endswith("600.0    600   +0.0  depth by hand")


@pytest.mark.parametrize(
    ("phi", "stage_5", "stage_6", "train_size", "eval_size"),
    [
        (0, 9, 15, 300, 384),
        (1, 11, 18, 344, 440),  # 10.8, 18 layers; 384 * 1.15 = 441.6; 300 * 440 / 384 = 343.75
        (2, 13, 22, 376, 480),  # 12.96, 21.6 layers; 507.8 is past the limit; 375
        (6, 27, 45, 376, 480),  # 26.9, 44.8 layers
    ],
)
def test_the_rule_of_version_2(phi, stage_5, stage_6, train_size, eval_size):
    scaled = nonuniform_scale(S, phi)
    layers = [scaling.scaled_stage(scaled, stage)[1] for stage in scaled.stages]
    assert layers == [2, 4, 4, 6, stage_5, stage_6]
    assert scaled.width == pytest.approx(1.1**phi)
    assert (scaled.train_size, scaled.eval_size) == (train_size, eval_size)
    assert scaled.depth == 1.0


def test_late_stages_and_limit_are_the_callers():
    scaled = nonuniform_scale(S, 1, alpha=2, gamma=2, late_stages=(1, 6), max_size=500)
    assert [stage.repeats for stage in scaled.stages] == [4, 4, 4, 6, 9, 30]
    assert scaled.eval_size == 500
    assert scaled.train_size == 392  # 300 * 500 / 384 = 390.6


def test_the_depth_that_a_network_has_already_stays():
    b3 = families.EFFICIENTNETV2_B3  # depth 1.4
    scaled = nonuniform_scale(b3, 1)
    before = [scaling.scaled_stage(b3, stage)[1] for stage in b3.stages]
    layers = [scaling.scaled_stage(scaled, stage)[1] for stage in scaled.stages]
    assert layers[:4] == before[:4] == [2, 3, 3, 5]
    assert layers[4:] == [9, 14]  # 5 * 1.68 = 8.4, 8 * 1.68 = 13.4


@given(PHIS, PHIS, FACTORS)
def test_more_phi_is_never_less_in_version_2_and_keeps_to_the_limit(one, other, factor):
    few, many = sorted((one, other))
    small = nonuniform_scale(S, few, factor, factor, factor)
    large = nonuniform_scale(S, many, factor, factor, factor)
    assert small.width <= large.width
    assert small.train_size <= large.train_size <= large.eval_size <= 480
    assert small.eval_size <= large.eval_size
    for before, less, more in zip(S.stages, small.stages, large.stages, strict=True):
        assert less.repeats <= more.repeats
        assert before.repeats == less.repeats or before in S.stages[4:]


def test_the_grid_by_hand():
    assert [tuple(vars(c).values()) for c in scaling_grid(step=0.2)] == [
        (1.0, 1.0, 1.4),  # 1.96
        (1.0, 1.2, 1.2),  # 2.0736
        (1.0, 1.4, 1.0),
        (1.4, 1.0, 1.2),  # 2.016
        (1.4, 1.2, 1.0),
        (2.0, 1.0, 1.0),
    ]
    assert len(scaling_grid()) == 22
    assert Coefficients() in scaling_grid(step=0.05)
    assert Coefficients().product == pytest.approx(1.920, abs=5e-4)


@given(st.floats(0.1, 1), st.floats(1, 4), st.floats(0, 2))
def test_every_candidate_keeps_the_constraint(step, target, tolerance):
    try:
        grid = scaling_grid(step=step, target=target, tolerance=tolerance)
    except ValueError as error:
        assert "nearest product" in str(error)
        return
    assert len(set(grid)) == len(grid)
    for candidate in grid:
        assert abs(candidate.product - target) <= tolerance + 1e-9
        assert min(candidate.alpha, candidate.beta, candidate.gamma) >= 1


def test_given_values_take_the_place_of_the_grids():
    grid = scaling_grid(alphas=[1.2], betas=[1.1, 1.3], gammas=[1.15, 1.15])
    assert grid == (Coefficients(1.2, 1.1, 1.15),)


def test_an_empty_grid_names_the_nearest():
    with pytest.raises(ValueError, match=r"`tolerance` 0\.01 of `target` 2: .*product is 1\.92 "):
        scaling_grid(tolerance=0.01, alphas=[1.2], betas=[1.1], gammas=[1.15])
    with pytest.raises(ValueError, match=r"alpha 1\.2, beta 1\.1, gamma 1\.15\); a .* of 0\.08 "):
        scaling_grid(tolerance=0.01, alphas=[1.2], betas=[1.1], gammas=[1.15])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: compound_scale(B0, 1, alpha=0.9), r"`alpha` must be .* at least 1 .*alpha=0.9"),
        (lambda: compound_scale(B0, 1, gamma=math.nan), r"`gamma` must be .*gamma=nan"),
        (lambda: compound_scale(B0, 1, beta=math.inf), r"`beta` must be .*beta=inf"),
        (lambda: compound_scale(B0, math.nan), r"`phi` must lie in .*phi=nan"),
        (lambda: compound_scale(B0, 21), r"`phi` must lie in \[-20, 20\].*phi=21"),
        (lambda: compound_scale(B0, 1, size_multiple=0), "`size_multiple` must be at least 1"),
        (lambda: nonuniform_scale(S, 1, late_stages=(6, 7)), r"`late_stages` .* 1 to 6.*\(6, 7\)"),
        (lambda: nonuniform_scale(S, 1, late_stages=()), "`late_stages` must hold"),
        (lambda: nonuniform_scale(S, 1, max_size=380), r"`max_size` .*\(384\).*max_size=380"),
        (lambda: scaling_grid(step=0), r"`step` must lie in \(0, 1\].*step=0"),
        (lambda: scaling_grid(step=math.nan), "`step` must lie in"),
        (lambda: scaling_grid(step=1e-4), "more than 1,000,000 points; choose a `step` over"),
        (lambda: scaling_grid(target=1e308, tolerance=1e308), "more than 1,000,000 points"),
        (lambda: scaling_grid(target=0.5), "`target` must be a finite number of at least 1"),
        (lambda: scaling_grid(tolerance=-0.1), "`tolerance` must be a finite number >= 0"),
        (lambda: scaling_grid(alphas=[0.5]), r"`alpha` must be .*alpha=0.5"),
        (lambda: scaling_grid(betas=[]), "`betas` must hold at least one number"),
        (lambda: published_scaling(gamma=1.0), "must be over 1 here"),
    ],
)
def test_impossible_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_sizes_are_rounded_as_the_published_ones():
    sizes = [spec.eval_size for name, spec in families.SPECS.items() if "v2" not in name]
    assert math.gcd(*sizes) == compound_scaling.SIZE_MULTIPLE
