"""Fine-tuning in two phases: the head alone, then everything."""

from __future__ import annotations

from typing import Any

import keras

from effnetv2_tf.models import transfer
from effnetv2_tf.training.progressive import ProgressiveLearning


class TwoPhases(keras.callbacks.Callback):  # type: ignore[misc]
    """Trains the last layers alone for the first epochs, then more of the network.

    A new classifier sends large, random gradients through weights that are good already;
    the first phase lets it settle, and costs little, since nothing flows back further.
    The phase is a function of the epoch, so that a resumed run is in the right one. Stages
    of progressive learning and phases are independent of each other. Put this callback
    behind `progressive` in the list, and build the optimizer for all variables first.

    Args:
      progressive: the callback that owns the training step.
      head_epochs: epochs of the first phase; 0 for none.
      head: the first layer trained in the first phase, see `transfer.freeze`.
      until: the first layer trained in the second phase; None for all.
      batch_norm: of frozen layers: `"frozen"` or `"training"`, see `transfer.freeze`.
    """

    def __init__(
        self,
        progressive: ProgressiveLearning,
        head_epochs: int = 1,
        head: str = "classifier",
        until: str | None = None,
        batch_norm: transfer.BatchNormMode = "frozen",
    ) -> None:
        super().__init__()
        if head_epochs < 0:
            raise ValueError(
                f"TwoPhases: `head_epochs` must be >= 0. Received: head_epochs={head_epochs}."
            )
        self.progressive = progressive
        self.head_epochs = head_epochs
        self.head = head
        self.until = until
        self.batch_norm = batch_norm
        self.phase: int | None = None  # 0 or 1 within `fit`

    def on_train_begin(self, logs: Any = None) -> None:
        self.phase = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        phase = int(epoch >= self.head_epochs)
        if phase == self.phase:
            return
        self.phase = phase
        border = self.head if phase == 0 else self.until
        if border is None:
            transfer.unfreeze(self.model)
        else:
            transfer.freeze(self.model, border, self.batch_norm)
        self.progressive.retrace()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs["phase"] = self.phase

    def on_train_end(self, logs: Any = None) -> None:
        transfer.unfreeze(self.model)
