"""How a predictor computes: the fastest form of its network that this process has."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.compiled_steps import with_compiled_operations
from effnetv2_tf.export.deploy_graph import DeployGraph, build_deploy_graph
from effnetv2_tf.kernels import operations

Infer = Callable[[np.ndarray], tf.Tensor]


def inference_of(model: keras.Model) -> Infer:
    """A function from pixels to the outputs of a model, with the weights that it has now.

    A network of this package is folded, see `folded_inference`. Any other model is called as it is.
    """
    return folded_inference(model) or (lambda pixels: model(pixels, training=False))


def folded_inference(model: keras.Model) -> Infer | None:
    """The same of a network of this package alone; None for a model that cannot be folded.

    It is folded as for an export, and computed by the compiled operations where they are in use.
    """
    graph = _folded(model)
    if graph is None:
        return None
    if operations.in_use():
        graph = with_compiled_operations(graph)
    infer = graph.function(tf.float32).get_concrete_function()
    return lambda pixels: infer(tf.cast(pixels, tf.float32))[graph.output_name]


def _folded(model: keras.Model) -> DeployGraph | None:
    try:
        graph = build_deploy_graph(model)
    except UsageError:  # for a batch of one size, or in a precision that cannot be changed
        return None
    return None if graph.note else graph
