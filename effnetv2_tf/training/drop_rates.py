"""Moving the dropout and drop-path rates of a built model, ours or any Keras model."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import keras

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.dropout import Dropout
from effnetv2_tf.models.layers.nasnet_cell import NASNetCell
from effnetv2_tf.models.layers.residual_block import ResidualBlock
from effnetv2_tf.models.scaling import drop_path_rates
from effnetv2_tf.training.schedule import Stage

# A Keras layer's share of the model's largest drop-path rate, for when all rates are 0.
_SHARES: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()


class DropRates:
    """The drop rates of a model, found once and set as often as needed.

    This package's layers hold their rate in a variable: the next step has it. Keras's own
    `Dropout` (and what is derived from it, `SpatialDropout2D` too) has it written into the traced
    graph: the setters then say that a new trace is needed. A Keras `Dropout` whose mask is one
    number for a sample (`noise_shape` of ones after the batch, as in `keras.applications`) counts
    as drop path.
    """

    def __init__(self, model: keras.Model) -> None:
        layers = keras_compat.flatten_layers(model)
        self._dropouts = [layer for layer in layers if isinstance(layer, Dropout)]
        networks = keras_compat.layers_by_network(model)
        self._blocks = _of_kind(networks, ResidualBlock)
        self._cells = _of_kind(networks, NASNetCell)
        keras_dropouts = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
        self._keras_drop_paths = [d for d in keras_dropouts if _drops_samples(d)]
        self._keras_dropouts = [d for d in keras_dropouts if not _drops_samples(d)]
        _note_shares(self._keras_drop_paths)

    def check(self, stages: Sequence[Stage]) -> None:
        """Refuses stages that give a rate to a layer that cannot drop anything.

        Raises:
          ValueError: with the name of a Keras `Dropout` that was built with rate 0.
        """
        moved = {
            "dropout_rate": self._keras_dropouts,
            "drop_path_rate": [d for d in self._keras_drop_paths if _SHARES[d] > 0],
        }
        for name, layers in moved.items():
            if not any(getattr(stage.regularization, name) for stage in stages):
                continue
            for layer in layers:
                if not keras_compat.can_drop(layer):
                    raise ValueError(
                        f"The schedule moves `{name}`, but layer {layer.name!r} was built with "
                        "rate 0, and then Keras's Dropout has no random numbers: build it with a "
                        "rate above 0, which the schedule replaces."
                    )

    def set_dropout(self, rate: float) -> bool:
        """Sets every dropout layer's rate; returns whether the model must be traced anew."""
        if not (self._dropouts or self._keras_dropouts):
            raise ValueError(
                "The schedule moves `dropout_rate`, but the model has no dropout layer (Keras's "
                "Dropout or one derived from it): add one, or take `dropout_rate` out of the "
                "schedule."
            )
        for layer in self._dropouts:
            layer.rate = rate
        return _set_keras_rates(self._keras_dropouts, [rate] * len(self._keras_dropouts))

    def set_drop_path(self, rate: float) -> bool:
        """Sets stochastic depth, `rate` at the last block; returns whether to trace anew.

        Blocks' rates start at 0; those of a NASNet's n cells at `rate / n`, as in its paper. So it
        is in each of several networks within the model.
        """
        if not (self._blocks or self._cells or self._keras_drop_paths):
            raise ValueError(
                "The schedule moves `drop_path_rate`, but the model has no stochastic depth: "
                "add it, or take `drop_path_rate` out of the schedule."
            )
        for blocks in self._blocks:
            rates = drop_path_rates(rate, len(blocks))
            for block, block_rate in zip(blocks, rates, strict=True):
                block.set_drop_path_rate(block_rate)
        for cells in self._cells:
            for number, cell in enumerate(cells, start=1):
                cell.set_drop_path_rate(rate * number / len(cells))
        keras_rates = [rate * _SHARES[layer] for layer in self._keras_drop_paths]
        return _set_keras_rates(self._keras_drop_paths, keras_rates)


def _of_kind(networks: list[list], kind: type) -> list[list]:
    """The layers of a kind in each network that has some."""
    found = [[layer for layer in layers if isinstance(layer, kind)] for layers in networks]
    return [layers for layers in found if layers]


def _note_shares(drop_paths: list) -> None:
    """Shares of the largest rate; where all are 0, those of before, or linear by position."""
    largest = max((float(layer.rate) for layer in drop_paths), default=0.0)
    for position, layer in enumerate(drop_paths, start=1):
        if largest:
            _SHARES[layer] = float(layer.rate) / largest
        else:
            _SHARES.setdefault(layer, position / len(drop_paths))


def _drops_samples(layer: Any) -> bool:
    noise_shape = getattr(layer, "noise_shape", None)
    return noise_shape is not None and all(side == 1 for side in tuple(noise_shape)[1:])


def _set_keras_rates(layers: list, rates: list[float]) -> bool:
    changed = False
    for layer, rate in zip(layers, rates, strict=True):
        changed = changed or layer.rate != rate
        layer.rate = rate
    return changed
