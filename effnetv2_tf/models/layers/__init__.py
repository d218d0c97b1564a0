"""The layers that the networks are made of."""

from effnetv2_tf.models.layers.batch_norm import BatchNorm
from effnetv2_tf.models.layers.dropout import Dropout
from effnetv2_tf.models.layers.factorized_reduction import FactorizedReduction
from effnetv2_tf.models.layers.fused_mbconv import FusedMBConv
from effnetv2_tf.models.layers.group_conv import GroupConv2D
from effnetv2_tf.models.layers.group_norm import GroupNorm
from effnetv2_tf.models.layers.input_normalization import InputNormalization
from effnetv2_tf.models.layers.mbconv import MBConv
from effnetv2_tf.models.layers.nasnet_cell import NASNetCell
from effnetv2_tf.models.layers.pointwise_conv import PointwiseConv2D
from effnetv2_tf.models.layers.proxy_norm import ProxyNorm
from effnetv2_tf.models.layers.spatial_conv import DepthwiseConv2D, SpatialConv2D
from effnetv2_tf.models.layers.squeeze_excite import SqueezeExcite
from effnetv2_tf.models.layers.stochastic_depth import StochasticDepth

__all__ = [
    "BatchNorm",
    "DepthwiseConv2D",
    "Dropout",
    "FactorizedReduction",
    "FusedMBConv",
    "GroupConv2D",
    "GroupNorm",
    "InputNormalization",
    "MBConv",
    "NASNetCell",
    "PointwiseConv2D",
    "ProxyNorm",
    "SpatialConv2D",
    "SqueezeExcite",
    "StochasticDepth",
]
