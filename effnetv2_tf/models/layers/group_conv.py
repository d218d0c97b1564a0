"""Convolution in groups of channels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.activations import get_activation
from effnetv2_tf.models.scaling import convolution_groups

Strides = tuple[int, int]
GroupedConvolution = Callable[[tf.Tensor, tf.Tensor, Strides, str], tf.Tensor]


@keras_compat.register_serializable("effnetv2_tf")
class GroupConv2D(keras_compat.Layer):
    """2D convolution whose input and output channels are cut into groups.

    Output channels of a group see the input channels of that group only (Krizhevsky et al.
    2012; ResNeXt, arXiv 1611.05431; in EfficientNets with 16 channels a group: Masters et
    al., arXiv 2106.03640). The same function as `keras.layers.Conv2D(groups=)`,
    whose one kernel variable (kernel height, kernel width, channels / groups, filters) it
    has. Which computation trains fastest depends on the device, see `choose_convolution`.

    Args:
      filters: output channels.
      kernel_size: side of the kernel, or (height, width).
      group_size: input channels per group. Where it does not divide the channels, groups
        get larger until they do, see `scaling.convolution_groups`.
      groups: number of groups, in place of `group_size`; must divide the channels.
      strides: of rows and columns.
      padding: `"same"` (TensorFlow's) or `"valid"`.
      use_bias: whether to add a bias.
      activation: name of a Keras activation applied to the result; None for none.
      kernel_initializer: as in Keras; by default normal with standard deviation
        sqrt(2 / (k * k * filters / groups)), which is the reference's for dense
        convolutions with one group, and for depthwise ones with a group for each channel.

    Input: (batch, height, width, channels); output: (batch, rows, columns, filters).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Strides,
        group_size: int | None = None,
        groups: int | None = None,
        strides: int | Strides = 1,
        padding: str = "same",
        use_bias: bool = False,
        activation: str | None = None,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (group_size is None) == (groups is None):
            raise ValueError(
                "GroupConv2D: expected one of `group_size` (channels per group) and `groups` "
                f"(their number). Received: group_size={group_size}, groups={groups}."
            )
        for name, value in (("filters", filters), ("group_size", group_size), ("groups", groups)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(
                    f"GroupConv2D: `{name}` must be a positive integer. Received: {value!r}."
                )
        if padding not in ("same", "valid"):
            raise ValueError(
                f"GroupConv2D: `padding` must be 'same' or 'valid'. Received: {padding!r}."
            )
        self.filters = filters
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.group_size = group_size
        self.groups = groups
        self.strides = _pair("strides", strides)
        self.padding = padding
        self.use_bias = use_bias
        self.activation = activation
        self._activate = get_activation(activation)
        self.kernel_initializer = (
            None if kernel_initializer is None else keras.initializers.get(kernel_initializer)
        )

    def group_count(self, channels: int) -> int:
        """Number of groups for an input with so many channels.

        Raises:
          ValueError: if `groups` does not divide the channels and the filters.
        """
        if self.groups is None:
            return convolution_groups(channels, self.filters, self.group_size or 1)
        if channels % self.groups or self.filters % self.groups:
            raise ValueError(
                f"GroupConv2D {self.name!r}: `groups` must divide the input channels and "
                f"`filters`. Received: groups={self.groups}, {channels} channels, "
                f"filters={self.filters}. Give `group_size` to have groups that fit."
            )
        return self.groups

    def build(self, input_shape: Any) -> None:
        channels = int(input_shape[-1])
        groups = self.group_count(channels)
        # With more channels there would be more groups than there are filters for.
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, channels // groups, self.filters),
            initializer=self.kernel_initializer or _initializer(groups),
        )
        self.bias = (
            self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
            if self.use_bias
            else None
        )
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel, inputs.dtype)
        groups = inputs.shape[-1] // kernel.shape[2]
        convolve = choose_convolution(groups, inputs.dtype)
        outputs = convolve(inputs, kernel, self.strides, self.padding.upper())
        if self.bias is not None:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias, outputs.dtype))
        return self._activate(outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        sides = (
            _output_side(side, kernel, stride, self.padding)
            for side, kernel, stride in zip(
                input_shape[1:3], self.kernel_size, self.strides, strict=True
            )
        )
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict:
        initializer = self.kernel_initializer
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "group_size": self.group_size,
            "groups": self.groups,
            "strides": self.strides,
            "padding": self.padding,
            "use_bias": self.use_bias,
            "activation": self.activation,
            "kernel_initializer": initializer and keras.initializers.serialize(initializer),
        }


def choose_convolution(groups: int, dtype: tf.DType) -> GroupedConvolution:
    """The computation for this process's devices; called while a graph is traced.

    GPUs and TPUs have kernels for grouped convolutions. TensorFlow's plain CPU kernels have
    no gradient for them, only oneDNN's have, if it is on and knows the type; otherwise
    the groups are convolved one by one. Keras's own way out on CPUs, a gradient compiled by
    XLA, measured a hundred times slower.
    """
    if groups == 1 or keras_compat.xla_is_worthwhile() or _has_native_gradient(dtype.name):
        return convolve_natively
    return convolve_split


def convolve_natively(x: tf.Tensor, kernel: tf.Tensor, strides: Strides, padding: str) -> tf.Tensor:
    """One operation, which infers the number of groups from the kernel's shape."""
    return tf.nn.conv2d(x, kernel, strides, padding)


def convolve_split(x: tf.Tensor, kernel: tf.Tensor, strides: Strides, padding: str) -> tf.Tensor:
    """A dense convolution for each group."""
    groups = x.shape[-1] // kernel.shape[2]
    parts = zip(tf.split(x, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
    return tf.concat([tf.nn.conv2d(a, k, strides, padding) for a, k in parts], axis=-1)


@functools.cache
def _has_native_gradient(dtype: str) -> bool:
    """Tried, because no public function of TensorFlow tells what its CPU kernels can do."""
    with tf.init_scope(), tf.device("CPU:0"):
        images, kernel = tf.ones([1, 3, 3, 4], dtype), tf.ones([3, 3, 2, 4], dtype)
        options = {"out_backprop": images, "strides": [1, 1, 1, 1], "padding": "SAME"}
        try:
            # The operations themselves: within init_scope no tape records.
            tf.raw_ops.Conv2DBackpropInput(input_sizes=images.shape, filter=kernel, **options)
            tf.raw_ops.Conv2DBackpropFilter(input=images, filter_sizes=kernel.shape, **options)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


def _initializer(groups: int) -> keras.initializers.Initializer:
    # Keras takes k * k * filters for the fan-out, but an input meets its group's filters only.
    return keras.initializers.VarianceScaling(
        scale=2.0 * groups, mode="fan_out", distribution="untruncated_normal"
    )


def _output_side(side: int | None, kernel: int, stride: int, padding: str) -> int | None:
    if side is None:
        return None
    return -(-(side if padding == "same" else side - kernel + 1) // stride)


def _pair(name: str, value: Any) -> Strides:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ValueError(
            f"GroupConv2D: `{name}` must be a positive integer or a pair of them. "
            f"Received: {value!r}."
        )
    return pair[0], pair[1]
