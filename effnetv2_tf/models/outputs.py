"""What a Keras model's outputs are."""

from __future__ import annotations

from typing import Any

import keras


def output_activation(model: keras.Model) -> str | None:
    """The name of the activation that a model ends with, or None if that is not known.

    It may be a layer's, an operation's (`keras.ops.softmax`), or that of a model within, see
    `last_step`.
    """
    last = last_step(model)
    if isinstance(last, keras.layers.Layer) and not isinstance(last, keras.layers.Softmax):
        return _activation_name(last)
    return type(last).__name__.lower()  # that of `keras.ops.softmax` is Softmax


def last_step(model: keras.Model) -> Any:
    """The layer or operation that gives a model's outputs; of a model within, its last one.

    An `Activation("linear")` behind it, as is usual in mixed precision, changes nothing.
    """
    steps = list(getattr(model, "operations", None) or model.layers)
    while len(steps) > 1 and isinstance(steps[-1], keras.layers.Activation):
        if _activation_name(steps[-1]) != "linear":
            break
        steps.pop()
    last = steps[-1]
    return last_step(last) if isinstance(last, keras.Model) and last.layers else last


def _activation_name(layer: Any) -> str | None:
    return getattr(getattr(layer, "activation", None), "__name__", None)
