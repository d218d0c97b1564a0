"""Width and depth rounding and stochastic-depth rates: pure functions."""

from __future__ import annotations

import math
from dataclasses import replace

from effnetv2_tf.models.specs import NetworkSpec, Rounding, StageSpec

DIVISOR = 8


def round_filters(filters: float, rounding: Rounding) -> int:
    """Rounds a scaled width to a multiple of 8, at least 8.

    `"nearest"` is the EfficientNetV2 reference's rule. `"at_least_90_percent"` is
    EfficientNet V1's (and MobileNet's): as nearest, but up where rounding down would take
    more than 10 % away.
    """
    rounded = max(DIVISOR, int(filters + DIVISOR / 2) // DIVISOR * DIVISOR)
    if rounding == "at_least_90_percent" and rounded < 0.9 * filters:
        rounded += DIVISOR
    return rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Number of blocks of a stage after depth scaling: rounded up (EfficientNet, section 3.3)."""
    return math.ceil(repeats * depth)


def total_stride(spec: NetworkSpec) -> int:
    """By what the last feature map is smaller than the image."""
    return spec.stem_stride * math.prod(stage.stride for stage in spec.stages)


def scaled_stem_filters(spec: NetworkSpec) -> int:
    """Width of the stem."""
    if not spec.scale_stem:
        return spec.stem_filters
    return round_filters(spec.stem_filters * spec.width, spec.rounding)


def scaled_head_filters(spec: NetworkSpec) -> int:
    """Width of the last 1x1 convolution."""
    if not spec.scale_head:
        return spec.head_filters
    return round_filters(spec.head_filters * spec.width, spec.rounding)


def scaled_stage(spec: NetworkSpec, stage: StageSpec) -> tuple[int, int]:
    """`(filters, repeats)` of a stage after width and depth scaling."""
    filters = round_filters(stage.filters * spec.width, spec.rounding)
    depth = spec.depth if stage.scale_depth else 1.0
    return filters, round_repeats(stage.repeats, depth)


def side_after_stride(side: int, kernel_size: int, stride: int, padding: str) -> int:
    """Side in pixels of what a convolution makes of a side; for `padding` see `NetworkSpec`.

    The two kinds differ for even kernels alone.
    """
    if padding == "same" or stride == 1:
        return math.ceil(side / stride)
    return (side + 2 * (kernel_size // 2) - kernel_size) // stride + 1


def convolution_groups(channels: int, filters: int, group_size: int) -> int:
    """Number of groups of a convolution with `group_size` input channels in each.

    `max(channels // group_size, 1)`; where that many do not divide both the input channels
    and the filters, the next smaller number that does. So groups have at least `group_size`
    channels, if there are so many: 40 channels in groups of 16 become 2 groups of 20.
    """
    groups = max(channels // group_size, 1)
    while channels % groups or filters % groups:
        groups -= 1
    return groups


def with_group_size(spec: NetworkSpec, group_size: int = 16, expansion: int = 4) -> NetworkSpec:
    """The same network with group convolutions, as G16-EfficientNet (arXiv 2106.03640).

    Args:
      spec: of any family. Its name gets `-g16` (for groups of 16) at the end.
      group_size: channels per group of the blocks' spatial convolutions.
      expansion: of all blocks that expand; smaller than the usual 6 to keep the costs.
    """
    stages = tuple(
        stage if stage.expansion == 1 else replace(stage, expansion=expansion)
        for stage in spec.stages
    )
    name = f"{spec.name}-g{group_size}"
    return replace(spec, name=name, stages=stages, group_size=group_size)


def block_count(spec: NetworkSpec) -> int:
    """Number of blocks in the whole network after depth scaling."""
    return sum(scaled_stage(spec, stage)[1] for stage in spec.stages)


def drop_path_rates(last_rate: float, blocks: int) -> tuple[float, ...]:
    """Stochastic-depth drop rate of every block: 0 at the first, `last_rate` at the last.

    Linear in the block index, as timm's. Huang et al. (arXiv 1603.09382, section 3) give the
    first of n blocks `last_rate / n` already; google/automl gives the last one less.
    """
    if blocks == 1:
        return (last_rate,)
    return tuple(last_rate * (index / (blocks - 1)) for index in range(blocks))
