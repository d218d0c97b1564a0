"""The operations of NASNet's cells, as chains of layers.

Every convolution is ReLU, convolution, batch norm (arXiv 1707.07012, appendix A.4);
separable ones are applied twice, and the first of the two has the stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from effnetv2_tf.models.genotypes import Operation
from effnetv2_tf.models.layers.batch_norm import BatchNorm
from effnetv2_tf.models.layers.initializers import conv_initializer
from effnetv2_tf.models.layers.pointwise_conv import PointwiseConv2D
from effnetv2_tf.models.layers.spatial_conv import DepthwiseConv2D

Layers = list[keras.layers.Layer]
Kernel = int | tuple[int, int]

_SEPARABLE: dict[Operation, int] = {"sep_conv_3x3": 3, "sep_conv_5x5": 5, "sep_conv_7x7": 7}
_FACTORIZED: dict[Operation, int] = {"conv_1x3_3x1": 3, "conv_1x7_7x1": 7}
_MAX_POOLS: dict[Operation, int] = {"max_pool_3x3": 3, "max_pool_5x5": 5, "max_pool_7x7": 7}


@dataclass(frozen=True)
class CellOperations:
    """Makes the layers of operations that share widths and norms.

    Attributes:
      filters: output channels of every operation.
      batch_norm_momentum: share of the old moving statistics kept at each step.
      batch_norm_epsilon: added to the variance.
      synchronized: whether replicas share batch statistics.
      dtype: precision of the layers.
    """

    filters: int
    batch_norm_momentum: float
    batch_norm_epsilon: float
    synchronized: bool
    dtype: Any

    def layers(self, operation: Operation, input_filters: int, stride: int) -> Layers:
        """The layers of an operation, in order; none if it is the identity.

        Pools and the identity keep channels: where these are not `filters`, or the identity
        has a stride, a projection follows.
        """
        if operation in _SEPARABLE:
            return self._separable(_SEPARABLE[operation], stride)
        if operation in _FACTORIZED:
            side = _FACTORIZED[operation]
            return [
                *self._convolution((1, side), (1, stride), "1"),
                *self._convolution((side, 1), (stride, 1), "2"),
            ]
        if operation == "conv_3x3":
            return self._convolution(3, stride)
        if operation == "dilated_conv_3x3":  # TensorFlow has none with a stride
            return [*self._convolution(3, 1, dilation=2), *_subsample(stride)]
        if operation == "conv_1x1":
            return [*_subsample(stride), *self.projection()]
        pool = _subsample(stride) if operation == "identity" else self._pool(operation, stride)
        fits = input_filters == self.filters and (operation != "identity" or stride == 1)
        return pool if fits else [*pool, *self.projection()]

    def projection(self) -> Layers:
        """ReLU, 1x1 convolution, batch norm."""
        return [
            self._relu("relu"),
            PointwiseConv2D(self.filters, dtype=self.dtype, name="conv"),
            self._norm("norm"),
        ]

    def _separable(self, side: int, stride: int) -> Layers:
        return [
            self._relu("relu"),
            self._depthwise(side, stride, "depthwise1"),
            PointwiseConv2D(self.filters, dtype=self.dtype, name="pointwise1"),
            self._norm("norm1", "relu"),
            self._depthwise(side, 1, "depthwise2"),
            PointwiseConv2D(self.filters, dtype=self.dtype, name="pointwise2"),
            self._norm("norm2"),
        ]

    def _convolution(
        self, kernel_size: Kernel, strides: Kernel, suffix: str = "", dilation: int = 1
    ) -> Layers:
        conv = keras.layers.Conv2D(
            self.filters,
            kernel_size,
            strides=strides,
            dilation_rate=dilation,
            padding="same",
            use_bias=False,
            kernel_initializer=conv_initializer(),
            dtype=self.dtype,
            name=f"conv{suffix}",
        )
        return [self._relu(f"relu{suffix}"), conv, self._norm(f"norm{suffix}")]

    def _depthwise(self, side: int, stride: int, name: str) -> keras.layers.Layer:
        return DepthwiseConv2D(
            side,
            strides=stride,
            padding="same",
            use_bias=False,
            depthwise_initializer=conv_initializer(),
            dtype=self.dtype,
            name=name,
        )

    def _pool(self, operation: Operation, stride: int) -> Layers:
        """A pool; with a stride one over zeros around the feature map, as the reference's.

        "same" leaves its own padding out of a pool. So zeros are put around it first, an even
        number, which moves no window, and the results of the windows over them are cropped:
        the sizes need not be known, as for padding as much as "same" would.
        """
        pool_class = keras.layers.AveragePooling2D
        side = 3
        if operation in _MAX_POOLS:
            pool_class, side = keras.layers.MaxPooling2D, _MAX_POOLS[operation]
        pool = pool_class(side, stride, padding="same", dtype=self.dtype, name="pool")
        if stride == 1:
            return [pool]
        margin = -(-(side // 2) // stride)  # results whose windows may reach over the zeros' edge
        return [
            keras.layers.ZeroPadding2D(stride * margin, dtype=self.dtype, name="pad"),
            pool,
            keras.layers.Cropping2D(margin, dtype=self.dtype, name="crop"),
        ]

    def _relu(self, name: str) -> keras.layers.Layer:
        return keras.layers.Activation("relu", dtype=self.dtype, name=name)

    def _norm(self, name: str, activation: str | None = None) -> BatchNorm:
        return BatchNorm(
            self.batch_norm_momentum,
            self.batch_norm_epsilon,
            activation=activation,
            synchronized=self.synchronized,
            dtype=self.dtype,
            name=name,
        )


def _subsample(stride: int) -> Layers:
    """Every `stride`-th pixel, from the first on."""
    return [] if stride == 1 else [keras.layers.MaxPooling2D(1, stride, name="subsample")]
