"""The layers of a Keras model in the order of computation, with the shapes that they meet.

Shapes come from the layers' own `compute_output_shape`: nothing is traced or computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer.

    Attributes:
      layer: a layer, or an operation such as `x + y` in Keras 3.
      input_shape: with the batch axis; a list of shapes for several inputs.
      output_shape: likewise.
    """

    layer: Any
    input_shape: Any
    output_shape: Any


def calls_in_model(model: keras.Model, input_shape: Shape) -> Iterator[LayerCall]:
    """All calls of layers in a model for one input of a shape; nested models are one call.

    Raises:
      ValueError: for a subclassed model, whose order of layers is not known, and for a layer
        that cannot say its output's shape.
    """
    if isinstance(model, keras.Sequential):
        yield from calls_in_chain(model.layers, input_shape)
        return
    nodes = nodes_in_order(model)
    shapes: dict[int, Shape] = {id(model.inputs[0]): input_shape}
    for node in nodes:
        yield _call_of_node(node, shapes)


def nodes_in_order(model: keras.Model) -> list[Any]:
    """Keras's nodes of a functional model's graph in the order of computation, without inputs.

    Raises:
      ValueError: for a subclassed model, whose order of layers is not known.
    """
    nodes_by_depth = getattr(model, "_nodes_by_depth", None)
    if nodes_by_depth is None:
        raise ValueError(
            f"model {model.name!r}: expected a functional or sequential Keras model, received "
            f"a {type(model).__name__}, whose order of layers is not known"
        )
    depths = sorted(nodes_by_depth, reverse=True)
    return [node for depth in depths for node in nodes_by_depth[depth] if not node.is_input]


def layer_of(node: Any) -> Any:
    """The layer, or in Keras 3 the operation, of which a node is a call."""
    # Nodes name it differently in Keras 2 and 3.
    return tf.nest.flatten(node.outputs)[0]._keras_history[0]


def calls_in_chain(layers: Sequence[Any], shape: Shape) -> Iterator[LayerCall]:
    """The calls of layers of which each takes what the one before gives."""
    for layer in layers:
        after = tuple(layer.compute_output_shape(shape))
        yield LayerCall(layer, shape, after)
        shape = after


def _call_of_node(node: Any, shapes: dict[int, Shape]) -> LayerCall:
    """The call that a node of a model's graph stands for; notes its outputs' shapes."""
    outputs = tf.nest.flatten(node.outputs)
    layer = layer_of(node)
    # Arguments that are no tensors of the graph, such as numbers, have no shape here.
    before = [shapes[id(t)] for t in tf.nest.flatten(node.input_tensors) if id(t) in shapes]
    input_shape = before[0] if len(before) == 1 else before
    after = _output_shapes(layer, input_shape, node, shapes)
    shapes.update(zip(map(id, outputs), after, strict=True))
    return LayerCall(layer, input_shape, after[0] if len(after) == 1 else after)


def _output_shapes(
    layer: Any, input_shape: Any, node: Any, shapes: dict[int, Shape]
) -> list[Shape]:
    if hasattr(layer, "compute_output_shape"):
        try:
            return _as_shapes(layer.compute_output_shape(input_shape))
        except NotImplementedError:
            pass  # Keras 3 can still infer it
    if not hasattr(layer, "compute_output_spec"):
        raise ValueError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot say its output's shape; "
            "expected layers with compute_output_shape, e.g. keras.layers.Add for +"
        )
    # In Keras 3 an expression such as x + y is an operation, which only maps tensors.
    inputs = (t for t in tf.nest.flatten(node.input_tensors) if id(t) in shapes)
    tensors = {id(t): keras.KerasTensor(shapes[id(t)], t.dtype) for t in inputs}
    arguments, options = node.arguments.fill_in(tensors)
    specs = layer.compute_output_spec(*arguments, **options)
    return [tuple(spec.shape) for spec in tf.nest.flatten(specs)]


def _as_shapes(shape: Any) -> list[Shape]:
    """One shape, or several, as a list of tuples."""
    parts = shape if isinstance(shape, (list, tuple)) else ()
    if any(isinstance(part, (list, tuple, tf.TensorShape)) for part in parts):
        return [tuple(part) for part in shape]
    return [tuple(shape)]
