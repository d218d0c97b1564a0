"""Rounding, depth scaling and stochastic-depth rates: known values and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnetv2_tf.models import families, scaling, specs

WIDTHS = st.floats(0.1, 5000)


@given(WIDTHS, st.sampled_from(["nearest", "at_least_90_percent"]))
def test_widths_are_multiples_of_8(filters, rounding):
    rounded = scaling.round_filters(filters, rounding)
    assert rounded % 8 == 0
    assert rounded >= 8
    assert abs(rounded - filters) <= 8 or rounded == 8


@given(WIDTHS)
def test_never_under_90_percent_in_that_mode(filters):
    assert scaling.round_filters(filters, "at_least_90_percent") >= 0.9 * filters


@pytest.mark.parametrize(
    ("filters", "nearest", "at_least"),
    [
        (32 * 1.1, 32, 32),  # 35.2: 32 is 91 % of it
        (48 * 1.1, 56, 56),  # 52.8: past the middle
        (16 * 1.2, 16, 24),  # 19.2: 16 would be 83 %
        (16 * 1.1, 16, 16),
        (96 * 1.2, 112, 112),  # 115.2
        (192 * 1.2, 232, 232),  # 230.4
        (1280 * 1.1, 1408, 1408),
        (12, 16, 16),
        (11.9, 8, 16),
        (1, 8, 8),
    ],
)
def test_known_widths(filters, nearest, at_least):
    assert scaling.round_filters(filters, "nearest") == nearest
    assert scaling.round_filters(filters, "at_least_90_percent") == at_least


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40))
def test_groups_divide_and_are_no_smaller_than_asked(channels, filters, group_size):
    groups = scaling.convolution_groups(channels, filters, group_size)
    assert channels % groups == 0 and filters % groups == 0
    assert channels // groups >= min(group_size, channels)
    more = range(groups + 1, max(channels // group_size, 1) + 1)
    assert not [n for n in more if channels % n == 0 and filters % n == 0]


@pytest.mark.parametrize(
    ("repeats", "depth", "expected"), [(1, 1.1, 2), (5, 1.2, 6), (8, 1.4, 12), (3, 0.5, 2)]
)
def test_depths_are_rounded_up(repeats, depth, expected):
    assert scaling.round_repeats(repeats, depth) == expected


@pytest.mark.parametrize(
    ("spec", "stem", "head", "stages"),
    [
        (
            families.EFFICIENTNETV2_B3,
            40,
            1536,
            [(16, 2), (40, 3), (56, 3), (112, 5), (136, 7), (232, 12)],
        ),
        (
            families.EFFICIENTNETV2_S,
            24,
            1280,
            [(24, 2), (48, 4), (64, 4), (128, 6), (160, 9), (256, 15)],
        ),
    ],
)
def test_scaled_networks(spec, stem, head, stages):
    assert scaling.scaled_stem_filters(spec) == stem
    assert scaling.scaled_head_filters(spec) == head
    assert [scaling.scaled_stage(spec, stage) for stage in spec.stages] == stages
    assert scaling.block_count(spec) == sum(repeats for _, repeats in stages)


@given(st.floats(0, 0.99), st.integers(2, 100))
def test_drop_path_rates_are_linear_with_exact_ends(last_rate, blocks):
    rates = scaling.drop_path_rates(last_rate, blocks)
    assert len(rates) == blocks
    assert rates[0] == 0
    assert rates[-1] == last_rate
    step = last_rate / (blocks - 1)
    assert rates == pytest.approx([i * step for i in range(blocks)], abs=1e-12)


def test_one_block_has_the_last_rate():
    assert scaling.drop_path_rates(0.2, 1) == (0.2,)


def _spec(**changes):
    return specs.NetworkSpec(
        **{"name": "x", "stages": families.EFFICIENTNETV2_S.stages, "stem_filters": 8, **changes}
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: specs.StageSpec("dense", 3, 1, 1, 8, 1), "`block` must be .*'dense'"),
        (lambda: specs.StageSpec("fused", 0, 1, 1, 8, 1), "`kernel_size` must be a positive"),
        (lambda: specs.StageSpec("fused", 3, 1, 1, 8.5, 1), "`filters` must be .*8.5"),
        (lambda: specs.StageSpec("fused", 3, 1, 1, 8, 0), "`repeats` must be a positive"),
        (lambda: specs.StageSpec("mbconv", 3, 1, 1, 8, 1, 1.5), r"`se_ratio` .*\[0, 1\]"),
        (lambda: specs.NetworkSpec("x", (), 8), "`stages` is empty"),
        (
            lambda: specs.NetworkSpec("x", families.EFFICIENTNETV2_S.stages, 8, width=0),
            "`width` must be positive. Received: 0",
        ),
        (
            lambda: specs.NetworkSpec("x", families.EFFICIENTNETV2_S.stages, 8, dropout_rate=1),
            r"`dropout_rate` must lie in \[0, 1\). Received: 1",
        ),
        (
            lambda: specs.NetworkSpec("x", ({"block": "fused"},), 8),
            r"`stages` must hold StageSpecs. Received: \{'block': 'fused'\}",
        ),
        (lambda: _spec(rounding="at_least_90"), "`rounding`.*did you mean 'at_least_90_percent'"),
        (lambda: _spec(padding="valid"), "`padding` must be one of .*'valid'"),
        (lambda: _spec(stem_filters=0), "`stem_filters` must be a positive integer"),
        (lambda: _spec(depth=float("nan")), "`depth` must be positive. Received: nan"),
        (lambda: _spec(width=float("inf")), "`width` must be positive. Received: inf"),
        (lambda: _spec(batch_norm_epsilon=-1.0), "`batch_norm_epsilon` must be positive"),
        (lambda: _spec(batch_norm_momentum=1.5), "`batch_norm_momentum` must lie in"),
        (lambda: specs.Preprocessing((1, 2), (1, 2)), "1 or 3 numbers"),
        (lambda: specs.Preprocessing((1,), (0,)), "`std` must be positive"),
    ],
)
def test_impossible_specs(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_grey_preprocessing_averages_the_colours():
    grey = specs.IMAGENET_STATISTICS.for_channels(1)
    assert grey.mean == pytest.approx([255 * (0.485 + 0.456 + 0.406) / 3])
    assert grey.std == pytest.approx([255 * (0.229 + 0.224 + 0.225) / 3])
    assert specs.CENTRED_128.for_channels(1) is specs.CENTRED_128
    assert specs.IMAGENET_STATISTICS.for_channels(3) is specs.IMAGENET_STATISTICS
