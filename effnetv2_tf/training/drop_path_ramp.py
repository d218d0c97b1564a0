"""NASNet's ScheduledDropPath: drop rates that grow over depth and over training."""

from __future__ import annotations

from typing import Any

import keras

from effnetv2_tf import keras_compat
from effnetv2_tf.training.drop_rates import DropRates


class DropPathRamp(keras.callbacks.Callback):  # type: ignore[misc]
    """Lets the drop-path rate grow linearly from 0 to its final value, step by step.

    Zoph et al., arXiv 1707.07012, appendix A.7. Over depth it grows as the model has it, see
    `DropRates.set_drop_path`. The rate is a function of the optimizer's step counter, so a
    resumed training goes on with the right one. For a ramp in a few stages, beside image size
    and the other regularisers, schedule `drop_path_rate` in `ProgressiveLearning` instead.

    Args:
      final_rate: of the last cell or block, at the last step; in [0, 1).
      total_steps: optimizer steps of the training; the rate stays after them.
    """

    def __init__(self, final_rate: float, total_steps: int) -> None:
        super().__init__()
        if not 0 <= final_rate < 1:
            raise ValueError(
                f"DropPathRamp: `final_rate` must lie in [0, 1). Received: {final_rate}."
            )
        if not isinstance(total_steps, int) or total_steps < 1:
            raise ValueError(
                "DropPathRamp: `total_steps` must be a positive integer. Received: "
                f"{total_steps!r}."
            )
        self.final_rate = final_rate
        self.total_steps = total_steps
        self._rates: DropRates | None = None

    def rate(self, step: int) -> float:
        """The last cell's rate in optimizer step `step`, counted from 0."""
        return self.final_rate * min(1.0, step / self.total_steps)

    def on_train_begin(self, logs: Any = None) -> None:
        self._rates = DropRates(self.model)
        if self._set_rate():
            raise ValueError(
                f"DropPathRamp: model {self.model.name!r} has Keras's own stochastic depth, "
                "whose rate is fixed in the traced step. Expected a network of this package."
            )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._set_rate()

    def _set_rate(self) -> bool:
        assert self._rates is not None, "set in on_train_begin"
        return self._rates.set_drop_path(self.rate(keras_compat.steps_made(self.model.optimizer)))
