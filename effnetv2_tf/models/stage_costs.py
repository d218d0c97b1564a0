"""What each stage of a network costs, from its spec alone: pure arithmetic, no TensorFlow.

`flops.stage_table` gives the same rows for a built model, by walking its layers; tests hold
the two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from effnetv2_tf.errors import is_whole
from effnetv2_tf.models import scaling
from effnetv2_tf.models.specs import NetworkSpec, StageSpec

ImageSize = int | Sequence[int]
Sides = tuple[int, int]


@dataclass(frozen=True)
class StageRow:
    """One line of a network's table: the stem, a stage, the head or the classifier.

    Attributes:
      name: `stem`, `stage1`, ..., `head`, `classifier`; of other models, the layer's name.
      block: what it is made of: `conv`, `fused`, `mbconv`, `dense`, or another kind of layer.
      kernel_size: (height, width) of the spatial convolution; None without one.
      strides: (height, width) of the first block; None without a convolution.
      output_size: (height, width) in pixels.
      channels: of the output.
      repeats: number of blocks.
      parameters: numbers held, batch norms' moving statistics included.
      multiply_adds: for one image, see `flops`.
      expansion: of the blocks' hidden width; None where there is none.
      se_ratio: width of squeeze-excite over the block's input width; 0 for none.
    """

    name: str
    block: str
    kernel_size: Sides | None
    strides: Sides | None
    output_size: Sides
    channels: int
    repeats: int
    parameters: int
    multiply_adds: int
    expansion: int | None = None
    se_ratio: float = 0.0


@dataclass(frozen=True)
class _Cost:
    parameters: int
    multiply_adds: int

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)

    def times(self, count: int) -> _Cost:
        return _Cost(self.parameters * count, self.multiply_adds * count)


def spec_stages(
    spec: NetworkSpec,
    image_size: ImageSize | None = None,
    *,
    classes: int = 1000,
    channels: int = 3,
) -> tuple[StageRow, ...]:
    """The rows of the network that `build_network(spec)` would build.

    Args:
      spec: of the network.
      image_size: side in pixels, or (height, width); None for the spec's `eval_size`.
      classes: of the classifier.
      channels: of the image.

    Raises:
      ValueError: for an image size that cannot be.
    """
    sides = image_sides(spec.eval_size if image_size is None else image_size)
    sides = _after_stride(spec, sides, 3, spec.stem_stride)
    inputs = scaling.scaled_stem_filters(spec)
    stem = _conv(channels, inputs, 3, math.prod(sides)) + _norm(spec, inputs)
    rows = [_row("stem", "conv", 3, spec.stem_stride, sides, inputs, stem)]
    for number, stage in enumerate(spec.stages, start=1):
        filters, repeats = scaling.scaled_stage(spec, stage)
        cost, sides = _stage(spec, stage, inputs, filters, repeats, sides)
        rows.append(
            _row(
                f"stage{number}",
                stage.block,
                stage.kernel_size,
                stage.stride,
                sides,
                filters,
                cost,
                repeats=repeats,
                expansion=stage.expansion,
                se_ratio=stage.se_ratio,
            )
        )
        inputs = filters
    filters = scaling.scaled_head_filters(spec)
    head = _conv(inputs, filters, 1, math.prod(sides)) + _norm(spec, filters)
    rows.append(_row("head", "conv", 1, 1, sides, filters, head))
    classifier = _conv(filters, classes, 1, 1, has_bias=True)
    rows.append(_row("classifier", "dense", None, None, (1, 1), classes, classifier))
    return tuple(rows)


def totals(rows: Sequence[StageRow]) -> tuple[int, int]:
    """`(parameters, multiply_adds)` of all rows together."""
    return sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)


def image_sides(image_size: ImageSize) -> Sides:
    """`(height, width)` of a side, or of a pair.

    Raises:
      ValueError: unless all are whole numbers from 1 up.
    """
    pair = tuple(image_size) if isinstance(image_size, Sequence) else (image_size,) * 2
    if len(pair) != 2 or not all(is_whole(side) and side > 0 for side in pair):
        raise ValueError(
            "`image_size` must be a positive integer or a pair (height, width) of them. "
            f"Received: image_size={image_size!r}."
        )
    return int(pair[0]), int(pair[1])


def _stage(
    spec: NetworkSpec, stage: StageSpec, inputs: int, filters: int, repeats: int, sides: Sides
) -> tuple[_Cost, Sides]:
    """The cost of a stage, and the sides of its output."""
    after = _after_stride(spec, sides, stage.kernel_size, stage.stride)
    first = _block(spec, stage, inputs, filters, math.prod(sides), math.prod(after))
    other = _block(spec, stage, filters, filters, math.prod(after), math.prod(after))
    return first + other.times(repeats - 1), after


def _block(
    spec: NetworkSpec, stage: StageSpec, inputs: int, filters: int, before: int, after: int
) -> _Cost:
    """The cost of one block; `before` and `after` its stride there are so many pixels."""
    expanded = inputs * stage.expansion
    hidden = filters if stage.block == "fused" and stage.expansion == 1 else expanded
    cost = _spatial(spec, stage, inputs, hidden, after) + _norm(spec, hidden)
    if stage.block == "fused" and stage.expansion == 1:
        return cost
    if stage.block == "mbconv" and stage.expansion != 1:
        cost += _conv(inputs, hidden, 1, before) + _norm(spec, hidden)
    if stage.se_ratio:
        squeezed = max(1, int(inputs * stage.se_ratio))
        cost += _conv(hidden, squeezed, 1, 1, has_bias=True)
        cost += _conv(squeezed, hidden, 1, 1, has_bias=True)
    return cost + _conv(hidden, filters, 1, after) + _norm(spec, filters, is_activated=False)


def _spatial(spec: NetworkSpec, stage: StageSpec, inputs: int, hidden: int, pixels: int) -> _Cost:
    """A block's k x k convolution: dense, depthwise, or in groups."""
    channels = inputs if stage.block == "fused" else hidden
    groups = channels if stage.block == "mbconv" else 1
    if spec.group_size is not None:
        groups = scaling.convolution_groups(channels, hidden, spec.group_size)
    return _conv(channels, hidden, stage.kernel_size, pixels, groups=groups)


def _conv(
    inputs: int, filters: int, side: int, pixels: int, groups: int = 1, has_bias: bool = False
) -> _Cost:
    """A convolution with a `side` x `side` kernel that yields `pixels` pixels."""
    weights = side * side * (inputs // groups) * filters
    return _Cost(weights + filters * has_bias, weights * pixels)


def _norm(spec: NetworkSpec, channels: int, is_activated: bool = True) -> _Cost:
    """What a norm holds; it is folded into the convolution before, or not counted."""
    return _Cost(len(norm_variables(spec, is_activated)) * channels, 0)


def norm_variables(spec: NetworkSpec, is_activated: bool = True) -> tuple[str, ...]:
    """Names of a norm's variables, each with a number for every channel, in their order.

    Args:
      spec: of the network.
      is_activated: whether an activation follows, as everywhere but after the projections.
    """
    if spec.normalization == "batch":
        return ("gamma", "beta", "moving_mean", "moving_variance")
    if not spec.proxy_normalization:
        return ("gamma", "beta")
    return ("gamma", "beta", "proxy_gamma", "proxy_beta") if is_activated else ("gamma",)


def _after_stride(spec: NetworkSpec, sides: Sides, kernel_size: int, stride: int) -> Sides:
    height, width = (
        scaling.side_after_stride(side, kernel_size, stride, spec.padding) for side in sides
    )
    return height, width


def _row(
    name: str,
    block: str,
    kernel_size: int | None,
    stride: int | None,
    output_size: Sides,
    channels: int,
    cost: _Cost,
    *,
    repeats: int = 1,
    expansion: int | None = None,
    se_ratio: float = 0.0,
) -> StageRow:
    return StageRow(
        name=name,
        block=block,
        kernel_size=None if kernel_size is None else (kernel_size, kernel_size),
        strides=None if stride is None else (stride, stride),
        output_size=output_size,
        channels=channels,
        repeats=repeats,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        expansion=expansion,
        se_ratio=se_ratio,
    )
