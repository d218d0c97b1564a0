"""Steps of a deploy graph as operations of the compiled library.

A convolution is one operation with its bias, activation and residual sum, a depthwise one together
with the 1x1 convolution before it, a 3x3 one with that behind it. Gates of squeeze-and-excitation
are computed from means that the depthwise convolution adds up as it goes, and multiplied with the
kernel of the convolution behind them, so that no image is gone through for them. What the library
has no operation for stays TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.deploy_graph import DeployGraph
from effnetv2_tf.export.graph_steps import (
    Block,
    Convolution,
    Dense,
    DepthwiseConvolution,
    Normalization,
    SqueezeExcitation,
    Step,
    activate,
)
from effnetv2_tf.kernels import operations

_ACTIVATIONS = {"linear": "linear", "relu6": "relu6", "silu": "silu", "swish": "silu"}


def with_compiled_operations(graph: DeployGraph) -> DeployGraph:
    """The same network, for processes that have loaded the compiled operations.

    Raises:
      UsageError: if the operations are not compiled, or the network is not this package's.
    """
    check_compilable(graph)
    normalization = graph.normalization
    if normalization is not None:
        normalization = CompiledNormalization(normalization.mean, normalization.std)
    return replace(graph, normalization=normalization, steps=compiled(graph.steps))


def check_compilable(graph: DeployGraph) -> None:
    """Raises a UsageError where `with_compiled_operations` would."""
    operations.load()
    if graph.note:
        raise UsageError(
            f"--formats=compiled: expected a network whose layers are known, in {graph.name!r} "
            f"they are not ({graph.note}); savedmodel exports it"
        )


def compiled(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, each as an operation of the library where there is one."""
    result: list[Step] = []
    remaining = list(steps)
    while remaining:
        step = remaining.pop(0)
        if isinstance(step, Block):
            result.append(CompiledBlock(compiled(step.branch), step.has_skip))
        elif _are_expansion([step, *remaining[:1]]):
            result.append(_depthwise(remaining.pop(0), remaining, expand=step))
        elif _takes_depthwise(step):
            result.append(_depthwise(step, remaining))
        elif _takes_pointwise(step):
            result.append(CompiledPointwise(step))
        elif _are_projection([step, *remaining[:1]]):
            result.append(ProjectedConv3x3(step, remaining.pop(0)))
        elif _takes_3x3(step):
            result.append(CompiledConv3x3(step))
        elif isinstance(step, Dense):
            result.append(CompiledDense(step))
        else:
            result.append(step)
    return tuple(result)


def _depthwise(
    step: DepthwiseConvolution, following: list[Step], expand: Convolution | None = None
) -> Step:
    """The convolution; with squeeze-and-excitation, which is then taken from what follows."""
    depthwise = CompiledDepthwise(step, expand)
    if not _are_excitation(following[:2]):
        return depthwise
    return ExcitedConvolutions(depthwise, following.pop(0), following.pop(0))


class CompiledNormalization(Normalization):
    """A normalisation of whole rows at once, where TensorFlow's goes pixel by pixel."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        scale, offset = self.scale_and_offset()
        return operations.load().effnetv2_inference_normalize(
            x=tf.cast(x, tf.float32),
            scale=tf.broadcast_to(scale, x.shape[-1:]),
            offset=tf.broadcast_to(offset, x.shape[-1:]),
        )


@dataclass(frozen=True)
class CompiledPointwise:
    """A 1x1 convolution and, with `skip`, the residual sum."""

    step: Convolution

    def __call__(
        self, x: tf.Tensor, skip: tf.Tensor | None = None, gates: tf.Tensor | None = None
    ) -> tf.Tensor:
        """`gates`: (batch, channels), factors of the channels of `x`."""
        if _has_groups(self.step, x):
            return _add(self.step(x), skip)
        return operations.load().effnetv2_inference_pointwise_conv(
            gates=[] if gates is None else [gates],
            skip=[] if skip is None else [skip],
            **_arguments(self.step, x),
        )


@dataclass(frozen=True)
class CompiledDense:
    """A dense layer: the product of a 1x1 convolution, of a row for each image."""

    step: Dense

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        z = operations.load().effnetv2_inference_pointwise_conv(
            x=x,
            kernel=self.step.kernel[None, None],
            bias=self.step.bias,
            gates=[],
            skip=[],
            activation="linear",
        )
        return activate(z, self.step.activation)


@dataclass(frozen=True)
class CompiledConv3x3:
    """A 3x3 convolution and, with `skip`, the residual sum."""

    step: Convolution

    def __call__(self, x: tf.Tensor, skip: tf.Tensor | None = None) -> tf.Tensor:
        if _has_groups(self.step, x):
            return _add(self.step(x), skip)
        return operations.load().effnetv2_inference_conv3x3(
            skip=[] if skip is None else [skip],
            stride=self.step.strides[0],
            **_arguments(self.step, x),
        )


@dataclass(frozen=True)
class ProjectedConv3x3:
    """A 3x3 and a 1x1 convolution, the second without activation, and the residual sum."""

    step: Convolution
    project: Convolution

    def __call__(self, x: tf.Tensor, skip: tf.Tensor | None = None) -> tf.Tensor:
        if _has_groups(self.step, x):
            return CompiledPointwise(self.project)(CompiledConv3x3(self.step)(x), skip)
        return operations.load().effnetv2_inference_projected_conv3x3(
            project_kernel=self.project.kernel,
            project_bias=self.project.bias,
            skip=[] if skip is None else [skip],
            stride=self.step.strides[0],
            **_arguments(self.step, x),
        )


@dataclass(frozen=True)
class CompiledDepthwise:
    """A depthwise convolution and, with `expand`, the 1x1 convolution before it."""

    step: DepthwiseConvolution
    expand: Convolution | None = None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.with_means(x)[0]

    def with_means(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Also the means by channel, (batch, parts, channels), in parts to be added up."""
        library, stride = operations.load(), self.step.strides[0]
        if self.expand is None:
            return library.effnetv2_inference_depthwise_conv(
                stride=stride, **_arguments(self.step, x)
            )
        if _has_groups(self.expand, x):
            return replace(self, expand=None).with_means(self.expand(x))
        return library.effnetv2_inference_expanded_depthwise_conv(
            expand_kernel=self.expand.kernel,
            expand_bias=self.expand.bias,
            stride=stride,
            **_arguments(self.step, x),
        )


@dataclass(frozen=True)
class ExcitedConvolutions:
    """Depthwise convolution, squeeze-and-excitation and 1x1 convolution of a block."""

    depthwise: CompiledDepthwise
    excitation: SqueezeExcitation
    project: Convolution

    def __call__(self, x: tf.Tensor, skip: tf.Tensor | None = None) -> tf.Tensor:
        y, means = self.depthwise.with_means(x)
        reduce, expand = self.excitation.reduce, self.excitation.expand
        gates = operations.load().effnetv2_inference_gates(
            means=means,
            reduce_kernel=reduce.kernel,
            reduce_bias=reduce.bias,
            expand_kernel=expand.kernel,
            expand_bias=expand.bias,
        )
        return CompiledPointwise(self.project)(y, skip, gates)


@dataclass(frozen=True)
class CompiledBlock:
    """Steps in a row, with or without a connection that skips them."""

    branch: tuple[Step, ...]
    has_skip: bool

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        *first, last = self.branch
        y = x
        for step in first:
            y = step(y)
        skip = x if self.has_skip else None
        takes_skip = isinstance(
            last, (CompiledConv3x3, CompiledPointwise, ExcitedConvolutions, ProjectedConv3x3)
        )
        return last(y, skip) if takes_skip else _add(last(y), skip)


def _add(x: tf.Tensor, skip: tf.Tensor | None) -> tf.Tensor:
    return x if skip is None else x + skip


def _arguments(step: Convolution | DepthwiseConvolution, x: tf.Tensor) -> dict[str, Any]:
    """What all convolutions of the library take."""
    activation = _ACTIVATIONS[step.activation]
    return {"x": x, "kernel": step.kernel, "bias": step.bias, "activation": activation}


def _has_groups(step: Convolution, x: tf.Tensor) -> bool:
    return step.kernel.shape[2] != x.shape[-1]


def _takes_pointwise(step: Step) -> bool:
    is_known = isinstance(step, Convolution) and step.activation in _ACTIVATIONS
    return is_known and step.kernel.shape[:2] == (1, 1) and step.strides == (1, 1)


def _takes_3x3(step: Step) -> bool:
    is_known = isinstance(step, Convolution) and _is_padded_as_known(step)
    return is_known and step.kernel.shape[:2] == (3, 3)


def _takes_depthwise(step: Step) -> bool:
    if not isinstance(step, DepthwiseConvolution) or not _is_padded_as_known(step):
        return False
    height, width, _, multiplier = step.kernel.shape
    return height == width and height in (3, 5) and multiplier == 1


def _is_padded_as_known(step: Convolution | DepthwiseConvolution) -> bool:
    is_known = step.activation in _ACTIVATIONS and step.padding == "SAME"
    return is_known and step.strides in ((1, 1), (2, 2))


def _are_expansion(steps: Sequence[Step]) -> bool:
    """Whether these are a 1x1 and a depthwise convolution with the same activation."""
    if len(steps) != 2 or not _takes_pointwise(steps[0]) or not _takes_depthwise(steps[1]):
        return False
    return steps[0].activation == steps[1].activation


def _are_projection(steps: Sequence[Step]) -> bool:
    """Whether these are a 3x3 and a dense 1x1 convolution, the second without activation."""
    if len(steps) != 2 or not _takes_3x3(steps[0]) or not _takes_pointwise(steps[1]):
        return False
    convolution, project = steps
    is_dense = project.kernel.shape[2] == convolution.kernel.shape[3]
    return is_dense and project.activation == "linear"


def _are_excitation(steps: Sequence[Step]) -> bool:
    """Whether these are squeeze-and-excitation and a 1x1 convolution that can take its gates."""
    if len(steps) != 2 or not isinstance(steps[0], SqueezeExcitation):
        return False
    excitation, project = steps
    activations = (_ACTIVATIONS.get(excitation.reduce.activation), excitation.expand.activation)
    if activations != ("silu", "sigmoid") or not _takes_pointwise(project):
        return False
    return project.kernel.shape[2] == excitation.expand.kernel.shape[3]
