"""Where a network's images come from: an input of its own, or a tensor of somebody's layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from effnetv2_tf import keras_compat
from effnetv2_tf.models.input_range import EfficientNet

ANY_IN_COLOUR = (None, None, 3)


def images_for(shape: tuple[int | None, int | None, int], input_tensor: Any = None) -> Any:
    """The symbolic images that a network starts from, (batch, height, width, channels)."""
    return keras.Input(shape=shape, name="image") if input_tensor is None else input_tensor


def shape_of(input_tensor: Any, input_shape: Sequence[int | None] | None) -> tuple:
    """(height, width, channels) of a constructor's `input_tensor`.

    Raises:
      ValueError: if it is not symbolic images, or if `input_shape` says otherwise.
    """
    if not keras_compat.is_symbolic(input_tensor):
        raise ValueError(
            "`input_tensor` must be symbolic, from keras.Input or a layer called on it. Received: "
            f"{type(input_tensor).__name__}. Call the model on values."
        )
    shape = tuple(input_tensor.shape[1:])
    if len(shape) != 3:
        raise ValueError(
            "`input_tensor` must be images, (batch, height, width, channels). Received: shape "
            f"{tuple(input_tensor.shape)}."
        )
    given = tuple(input_shape) if isinstance(input_shape, Iterable) else input_shape
    if given not in (None, ANY_IN_COLOUR, shape):
        raise ValueError(
            f"`input_shape` must be that of `input_tensor`, {shape}, or be left out. Received: "
            f"input_shape={given}."
        )
    return shape


def model_between(images: Any, outputs: Any, name: str) -> EfficientNet:
    """The model from what `images` are computed from, often themselves, to `outputs`."""
    sources = keras.utils.get_source_inputs(images)
    return EfficientNet(sources[0] if len(sources) == 1 else sources, outputs, name=name)


def network_within(model: EfficientNet, input_tensor: Any) -> EfficientNet:
    """The network's own layers of a model that was built on `input_tensor`; they are shared."""
    if input_tensor is None or model.inputs[0] is input_tensor:
        return model
    return EfficientNet(input_tensor, model.outputs, name=model.name)
