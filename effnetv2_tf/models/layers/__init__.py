"""The layers that the networks are made of."""

from effnetv2_tf.models.layers.batch_norm import BatchNorm
from effnetv2_tf.models.layers.dropout import Dropout
from effnetv2_tf.models.layers.fused_mbconv import FusedMBConv
from effnetv2_tf.models.layers.input_normalization import InputNormalization
from effnetv2_tf.models.layers.mbconv import MBConv
from effnetv2_tf.models.layers.pointwise_conv import PointwiseConv2D
from effnetv2_tf.models.layers.squeeze_excite import SqueezeExcite
from effnetv2_tf.models.layers.stochastic_depth import StochasticDepth

__all__ = [
    "BatchNorm",
    "Dropout",
    "FusedMBConv",
    "InputNormalization",
    "MBConv",
    "PointwiseConv2D",
    "SqueezeExcite",
    "StochasticDepth",
]
