"""Weights of other implementations, and of this one, into this package's networks.

`load_weights(model, path)` looks at what the file is, checks every tensor, and returns a
`WeightReport`: what became of each.
"""

from effnetv2_tf.weights.loading import load_weights
from effnetv2_tf.weights.report import WeightReport

__all__ = ["WeightReport", "load_weights"]
