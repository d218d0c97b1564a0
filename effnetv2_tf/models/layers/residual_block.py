"""What MBConv and Fused-MBConv share: their arguments and their skip connection."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers.batch_norm import BatchNorm
from effnetv2_tf.models.layers.group_conv import GroupConv2D
from effnetv2_tf.models.layers.initializers import conv_initializer
from effnetv2_tf.models.layers.norms import NormFactory
from effnetv2_tf.models.layers.padding import symmetric_padding
from effnetv2_tf.models.layers.pointwise_conv import PointwiseConv2D
from effnetv2_tf.models.layers.spatial_conv import SpatialConv2D
from effnetv2_tf.models.layers.squeeze_excite import SqueezeExcite
from effnetv2_tf.models.layers.stochastic_depth import StochasticDepth
from effnetv2_tf.models.scaling import side_after_stride


class ResidualBlock(keras_compat.Layer):
    """Base of the inverted-residual blocks.

    The skip connection exists where the stride is 1 and the widths agree; stochastic depth
    acts on the branch beside it.

    Args:
      input_filters: channels of the input.
      filters: channels of the output.
      kernel_size: side of the spatial convolution's kernel.
      stride: of the spatial convolution.
      expansion: hidden width over `input_filters`.
      se_ratio: squeeze-excite's width over `input_filters`; 0 for none.
      drop_path_rate: probability of dropping the branch in training.
      activation: name of a Keras activation.
      group_size: channels per group of the spatial convolution; None for the block's own.
      normalization: `"batch"`, `"group"` or `"layer"`.
      normalization_groups: number of groups of `"group"`.
      proxy_normalization: whether activations are proxy-normalised, see `ProxyNorm`.
      batch_norm_momentum: share of the old moving statistics kept at each step.
      batch_norm_epsilon: added to the variance, by the other norms too.
      padding: of strided convolutions, `"same"` or `"symmetric"`, see `specs.NetworkSpec`.
      synchronized: whether replicas share batch statistics.

    With the attribute `recompute` set, see `models.recompute`, nothing of the branch is kept for
    the gradient.

    Input: (batch, height, width, input_filters); output: (batch, ceil(height / stride),
    ceil(width / stride), filters).
    """

    def __init__(
        self,
        input_filters: int,
        filters: int,
        kernel_size: int = 3,
        stride: int = 1,
        expansion: int = 4,
        se_ratio: float = 0.0,
        drop_path_rate: float = 0.0,
        activation: str = "silu",
        group_size: int | None = None,
        normalization: str = "batch",
        normalization_groups: int = 4,
        proxy_normalization: bool = False,
        batch_norm_momentum: float = 0.9,
        batch_norm_epsilon: float = 1e-3,
        padding: str = "same",
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= se_ratio <= 1:
            raise ValueError(
                f"{type(self).__name__}: `se_ratio` must lie in [0, 1]. Received: {se_ratio}."
            )
        self.input_filters = input_filters
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.expansion = expansion
        self.se_ratio = se_ratio
        self.activation = activation
        self.group_size = group_size
        self.normalization = normalization
        self.normalization_groups = normalization_groups
        self.proxy_normalization = proxy_normalization
        self.batch_norm_momentum = batch_norm_momentum
        self.batch_norm_epsilon = batch_norm_epsilon
        self.padding = padding
        self.synchronized = synchronized
        self.recompute = False

        self._norms = NormFactory(
            normalization=normalization,
            groups=normalization_groups,
            proxy=proxy_normalization,
            momentum=batch_norm_momentum,
            epsilon=batch_norm_epsilon,
            synchronized=synchronized,
        )
        self.expanded_filters = input_filters * expansion
        # None where the convolution pads itself.
        self.pad = symmetric_padding(kernel_size, stride, padding, self.dtype_policy, "pad")
        self.has_skip = stride == 1 and input_filters == filters
        self._drop_path_rate = drop_path_rate  # of a block that has no skip to keep, too
        self.drop_path = (
            StochasticDepth(drop_path_rate, dtype=self.dtype_policy, name="drop_path")
            if self.has_skip
            else None
        )

    def _conv(self, filters: int, kernel_size: int, stride: int, name: str) -> keras.layers.Layer:
        if kernel_size == 1 and stride == 1:
            return PointwiseConv2D(filters, dtype=self.dtype_policy, name=name)
        return SpatialConv2D(
            filters,
            kernel_size,
            strides=stride,
            padding="same" if self.pad is None else "valid",
            use_bias=False,
            kernel_initializer=conv_initializer(),
            dtype=self.dtype_policy,
            name=name,
        )

    def _group_conv(self, filters: int, kernel_size: int, stride: int, name: str) -> GroupConv2D:
        return GroupConv2D(
            filters,
            kernel_size,
            group_size=self.group_size,
            strides=stride,
            padding="same" if self.pad is None else "valid",
            dtype=self.dtype_policy,
            name=name,
        )

    def _norm(self, name: str, activation: str | None = None) -> keras.layers.Layer:
        return self._norms(name, activation, self.dtype_policy)

    def _squeeze_excite(self) -> SqueezeExcite | None:
        if not self.se_ratio:
            return None
        squeezed = max(1, int(self.input_filters * self.se_ratio))
        return SqueezeExcite(
            self.expanded_filters,
            squeezed,
            activation=self.activation,
            dtype=self.dtype_policy,
            name="squeeze_excite",
        )

    @property
    def drop_path_rate(self) -> float:
        """Probability of dropping the branch."""
        return self._drop_path_rate if self.drop_path is None else self.drop_path.rate

    def set_drop_path_rate(self, rate: float) -> None:
        """Changes the probability of dropping the branch, for the next step on."""
        if self.drop_path is None:
            self._drop_path_rate = rate
        else:
            self.drop_path.rate = rate

    def branch(self) -> list[keras.layers.Layer]:
        """The residual branch's layers, in order; `build` builds them so."""
        raise NotImplementedError

    def run_branch(self, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        """The residual branch of `inputs`, without stochastic depth and the skip connection."""
        raise NotImplementedError

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training and self.recompute:
            x = self._run_branch_again_for_the_gradient(inputs)
        else:
            x = self.run_branch(inputs, training)
        if self.drop_path is None:
            return x
        compiled = operations.residual_for(x.dtype) if training else None
        if compiled:
            return compiled(branch=x, factors=self.drop_path.factors(x), skip=inputs)
        # A sum whose gradient needs no shapes, as that of an addition does.
        return tf.add_n([self.drop_path(x, training=training), inputs])

    def _run_branch_again_for_the_gradient(self, inputs: tf.Tensor) -> tf.Tensor:
        norms = [layer for layer in self.branch() if isinstance(layer, BatchNorm)]
        runs = itertools.count()

        def run(x: tf.Tensor) -> tf.Tensor:
            is_first = next(runs) == 0
            for norm in norms:
                norm.keeps_statistics = is_first
            try:
                return self.run_branch(x, training=True)
            finally:
                for norm in norms:
                    norm.keeps_statistics = True

        return tf.recompute_grad(run)(inputs)

    def build(self, input_shape: Any) -> None:
        if input_shape[-1] != self.input_filters:
            raise ValueError(
                f"{type(self).__name__} {self.name!r}: expected {self.input_filters} input "
                f"channels (`input_filters`), received {input_shape[-1]}."
            )
        shape = tuple(input_shape)
        for layer in self.branch():
            keras_compat.build_within(layer, shape)
            shape = tuple(layer.compute_output_shape(shape))
        if self.drop_path is not None:
            self.drop_path.build(shape)
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> Any:
        geometry = (self.kernel_size, self.stride, self.padding)
        sides = (
            None if side is None else side_after_stride(side, *geometry)
            for side in input_shape[1:3]
        )
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "input_filters": self.input_filters,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "expansion": self.expansion,
            "se_ratio": self.se_ratio,
            "drop_path_rate": self.drop_path_rate,
            "activation": self.activation,
            "group_size": self.group_size,
            "normalization": self.normalization,
            "normalization_groups": self.normalization_groups,
            "proxy_normalization": self.proxy_normalization,
            "batch_norm_momentum": self.batch_norm_momentum,
            "batch_norm_epsilon": self.batch_norm_epsilon,
            "padding": self.padding,
            "synchronized": self.synchronized,
        }
