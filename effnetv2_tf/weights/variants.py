"""Shapes of a spec's variables without building it; the spec of a model or of some shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import cast

import keras

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models import scaling
from effnetv2_tf.models.families import SPECS
from effnetv2_tf.models.layers import FusedMBConv, InputNormalization, MBConv
from effnetv2_tf.models.specs import (
    NetworkSpec,
    Normalization,
    Padding,
    StageSpec,
)
from effnetv2_tf.models.stage_costs import norm_variables

Shape = tuple[int, ...]
# Kernel and bias of the classifier, which depend on the class count, and the stem's kernel,
# which depends on the image's channels, may differ from a row's: as missing and as surplus.
_TOLERATED_DIFFERENCES = 6


def variable_shapes(spec: NetworkSpec, classes: int = 1000, channels: int = 3) -> dict[str, Shape]:
    """Path and shape of every variable of the spec's network, in the network's order."""
    stem, head = scaling.scaled_stem_filters(spec), scaling.scaled_head_filters(spec)
    shapes: dict[str, Shape] = {"stem/kernel": (3, 3, channels, stem)}
    shapes |= _norm(spec, "stem_norm", stem)
    input_filters = stem
    for number, stage in enumerate(spec.stages, start=1):
        filters, repeats = scaling.scaled_stage(spec, stage)
        for repeat in range(repeats):
            block = f"stage{number}_block{repeat + 1}"
            for path, shape in _block(spec, stage, input_filters, filters):
                shapes[f"{block}/{path}"] = shape
            input_filters = filters
    shapes["head/kernel"] = (1, 1, input_filters, head)
    shapes |= _norm(spec, "head_norm", head)
    shapes |= {"classifier/kernel": (head, classes), "classifier/bias": (classes,)}
    return shapes


def _norm(
    spec: NetworkSpec, name: str, filters: int, is_activated: bool = True
) -> dict[str, Shape]:
    return {f"{name}/{part}": (filters,) for part in norm_variables(spec, is_activated)}


def _block(
    spec: NetworkSpec, stage: StageSpec, inputs: int, filters: int
) -> Iterator[tuple[str, Shape]]:
    expanded, side = inputs * stage.expansion, stage.kernel_size
    if stage.block == "fused":
        fused = expanded if stage.expansion != 1 else filters
        yield "fused/kernel", (side, side, _group_channels(spec, inputs, fused), fused)
        yield from _norm(spec, "fused_norm", fused).items()
        if stage.expansion == 1:
            return
    else:
        if stage.expansion != 1:
            yield "expand/kernel", (1, 1, inputs, expanded)
            yield from _norm(spec, "expand_norm", expanded).items()
        if spec.group_size is None:
            yield "depthwise/kernel", (side, side, expanded, 1)
            yield from _norm(spec, "depthwise_norm", expanded).items()
        else:
            channels = _group_channels(spec, expanded, expanded)
            yield "group_conv/kernel", (side, side, channels, expanded)
            yield from _norm(spec, "group_conv_norm", expanded).items()
    if stage.se_ratio:
        squeezed = max(1, int(inputs * stage.se_ratio))
        yield "squeeze_excite/reduce/kernel", (1, 1, expanded, squeezed)
        yield "squeeze_excite/reduce/bias", (squeezed,)
        yield "squeeze_excite/expand/kernel", (1, 1, squeezed, expanded)
        yield "squeeze_excite/expand/bias", (expanded,)
    yield "project/kernel", (1, 1, expanded, filters)
    yield from _norm(spec, "project_norm", filters, is_activated=False).items()


def _group_channels(spec: NetworkSpec, channels: int, filters: int) -> int:
    """Input channels that an output channel of a spatial convolution sees."""
    if spec.group_size is None:
        return channels
    return channels // scaling.convolution_groups(channels, filters, spec.group_size)


def matching_row(shapes: Iterable[Shape]) -> NetworkSpec | None:
    """The row of `families.SPECS` whose variables have these shapes, whatever the layout.

    Class count and image channels may differ from the row's, and the classifier may be
    missing.

    Args:
      shapes: of all tensors that hold weights, in any order and any framework's layout.
    """
    found = Counter(map(_layout_free, shapes))
    differences = {}
    for spec in SPECS.values():
        expected = Counter(map(_layout_free, variable_shapes(spec).values()))
        differences[spec.name] = ((found - expected) + (expected - found)).total()
    best = min(differences, key=lambda name: differences[name])
    return SPECS[best] if differences[best] <= _TOLERATED_DIFFERENCES else None


def _layout_free(shape: Shape) -> Shape:
    return tuple(sorted(side for side in shape if side != 1))


def spec_of(model: keras.Model) -> NetworkSpec:
    """The spec that a network of this package was built from, read off its layers.

    Widths and repeats are those after scaling. What the graph does not show (training sizes,
    stochastic depth) is the matching row's of the families, or a default.

    Raises:
      UsageError: if the model is none of `build_network`'s.
    """
    stages: dict[str, list[MBConv | FusedMBConv]] = {}
    for layer in model.layers:
        if isinstance(layer, MBConv | FusedMBConv):
            stages.setdefault(layer.name.partition("_")[0], []).append(layer)
    layers = {layer.name: layer for layer in model.layers}
    if not stages or not {"stem", "stem_norm", "head"} <= layers.keys():
        raise UsageError(
            f"Weights can be loaded into networks of `build_network` and the constructors. "
            f"Received: model {model.name!r} with layers {[*layers][:4]} ..."
        )
    first = stages["stage1"][0]
    spec = NetworkSpec(
        name=model.name,
        stages=tuple(_stage_spec(blocks) for blocks in stages.values()),
        stem_filters=first.input_filters,
        stem_stride=layers["stem"].strides[0],
        padding=cast(Padding, first.padding),
        scale_stem=False,
        head_filters=layers["head"].filters,
        activation=first.activation,
        group_size=first.group_size,
        normalization=cast(Normalization, first.normalization),
        normalization_groups=first.normalization_groups,
        proxy_normalization=first.proxy_normalization,
        batch_norm_momentum=first.batch_norm_momentum,
        batch_norm_epsilon=first.batch_norm_epsilon,
    )
    row = matching_row(variable_shapes(spec).values())
    if row is not None:
        spec = replace(spec, name=row.name, preprocessing=row.preprocessing)
    normalization = layers.get("normalization")
    if isinstance(normalization, InputNormalization):
        own = replace(spec.preprocessing, mean=normalization.mean, std=normalization.std)
        spec = replace(spec, preprocessing=own)
    return spec


def _stage_spec(blocks: list[MBConv | FusedMBConv]) -> StageSpec:
    first = blocks[0]
    return StageSpec(
        block="fused" if isinstance(first, FusedMBConv) else "mbconv",
        kernel_size=first.kernel_size,
        stride=first.stride,
        expansion=first.expansion,
        filters=first.filters,
        repeats=len(blocks),
        se_ratio=first.se_ratio,
    )
