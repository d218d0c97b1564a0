"""Multiply-adds: what a network computes for one image.

Counted are the products of weights with activations, one multiplication and one addition
together as one, in dense, depthwise, group, pointwise and separable convolutions, dense
layers and squeeze-excite. This is what the EfficientNet papers call FLOPs. Not counted are
biases, norms (batch norms can be folded into the convolutions before them), activations,
pooling, resizing and the normalisation of pixels, and products of activations with each
other.

Against the published figures, at their image sizes and with 1000 classes: the counts agree
within the figures' rounding and 2 %, but for EfficientNet-B4 (4.39 G, the paper says 4.2 G) and
B5 (10.27 G, 9.9 G), and for the Lite networks (0.385, 0.600, 0.860, 1.383, 2.553 G; their README
says 0.407, 0.631, 0.899, 1.44, 2.64 G, which is what comes out if three operations are added for
each number that a convolution puts out).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from effnetv2_tf.models.layer_calls import LayerCall, Shape, calls_in_chain, calls_in_model
from effnetv2_tf.models.layers import (
    FactorizedReduction,
    FusedMBConv,
    GroupConv2D,
    MBConv,
    NASNetCell,
    PointwiseConv2D,
    SqueezeExcite,
)
from effnetv2_tf.models.layers.layer_chain import LayerChain
from effnetv2_tf.models.layers.residual_block import ResidualBlock
from effnetv2_tf.models.nasnet_specs import NASNetSpec
from effnetv2_tf.models.specs import NetworkSpec
from effnetv2_tf.models.stage_costs import (
    ImageSize,
    Sides,
    StageRow,
    image_sides,
    spec_stages,
    totals,
)

_BLOCK_NAMES = {
    FusedMBConv: "fused",
    MBConv: "mbconv",
    NASNetCell: "cell",
    PointwiseConv2D: "conv",
    GroupConv2D: "conv",
    keras.layers.DepthwiseConv2D: "depthwise",
    keras.layers.Conv2D: "conv",
    keras.layers.Dense: "dense",
}


def count_flops(model: keras.Model | NetworkSpec, image_size: ImageSize) -> int:
    """Multiply-adds of one image; what is counted: see this module's docstring.

    Args:
      model: any functional or sequential Keras model from one image, channels last, nested
        ones included; or the spec of a network, which need not be built.
      image_size: side in pixels, or (height, width).

    Raises:
      ValueError: if the model takes no such image, or has a layer with a kernel that is not
        known here (see `layer_multiply_adds`).
    """
    return totals(stage_table(model, image_size))[1]


def stage_table(model: keras.Model | NetworkSpec, image_size: ImageSize) -> tuple[StageRow, ...]:
    """The stem, the stages, the head and the classifier of a network, a row each.

    Other models have a row for every layer that holds a kernel; the norms after it are added
    to its parameters. Nothing is traced or computed, and no variable is made.

    Args:
      model: as `count_flops`'s. Of a spec, the network for colour images and 1000 classes.
      image_size: side in pixels, or (height, width).

    Raises:
      ValueError: see `count_flops`.
    """
    if isinstance(model, NetworkSpec):
        return spec_stages(model, image_size)
    if isinstance(model, NASNetSpec):
        raise ValueError(
            f"`model`: expected a built NASNet. Received: the spec of {model.name!r}; pass "
            "build_nasnet(spec)."
        )
    rows: list[StageRow] = []
    seen: set[int] = set()
    for call in calls_in_model(model, _input_shape(model, image_sides(image_size))):
        # A layer that is called twice works twice, but holds its parameters once.
        row = _row(call, counts_parameters=id(call.layer) not in seen)
        seen.add(id(call.layer))
        if rows and _belongs_to(row, rows[-1], call.layer):
            rows[-1] = _joined(rows[-1], row, call.layer)
        elif row.parameters or row.multiply_adds:
            rows.append(row)
    return tuple(rows)


@functools.singledispatch
def layer_multiply_adds(layer: Any, input_shape: Any, output_shape: Any) -> int:
    """Multiply-adds of one call of a layer; `register` adds another class of layers.

    Args:
      layer: of a class that is registered, or without kernels (these cost nothing).
      input_shape: with the batch axis, which is 1; a list of shapes for several inputs.
      output_shape: likewise.

    Raises:
      ValueError: for a layer that holds kernels and is of no registered class.
    """
    if any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ())):
        raise ValueError(
            f"layer {layer.name!r} is a {type(layer).__name__}, which has kernels and is not "
            "known to count_flops; expected convolutions, dense layers, or blocks of this "
            "package. Say what it computes with flops.layer_multiply_adds.register."
        )
    return 0


@layer_multiply_adds.register(keras.layers.Conv2D)
def _conv(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    channels = input_shape[_channel_axis(layer)]
    taps = math.prod(layer.kernel_size) * (channels // layer.groups)
    return _pixels(layer, output_shape) * taps * layer.filters


@layer_multiply_adds.register(GroupConv2D)
def _group_conv(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    channels = input_shape[-1]
    taps = math.prod(layer.kernel_size) * (channels // layer.group_count(channels))
    return math.prod(output_shape[1:]) * taps


@layer_multiply_adds.register(keras.layers.Conv2DTranspose)
def _transposed_conv(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    taps = math.prod(layer.kernel_size) * input_shape[_channel_axis(layer)]
    return _pixels(layer, input_shape) * taps * layer.filters


@layer_multiply_adds.register(keras.layers.DepthwiseConv2D)
def _depthwise_conv(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    filters = input_shape[_channel_axis(layer)] * layer.depth_multiplier
    return _pixels(layer, output_shape) * math.prod(layer.kernel_size) * filters


@layer_multiply_adds.register(keras.layers.SeparableConv2D)
def _separable_conv(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    hidden = input_shape[_channel_axis(layer)] * layer.depth_multiplier
    taps = math.prod(layer.kernel_size) + layer.filters
    return _pixels(layer, output_shape) * taps * hidden


@layer_multiply_adds.register(PointwiseConv2D)
@layer_multiply_adds.register(keras.layers.Dense)
def _dense(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    return math.prod(output_shape[1:]) * input_shape[-1]


@layer_multiply_adds.register(SqueezeExcite)
def _squeeze_excite(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    return _chain_multiply_adds((layer.reduce, layer.expand), (1, 1, 1, input_shape[-1]))


@layer_multiply_adds.register(ResidualBlock)
def _residual_block(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    return _chain_multiply_adds(layer.branch(), input_shape)


@layer_multiply_adds.register(LayerChain)
def _layer_chain(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    return _chain_multiply_adds(layer.chain, input_shape)


@layer_multiply_adds.register(FactorizedReduction)
def _factorized_reduction(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    return math.prod(output_shape[1:]) * input_shape[-1]


@layer_multiply_adds.register(NASNetCell)
def _nasnet_cell(layer: Any, input_shape: Any, output_shape: Shape) -> int:
    return sum(_chain_multiply_adds([part], shape) for part, shape in layer.parts(input_shape))


@layer_multiply_adds.register(keras.Model)
def _nested_model(layer: Any, input_shape: Shape, output_shape: Shape) -> int:
    return sum(map(_call_multiply_adds, calls_in_model(layer, input_shape)))


def _call_multiply_adds(call: LayerCall) -> int:
    return layer_multiply_adds(call.layer, call.input_shape, call.output_shape)


def _chain_multiply_adds(layers: Sequence[Any], shape: Shape) -> int:
    return sum(map(_call_multiply_adds, calls_in_chain(layers, shape)))


def _channel_axis(layer: Any) -> int:
    return 1 if layer.data_format == "channels_first" else -1


def _pixels(layer: Any, shape: Shape) -> int:
    return math.prod(shape[2:] if layer.data_format == "channels_first" else shape[1:-1])


def _input_shape(model: keras.Model, sides: Sides) -> Shape:
    """The shape of one image of that size, if the model takes such images."""
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] is None:
        raise ValueError(
            f"model {model.name!r}: expected one input (batch, height, width, channels), "
            f"received {shapes or 'a model without known inputs: build it first'}"
        )
    fixed = shapes[0][1:3]
    if any(own not in (None, side) for own, side in zip(fixed, sides, strict=True)):
        raise ValueError(
            f"`image_size` must be that of model {model.name!r}, {fixed}. "
            f"Received: image_size={sides}."
        )
    return (1, *sides, int(shapes[0][-1]))


def _row(call: LayerCall, counts_parameters: bool) -> StageRow:
    layer = call.layer
    weights = getattr(layer, "weights", ()) if counts_parameters else ()
    after = call.output_shape if isinstance(call.output_shape, tuple) else call.output_shape[0]
    is_block = isinstance(layer, ResidualBlock)
    kernel_size, strides = _geometry(layer)
    return StageRow(
        name=_stage_name(layer) if is_block else layer.name,
        block=_block_name(layer),
        kernel_size=kernel_size,
        strides=strides,
        output_size=(after[1], after[2]) if len(after) == 4 else (1, 1),
        channels=after[-1],
        repeats=1,
        parameters=sum(math.prod(weight.shape) for weight in weights),
        multiply_adds=_call_multiply_adds(call),
        expansion=layer.expansion if is_block else None,
        se_ratio=layer.se_ratio if is_block else 0.0,
    )


def _geometry(layer: Any) -> tuple[Sides | None, Sides | None]:
    """Kernel size and strides of a convolution or a block of them."""
    if isinstance(layer, PointwiseConv2D):
        return (1, 1), (1, 1)
    if isinstance(layer, ResidualBlock):
        return _pair(layer.kernel_size), _pair(layer.stride)
    if hasattr(layer, "kernel_size") and len(layer.kernel_size) == 2:
        return _pair(layer.kernel_size), _pair(layer.strides)
    return None, None


def _stage_name(block: Any) -> str:
    """`stage3` for the block `stage3_block2`, as `network` names them."""
    return block.name.rpartition("_block")[0] or block.name


def _block_name(layer: Any) -> str:
    for layer_class, name in _BLOCK_NAMES.items():
        if isinstance(layer, layer_class):
            return name
    return type(layer).__name__.lower()


def _belongs_to(row: StageRow, last: StageRow, layer: Any) -> bool:
    """Whether a row is a further block of the stage before it, or the norm after it."""
    if isinstance(layer, ResidualBlock):
        return row.name == last.name
    return row.multiply_adds == 0


def _joined(last: StageRow, row: StageRow, layer: Any) -> StageRow:
    return replace(
        last,
        repeats=last.repeats + isinstance(layer, ResidualBlock),
        parameters=last.parameters + row.parameters,
        multiply_adds=last.multiply_adds + row.multiply_adds,
    )


def _pair(size: Any) -> Sides:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    return pair[0], pair[1]
