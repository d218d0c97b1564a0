"""Learning rates as functions of the step, in the units of the papers: epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.training.schedule import StageSchedule

if TYPE_CHECKING:
    from effnetv2_tf.training.recipe import Recipe

Decay = Literal["exponential", "cosine", "constant"]


@keras_compat.register_serializable("effnetv2_tf")
class WarmUpDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Linear warm-up from 0, then exponential, cosine or no decay.

    The rate follows the global batch size: `learning_rate_per_256 * batch / 256`, stage by
    stage where the stages' batch sizes differ. EfficientNetV2's ImageNet recipe is
    `(0.016, "exponential", warmup_epochs=5, decay_factor=0.97, decay_epochs=2.4)`.

    Args:
      learning_rate_per_256: peak rate for a global batch of 256 images.
      decay: `"exponential"`: times `decay_factor` every `decay_epochs`, counted from the
        start of training and, if `staircase`, in steps; `"cosine"`: half a cosine from the
        end of the warm-up down to `final_share` of the peak; `"constant"`.
      stages: `(steps, steps_per_epoch, batch_size)` of each stage, see `for_schedule`.
      warmup_epochs: length of the warm-up.
      decay_factor: of exponential decay.
      decay_epochs: of exponential decay.
      staircase: of exponential decay.
      final_share: of cosine decay.
    """

    def __init__(
        self,
        learning_rate_per_256: float,
        decay: Decay,
        stages: Any,
        warmup_epochs: float = 0.0,
        decay_factor: float = 0.97,
        decay_epochs: float = 2.4,
        staircase: bool = True,
        final_share: float = 0.0,
    ) -> None:
        super().__init__()
        if decay not in ("exponential", "cosine", "constant"):
            raise ValueError(
                f"`decay` must be 'exponential', 'cosine' or 'constant'. Received: decay={decay!r}."
            )
        if not stages or not all(isinstance(s, Sequence) and len(s) == 3 for s in stages):
            raise ValueError(
                "`stages` must hold (steps, steps_per_epoch, batch_size) of each stage. "
                f"Received: {stages!r}."
            )
        if warmup_epochs < 0:
            raise ValueError(f"`warmup_epochs` must be >= 0. Received: {warmup_epochs}.")
        if not decay_epochs > 0:
            raise ValueError(f"`decay_epochs` must be positive. Received: {decay_epochs}.")
        self.learning_rate_per_256 = learning_rate_per_256
        self.decay = decay
        self.stages = [tuple(stage) for stage in stages]
        self.warmup_epochs = warmup_epochs
        self.decay_factor = decay_factor
        self.decay_epochs = decay_epochs
        self.staircase = staircase
        self.final_share = final_share

    @classmethod
    def for_schedule(
        cls, schedule: StageSchedule, learning_rate_per_256: float, decay: Decay, **options: Any
    ) -> WarmUpDecay:
        """The rate for a run through `schedule`."""
        stages = [
            (stage.last_step - stage.first_step, stage.steps_per_epoch, stage.batch_size)
            for stage in schedule.stages
        ]
        return cls(learning_rate_per_256, decay, stages, **options)

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        epoch = self._epochs_made(step)
        peak = self.learning_rate_per_256 * self._batch_size(step) / 256.0
        rate = peak * self._decayed_share(epoch)
        if self.warmup_epochs:
            warming = peak * epoch / self.warmup_epochs
            rate = tf.where(epoch < self.warmup_epochs, warming, rate)
        return rate

    def _epochs_made(self, step: tf.Tensor) -> tf.Tensor:
        epochs, first = tf.constant(0.0), 0
        for steps, steps_per_epoch, _ in self.stages:
            epochs += tf.clip_by_value(step - first, 0.0, float(steps)) / steps_per_epoch
            first += steps
        return epochs

    def _batch_size(self, step: tf.Tensor) -> tf.Tensor:
        batch, first = tf.constant(float(self.stages[0][2])), 0
        for steps, _, batch_size in self.stages:
            batch = tf.where(step >= first, float(batch_size), batch)
            first += steps
        return batch

    def _decayed_share(self, epoch: tf.Tensor) -> Any:
        if self.decay == "exponential":
            periods = epoch / self.decay_epochs
            periods = tf.floor(periods + 1e-5) if self.staircase else periods
            return tf.pow(self.decay_factor, periods)
        if self.decay == "cosine":
            total = sum(steps / per_epoch for steps, per_epoch, _ in self.stages)
            span = max(total - self.warmup_epochs, 1e-6)
            progress = tf.clip_by_value((epoch - self.warmup_epochs) / span, 0.0, 1.0)
            cosine = 0.5 * (1.0 + tf.cos(math.pi * progress))
            return self.final_share + (1.0 - self.final_share) * cosine
        return 1.0

    def get_config(self) -> dict:
        return {
            "learning_rate_per_256": self.learning_rate_per_256,
            "decay": self.decay,
            "stages": self.stages,
            "warmup_epochs": self.warmup_epochs,
            "decay_factor": self.decay_factor,
            "decay_epochs": self.decay_epochs,
            "staircase": self.staircase,
            "final_share": self.final_share,
        }


@keras_compat.register_serializable("effnetv2_tf")
class FollowedBy(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """One schedule for the first steps, then another that counts from 0.

    Args:
      first: the schedule to begin with.
      steps: how long it lasts.
      second: the schedule from then on.
    """

    def __init__(self, first: Any, steps: int, second: Any) -> None:
        super().__init__()
        self.first = first
        self.steps = steps
        self.second = second

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        return tf.where(step < self.steps, self.first(step), self.second(step - self.steps))

    def get_config(self) -> dict:
        serialize = keras.optimizers.schedules.serialize
        return {
            "first": serialize(self.first),
            "steps": self.steps,
            "second": serialize(self.second),
        }

    @classmethod
    def from_config(cls, config: dict) -> FollowedBy:
        deserialize = keras.optimizers.schedules.deserialize
        return cls(deserialize(config["first"]), config["steps"], deserialize(config["second"]))


def build_learning_rate(
    recipe: Recipe, schedule: StageSchedule
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The recipe's learning rate; a cosine of its own for the fine-tuning at the test size."""
    rate, reduced = recipe.learning_rate, recipe.reduced_resolution
    stages = schedule.stages if reduced is None else schedule.stages[:-1]
    training = StageSchedule(stages)
    learning_rate = WarmUpDecay.for_schedule(
        training,
        rate.per_256,
        rate.decay,
        warmup_epochs=rate.warmup_epochs,
        decay_factor=rate.decay_factor,
        decay_epochs=rate.decay_epochs,
        final_share=rate.final_share,
    )
    if reduced is None:
        return learning_rate
    fine_tuning = WarmUpDecay.for_schedule(
        StageSchedule(schedule.stages[-1:]), reduced.learning_rate_per_256, "cosine"
    )
    return FollowedBy(learning_rate, training.total_steps, fine_tuning)
