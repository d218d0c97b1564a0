"""Fused-MBConv: the inverted residual block with one dense convolution."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.residual_block import ResidualBlock


@keras_compat.register_serializable("effnetv2_tf")
class FusedMBConv(ResidualBlock):
    """k x k expand, squeeze-excite, 1x1 project; skip where shapes allow.

    EfficientNetV2, figure 2, right: MBConv's expanding and depthwise convolutions become one
    dense convolution. With expansion 1 a single k x k convolution, normalised and activated,
    is the whole branch. With a group size the k x k convolution is a group convolution.
    Arguments and shapes: `ResidualBlock`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fused_filters = self.expanded_filters if self.expansion != 1 else self.filters
        spatial_conv = self._conv if self.group_size is None else self._group_conv
        self.fused = spatial_conv(fused_filters, self.kernel_size, self.stride, "fused")
        self.fused_norm = self._norm("fused_norm", self.activation)
        self.squeeze_excite = self._squeeze_excite() if self.expansion != 1 else None
        self.project = self.project_norm = None
        if self.expansion != 1:
            self.project = self._conv(self.filters, 1, 1, "project")
            self.project_norm = self._norm("project_norm")

    def branch(self) -> list[keras.layers.Layer]:
        layers = [
            self.pad,
            self.fused,
            self.fused_norm,
            self.squeeze_excite,
            self.project,
            self.project_norm,
        ]
        return [layer for layer in layers if layer is not None]

    def run_branch(self, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        x = inputs  # (b, h, w, input_filters)
        if self.pad is not None:
            x = self.pad(x)
        x = self.fused(x, training=training)  # (b, h / stride, w / stride, expanded)
        x = self.fused_norm(x, training=training)
        if self.squeeze_excite is not None:
            x = self.squeeze_excite(x, training=training)
        if self.project is not None and self.project_norm is not None:
            x = self.project(x, training=training)  # (b, h / stride, w / stride, filters)
            x = self.project_norm(x, training=training)
        return x
