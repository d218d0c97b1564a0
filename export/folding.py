"""From Keras layers to steps of a deploy graph: batch norms folded, training parts gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf.export.graph_steps import (
    Block,
    Convolution,
    Dense,
    DepthwiseConvolution,
    GlobalPooling,
    GroupNormalization,
    Normalization,
    Padding,
    SqueezeExcitation,
    Step,
)
from effnetv2_tf.models.layer_calls import layer_of, nodes_in_order
from effnetv2_tf.models.layers import (
    BatchNorm,
    DepthwiseConv2D,
    Dropout,
    FusedMBConv,
    GroupConv2D,
    GroupNorm,
    InputNormalization,
    MBConv,
    PointwiseConv2D,
    ProxyNorm,
    SpatialConv2D,
    SqueezeExcite,
    StochasticDepth,
)

Layers = Sequence[Any]

_NORMS = (BatchNorm, keras.layers.BatchNormalization)
_GONE_AT_INFERENCE = (
    keras.layers.InputLayer,
    Dropout,
    StochasticDepth,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.RandomBrightness,
    keras.layers.RandomContrast,
    keras.layers.RandomFlip,
    keras.layers.RandomRotation,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
    keras.layers.SpatialDropout2D,
)
# What a subclass may define and still compute the same with the variables that it has.
_CHANGE_NO_OUTPUT = (
    "build",
    "compute_output_shape",
    "compute_output_spec",
    "get_config",
    "from_config",
)
_ACTIVATION_LAYERS = (keras.layers.Activation, keras.layers.Softmax)


class NotFoldable(Exception):
    """A model with a part that the deploy graph does not know; the message names it."""


def layers_in_order(model: keras.Model) -> list[Any]:
    """The layers of a model that is one chain; those of models within it in their place.

    Raises:
      NotFoldable: if a layer takes something else than the output of the one before.
    """
    if not getattr(model, "layers", ()) or len(getattr(model, "inputs", None) or ()) != 1:
        raise NotFoldable(f"model {model.name!r} is no chain of layers with one input")
    if not _calls_its_layers(model):
        raise NotFoldable(f"model {model.name!r} is a {type(model).__name__} with its own `call`")
    if not isinstance(model, keras.Sequential):
        _check_chain(model)
    layers: list[Any] = []
    for layer in model.layers:
        layers += layers_in_order(layer) if isinstance(layer, keras.Model) else [layer]
    return layers


def _calls_its_layers(model: keras.Model) -> bool:
    """Whether a model's `call` is Keras's or this package's: any other may do more."""
    definer = next(base for base in type(model).__mro__ if "call" in vars(base))
    return _is_library(definer)


def _is_library(definer: type) -> bool:
    """Whether a class is Keras's or this package's."""
    return definer.__module__.split(".")[0] in ("keras", "tf_keras", "effnetv2_tf")


def _check_chain(model: keras.Model) -> None:
    tensor, before = model.inputs[0], "the input"
    called = []
    for node in nodes_in_order(model):
        layer = layer_of(node)
        if [id(t) for t in tf.nest.flatten(node.input_tensors)] != [id(tensor)]:
            raise NotFoldable(f"layer {layer.name!r} does not follow {before}")
        tensor, before = tf.nest.flatten(node.outputs)[0], repr(layer.name)
        called.append(layer)
    # A layer that is called twice is there once; an operation such as x + 1 is none.
    layers = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    if [id(layer) for layer in called] != [id(layer) for layer in layers]:
        known = {id(layer) for layer in layers}
        other = next((x for x in called if id(x) not in known), None)
        if other is not None:
            raise NotFoldable(f"{other.name!r} is an operation, not a layer")
        raise NotFoldable("a layer is called twice, or not after the others")


def fold(layers: Layers) -> tuple[list[Step], str]:
    """The steps that compute what the layers compute at inference.

    Args:
      layers: a chain, see `layers_in_order`.

    Returns:
      The steps, and the name of the activation after the last (`"linear"` for none).

    Raises:
      NotFoldable: for a layer, or an order of layers, that is not known here.
    """
    steps: list[Step] = []
    activation = "linear"
    remaining = list(layers)
    while remaining:
        layer = remaining.pop(0)
        if getattr(layer, "quantization_mode", None):
            raise NotFoldable(f"layer {layer.name!r} is quantised")
        if _is_one_of(layer, _GONE_AT_INFERENCE) or _changes_nothing(layer):
            continue
        if activation != "linear":  # not the last dense layer after all
            steps[-1] = replace(steps[-1], activation=activation)  # type: ignore[type-var]
            activation = "linear"
        norm = remaining.pop(0) if remaining and _is_one_of(remaining[0], _NORMS) else None
        if _is_one_of(layer, (keras.layers.Dense,)) and norm is None:
            activation = _activation(layer, None)
            steps.append(Dense(_array(layer.kernel), _bias(layer, layer.units)))
        elif _is_one_of(layer, _ACTIVATION_LAYERS) and norm is None:
            activation = _activation_after(steps, layer)
        else:
            steps.append(_step(layer, norm))
    return steps, activation


def _is_one_of(layer: Any, classes: Sequence[Any]) -> bool:
    """Whether a layer computes what layers of one of the classes do: a subclass may not."""
    return any(isinstance(layer, known) and _computes_as(type(layer), known) for known in classes)


def _computes_as(layer_class: type, known: Any) -> bool:
    """Whether a class has the `call` of one that it derives from, and all that this calls."""
    between = takewhile(lambda base: base is not known, layer_class.__mro__)
    return layer_class.call is known.call and all(  # type: ignore[attr-defined]
        name in _CHANGE_NO_OUTPUT or (name.startswith("__") and name != "__call__")
        for base in between
        if not _is_library(base)
        for name in vars(base)
    )


def _changes_nothing(layer: Any) -> bool:
    """Whether a layer is the usual last one of a mixed-precision network: linear, in float32."""
    return _is_one_of(layer, (keras.layers.Activation,)) and _activation(layer, None) == "linear"


def _activation_after(steps: Sequence[Step], layer: Any) -> str:
    """The activation of a layer of its own behind a dense layer."""
    if not steps or not isinstance(steps[-1], Dense):
        raise NotFoldable(f"layer {layer.name!r} is an activation that follows no dense layer")
    if steps[-1].activation != "linear":
        raise NotFoldable(f"layer {layer.name!r} is a second activation")
    if isinstance(layer, keras.layers.Softmax):
        if layer.axis not in (-1, [-1], (-1,)):
            raise NotFoldable(f"layer {layer.name!r} is a softmax over axis {layer.axis}")
        return "softmax"
    return _activation(layer, None)


def _step(layer: Any, norm: Any) -> Step:
    for layer_class, build in _BUILDERS.items():
        if _is_one_of(layer, (layer_class,)):
            if norm is not None and layer_class not in _CONVOLUTIONS:
                raise NotFoldable(f"layer {norm.name!r} follows no convolution")
            return build(layer, norm) if layer_class in _CONVOLUTIONS else build(layer)
    raise NotFoldable(f"layer {layer.name!r} is a {type(layer).__name__}")


def _convolution(layer: Any, norm: Any) -> Convolution:
    kernel, bias = _fold_norm(layer, _array(layer.kernel), _bias(layer, layer.filters), norm)
    return Convolution(kernel, bias, **_geometry(layer), activation=_activation(layer, norm))


def _group_convolution(layer: GroupConv2D, norm: Any) -> Convolution:
    kernel, bias = _fold_norm(layer, _array(layer.kernel), _bias(layer, layer.filters), norm)
    return Convolution(
        kernel,
        bias,
        strides=layer.strides,
        padding=layer.padding.upper(),
        activation=_activation(layer, norm),
    )


def _pointwise(layer: PointwiseConv2D, norm: Any) -> Convolution:
    kernel, bias = _fold_norm(layer, _array(layer.kernel), _bias(layer, layer.filters), norm)
    return Convolution(kernel, bias, activation=_activation(layer, norm))


def _depthwise(layer: Any, norm: Any) -> DepthwiseConvolution:
    variable = getattr(layer, "kernel", None)
    kernel = _array(layer.depthwise_kernel if variable is None else variable)
    bias = _bias(layer, kernel.shape[2] * kernel.shape[3])
    # Output channel c * multiplier + m comes from kernel[..., c, m]: a view makes them one axis.
    flat, bias = _fold_norm(layer, kernel.reshape(*kernel.shape[:2], 1, -1), bias, norm)
    return DepthwiseConvolution(
        flat.reshape(kernel.shape), bias, **_geometry(layer), activation=_activation(layer, norm)
    )


def _fold_norm(
    layer: Any, kernel: np.ndarray, bias: np.ndarray, norm: Any
) -> tuple[np.ndarray, np.ndarray]:
    """One convolution for gamma * (conv(x) + bias - mean) / sqrt(variance + epsilon) + beta.

    In float64: the kernel is rounded to float32 once, at the end.
    """
    if norm is None:
        return kernel, bias
    if _activation(layer, None) != "linear":
        raise NotFoldable(f"layer {layer.name!r} has an activation before {norm.name!r}")
    if np.atleast_1d(getattr(norm, "axis", -1)).tolist() not in ([-1], [3]):
        raise NotFoldable(f"layer {norm.name!r} does not normalise channels")
    mean, variance = (_array(v, np.float64) for v in (norm.moving_mean, norm.moving_variance))
    gamma = 1.0 if norm.gamma is None else _array(norm.gamma, np.float64)
    beta = 0.0 if norm.beta is None else _array(norm.beta, np.float64)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    folded = kernel.astype(np.float64) * scale
    return folded.astype(np.float32), ((bias - mean) * scale + beta).astype(np.float32)


def _geometry(layer: Any) -> dict[str, Any]:
    """Strides and padding of a Keras convolution."""
    dilation = layer.dilation_rate
    groups = getattr(layer, "groups", 1)
    if set(np.atleast_1d(dilation)) != {1} or groups != 1 or layer.data_format != "channels_last":
        raise NotFoldable(f"layer {layer.name!r} is dilated, grouped or channels-first")
    return {"strides": tuple(layer.strides), "padding": layer.padding.upper()}


def _group_norm(layer: GroupNorm) -> GroupNormalization:
    """The proxy's statistics depend on parameters only: here they become constants."""
    scale = offset = None
    if isinstance(layer, ProxyNorm):
        scale, offset = (value.numpy() for value in layer.proxy_scale_and_offset())
    gamma = _array(layer.gamma)
    return GroupNormalization(
        layer.groups,
        layer.epsilon,
        gamma,
        np.zeros_like(gamma) if layer.beta is None else _array(layer.beta),
        _activation(layer, None),
        scale,
        offset,
    )


def _block(layer: FusedMBConv | MBConv) -> Block:
    steps, activation = fold(layer.branch())
    if activation != "linear":
        raise NotFoldable(f"block {layer.name!r} ends with a dense layer")
    return Block(tuple(steps), layer.has_skip)


def _pooling(layer: Any, maximum: bool) -> GlobalPooling:
    if layer.keepdims or layer.data_format != "channels_last":
        raise NotFoldable(f"layer {layer.name!r} keeps dimensions or is channels-first")
    return GlobalPooling(maximum)


def _squeeze_excite(layer: SqueezeExcite) -> SqueezeExcitation:
    return SqueezeExcitation(_pointwise(layer.reduce, None), _pointwise(layer.expand, None))


def _activation(layer: Any, norm: Any) -> str:
    """The activation after a convolution and its batch norm, whichever of them has it."""
    owner = layer if norm is None else norm
    activation = getattr(owner, "activation", None)
    if isinstance(activation, str):  # this package's layers keep names
        return activation
    function = keras.activations.get(activation)
    name = getattr(function, "__name__", None)
    try:
        if keras.activations.get(name) is function:
            return str(name)
    except (TypeError, ValueError):
        pass  # no activation of that name
    raise NotFoldable(f"layer {owner.name!r} has an activation that Keras does not name")


def _array(variable: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.asarray(variable.numpy(), dtype)


def _bias(layer: Any, size: int) -> np.ndarray:
    return _array(layer.bias) if layer.use_bias else np.zeros(size, np.float32)


_CONVOLUTIONS = (
    keras.layers.DepthwiseConv2D,
    DepthwiseConv2D,
    keras.layers.Conv2D,
    SpatialConv2D,
    PointwiseConv2D,
    GroupConv2D,
)
# Subclasses first: Keras 2's DepthwiseConv2D derives from a common base, not from Conv2D, but
# nothing here should depend on that.
_BUILDERS: dict[type, Callable[..., Step]] = {
    keras.layers.DepthwiseConv2D: _depthwise,
    DepthwiseConv2D: _depthwise,
    keras.layers.Conv2D: _convolution,
    SpatialConv2D: _convolution,
    PointwiseConv2D: _pointwise,
    GroupConv2D: _group_convolution,
    GroupNorm: _group_norm,
    ProxyNorm: _group_norm,
    FusedMBConv: _block,
    MBConv: _block,
    SqueezeExcite: _squeeze_excite,
    keras.layers.ZeroPadding2D: lambda layer: Padding(layer.padding),
    InputNormalization: lambda layer: Normalization(layer.mean, layer.std),
    keras.layers.GlobalAveragePooling2D: lambda layer: _pooling(layer, maximum=False),
    keras.layers.GlobalMaxPooling2D: lambda layer: _pooling(layer, maximum=True),
}


def convolutions(steps: Sequence[Step]) -> Iterator[Convolution | DepthwiseConvolution]:
    """All convolutions of a graph, in order."""
    for step in steps:
        if isinstance(step, (Convolution, DepthwiseConvolution)):
            yield step
        elif isinstance(step, Block):
            yield from convolutions(step.branch)
        elif isinstance(step, SqueezeExcitation):
            yield from convolutions((step.reduce, step.expand))
