"""MBConv: the inverted residual block with a depthwise convolution."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.initializers import conv_initializer
from effnetv2_tf.models.layers.residual_block import ResidualBlock
from effnetv2_tf.models.layers.spatial_conv import DepthwiseConv2D


@keras_compat.register_serializable("effnetv2_tf")
class MBConv(ResidualBlock):
    """1x1 expand, depthwise k x k, squeeze-excite, 1x1 project; skip where shapes allow.

    EfficientNetV2, figure 2, left (MobileNetV2 and MnasNet before it). Every convolution is
    followed by a normalisation, all but the last by the activation. With expansion 1
    there is no expanding convolution. With a group size a group convolution takes the
    depthwise one's place (arXiv 2106.03640). Arguments and shapes: `ResidualBlock`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expand = self.expand_norm = None
        if self.expansion != 1:
            self.expand = self._conv(self.expanded_filters, 1, 1, "expand")
            self.expand_norm = self._norm("expand_norm", self.activation)
        self.depthwise = self.depthwise_norm = None
        self.group_conv = self.group_conv_norm = None
        if self.group_size is None:
            self.depthwise = self._depthwise_conv("depthwise")
            self.depthwise_norm = self._norm("depthwise_norm", self.activation)
        else:
            self.group_conv = self._group_conv(
                self.expanded_filters, self.kernel_size, self.stride, "group_conv"
            )
            self.group_conv_norm = self._norm("group_conv_norm", self.activation)
        self.squeeze_excite = self._squeeze_excite()
        self.project = self._conv(self.filters, 1, 1, "project")
        self.project_norm = self._norm("project_norm")

    def _depthwise_conv(self, name: str) -> keras.layers.Layer:
        return DepthwiseConv2D(
            self.kernel_size,
            strides=self.stride,
            padding="same" if self.pad is None else "valid",
            use_bias=False,
            depthwise_initializer=conv_initializer(),
            dtype=self.dtype_policy,
            name=name,
        )

    def _spatial(self) -> tuple[keras.layers.Layer, keras.layers.Layer]:
        """The depthwise or group convolution and its norm."""
        if self.group_size is None:
            return self.depthwise, self.depthwise_norm
        return self.group_conv, self.group_conv_norm

    def branch(self) -> list[keras.layers.Layer]:
        layers = [
            self.expand,
            self.expand_norm,
            self.pad,
            *self._spatial(),
            self.squeeze_excite,
            self.project,
            self.project_norm,
        ]
        return [layer for layer in layers if layer is not None]

    def run_branch(self, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        x = inputs  # (b, h, w, input_filters)
        if self.expand is not None and self.expand_norm is not None:
            x = self.expand(x, training=training)  # (b, h, w, expanded)
            x = self.expand_norm(x, training=training)
        if self.pad is not None:
            x = self.pad(x)
        spatial, spatial_norm = self._spatial()
        x = spatial(x, training=training)  # (b, h / stride, w / stride, expanded)
        x = spatial_norm(x, training=training)
        if self.squeeze_excite is not None:
            x = self.squeeze_excite(x, training=training)
        x = self.project(x, training=training)  # (b, h / stride, w / stride, filters)
        x = self.project_norm(x, training=training)
        return x
