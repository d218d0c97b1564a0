"""Phases of a run that train different parts of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models import transfer
from effnetv2_tf.training.ema import ExponentialMovingAverage
from effnetv2_tf.training.progressive import ProgressiveLearning
from effnetv2_tf.training.recipe import Recipe


@dataclass(frozen=True)
class Phase:
    """What is trained from an epoch on.

    Attributes:
      first_epoch: number of the phase's first epoch, from 0.
      border: the first layer that is trained, see `transfer.freeze`; None for all.
      batch_norm: of frozen layers: `"frozen"` or `"training"`, see `transfer.freeze`.
      starts_from_averages: whether the phase begins with the averaged weights, without the
        momentum of the raw ones, and does not average its own: a few epochs would hardly move a
        long average.
    """

    first_epoch: int
    border: str | None = None
    batch_norm: transfer.BatchNormMode = "frozen"
    starts_from_averages: bool = False


class Phases(keras.callbacks.Callback):  # type: ignore[misc]
    """Trains some layers in some epochs, such as a new classifier first, then everything.

    A new classifier sends large, random gradients through weights that are good already;
    a phase for it alone lets it settle, and costs little, since nothing flows back further.
    The phase is a function of the epoch, so that a resumed run is in the right one. Stages
    of progressive learning and phases are independent of each other. Put this callback
    behind `progressive` and before `ema` in the list, and build the optimizer for all
    variables first.

    Args:
      progressive: the callback that owns the training step.
      phases: in the order of their first epochs, the first of them 0; of phases with the
        same first epoch the last one counts.
      ema: the averages for phases that start from them, if there are any.
    """

    def __init__(
        self,
        progressive: ProgressiveLearning,
        phases: Sequence[Phase],
        ema: ExponentialMovingAverage | None = None,
    ) -> None:
        super().__init__()
        epochs = [phase.first_epoch for phase in phases]
        if not epochs or epochs[0] != 0 or epochs != sorted(epochs):
            raise ValueError(
                "Phases: `phases` must be in order, and the first one begin with epoch 0. "
                f"Received first epochs: {epochs}."
            )
        self.progressive = progressive
        self.phases = tuple(phases)
        self.ema = ema
        self.phase: int | None = None  # within `fit`

    def on_train_begin(self, logs: Any = None) -> None:
        self.phase = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        index = max(i for i, phase in enumerate(self.phases) if phase.first_epoch <= epoch)
        if index == self.phase:
            return
        self.phase = index
        phase = self.phases[index]
        if phase.border is None:
            transfer.unfreeze(self.model)
        else:
            transfer.freeze(self.model, phase.border, phase.batch_norm)
        self._set_averaging(phase)
        self.progressive.retrace()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs["phase"] = self.phase

    def on_train_end(self, logs: Any = None) -> None:
        transfer.unfreeze(self.model)

    def _set_averaging(self, phase: Phase) -> None:
        if self.ema is None:
            return
        self.ema.averaging = not phase.starts_from_averages
        first_step = self.progressive.schedule.first_step_of_epoch(phase.first_epoch)
        if phase.starts_from_averages and self.progressive.next_step == first_step:
            self.ema.adopt()
            # The momentum leads on from the weights given up, at another learning rate.
            keras_compat.restart_momentum(self.model.optimizer, self.model.weights)


def build_phases(
    recipe: Recipe,
    model: keras.Model,
    progressive: ProgressiveLearning,
    ema: ExponentialMovingAverage | None = None,
) -> list[keras.callbacks.Callback]:
    """The callback of a fine-tuning recipe's phases; empty for other recipes.

    Raises:
      UsageError: if the recipe names a layer that the model does not have, or more blocks.
    """
    section, reduced = recipe.fine_tuning, recipe.reduced_resolution
    phases = [Phase(0)]
    if section is not None:
        try:
            for name in (section.head, section.until):
                if name is not None:
                    transfer.index_of(model, name)
            transfer.check_batch_norm(model, section.batch_norm)
        except ValueError as error:
            raise UsageError(f"fine_tuning: {error}") from error
        phases = [
            Phase(0, section.head, section.batch_norm),
            Phase(
                min(section.head_epochs, recipe.training.epochs), section.until, section.batch_norm
            ),
        ]
    if reduced is not None:
        try:
            blocks = 0 if reduced.fine_tune == "top" else reduced.fine_tune
            border = last_blocks(model, blocks)
        except ValueError as error:
            raise UsageError(f"reduced_resolution.fine_tune: {error}") from error
        phases.append(Phase(recipe.training.epochs, border, starts_from_averages=True))
    return [Phases(progressive, phases, ema)] if section or reduced else []


def last_blocks(model: keras.Model, count: int) -> str:
    """The first layer of the network's last `count` blocks; of the head if `count` is 0.

    Raises:
      ValueError: if the network has fewer blocks.
    """
    if count == 0:
        return "head"
    blocks = [layer.name for layer in model.layers if layer.name.startswith("stage")]
    if count > len(blocks):
        raise ValueError(f"expected at most {len(blocks)} blocks, all of them, received {count}")
    return blocks[-count]
