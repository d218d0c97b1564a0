"""Weights of other implementations, and of this one, into this package's networks.

`load_weights(model, path)` looks at what the file is, checks every tensor, and returns a
`WeightReport`: what became of each. `from_keras_applications(model)` takes a live one.
"""

from effnetv2_tf.weights.keras_applications import from_keras_applications
from effnetv2_tf.weights.loading import load_weights
from effnetv2_tf.weights.report import WeightReport

__all__ = ["WeightReport", "from_keras_applications", "load_weights"]
