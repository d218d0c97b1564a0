"""What comes along with weights besides tensors: padding, preprocessing, epsilon."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.layers import BatchNorm, InputNormalization
from effnetv2_tf.models.layers.residual_block import ResidualBlock
from effnetv2_tf.models.specs import Preprocessing, normalization_text


def check_padding(model: keras.Model, padding: str | None, title: str) -> None:
    """Raises a UsageError if the weights were trained with another padding than the model's.

    Args:
      model: that is to take the weights.
      padding: the weights'; None if not known.
      title: of the weights, which begins the message.
    """
    blocks = [b for b in keras_compat.flatten_layers(model) if isinstance(b, ResidualBlock)]
    if padding is None or not blocks or blocks[0].padding == padding:
        return
    raise UsageError(
        f"{title} was trained with padding {padding!r}, but model {model.name!r} has "
        f"{blocks[0].padding!r}: strided convolutions would be off by a pixel. Pass "
        f"padding={padding!r} to the constructor, or build the network from "
        f"dataclasses.replace(spec, padding={padding!r})."
    )


def note_on_normalized_images(model: keras.Model) -> list[str]:
    """A note, if the model normalises pixels, for weights of a network that does not."""
    layers = [layer for layer in model.layers if isinstance(layer, InputNormalization)]
    if not layers:
        return []
    own = normalization_text(layers[0].mean, layers[0].std)
    return [
        "The weights are of a network without preprocessing, whose images were normalised before; "
        f"the model normalises pixels itself, {own}: see that it is the same."
    ]


def adjust(
    model: keras.Model, preprocessing: Preprocessing | None, epsilon: float | None
) -> list[str]:
    """Sets the weights' input normalisation and epsilon on the model, where they differ.

    Both are in the layers' configurations, so they are saved with the model.

    Returns:
      A sentence for everything that was set or must be known.
    """
    notes = _set_preprocessing(model, preprocessing) + _set_epsilon(model, epsilon)
    if notes:
        # Functions that were traced before hold the old numbers.
        model.train_function = model.test_function = model.predict_function = None
    return notes


def _set_preprocessing(model: keras.Model, preprocessing: Preprocessing | None) -> list[str]:
    if preprocessing is None:
        return []
    mine = preprocessing.for_channels(model.input_shape[-1])
    normalised = normalization_text(mine.mean, mine.std)
    layers = [layer for layer in model.layers if isinstance(layer, InputNormalization)]
    if not layers:
        return [f"The model does not normalise images: it expects {normalised}."]
    layer = layers[0]
    if _same(layer.mean, mine.mean) and _same(layer.std, mine.std):
        return []
    before = normalization_text(layer.mean, layer.std)
    layer.mean, layer.std = tuple(mine.mean), tuple(mine.std)
    return [f"Input normalisation set to the weights': {normalised}; it was {before}."]


def _set_epsilon(model: keras.Model, epsilon: float | None) -> list[str]:
    if epsilon is None:
        return []
    layers = keras_compat.flatten_layers(model)
    norms = [layer for layer in layers if isinstance(layer, BatchNorm)]
    changed = [norm for norm in norms if abs(norm.epsilon - epsilon) > 1e-9]
    if not changed:
        return []
    before = changed[0].epsilon
    for norm in changed:
        norm.epsilon = float(epsilon)
    for layer in layers:
        if hasattr(layer, "batch_norm_epsilon"):  # a block: rebuilds its norms from this
            layer.batch_norm_epsilon = float(epsilon)
    return [f"Epsilon of the batch norms set to the weights': {epsilon:g}; it was {before:g}."]


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two per-channel settings agree; one number stands for all channels."""
    length = max(len(one), len(other))
    pairs = zip(
        *(tuple(v) * length if len(v) == 1 else tuple(v) for v in (one, other)), strict=True
    )
    return all(abs(a - b) <= 1e-5 * max(1.0, abs(a), abs(b)) for a, b in pairs)
