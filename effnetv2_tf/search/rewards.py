"""What makes a network good: one number, or several objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Goal = Literal["maximize", "minimize"]

# EfficientNetV2 (arXiv 2104.00298), section 3.2.
STEP_TIME_EXPONENT = -0.07
PARAMETERS_EXPONENT = -0.05
# EfficientNet (arXiv 1905.11946), section 4, after MnasNet (arXiv 1807.11626).
MULTIPLY_ADDS_EXPONENT = -0.07


@dataclass(frozen=True)
class Measurement:
    """What is known of a network that was tried.

    Attributes:
      accuracy: top-1 of the proxy training, in [0, 1].
      parameters: numbers held, statistics included.
      multiply_adds: for one image of the proxy's evaluation size.
      step_seconds: of one training step; None if it was not measured.
      reference_step_seconds: of the backbone's on the same device, which normalises it.
      step_is_noisy: whether `step_seconds` did not settle.
    """

    accuracy: float
    parameters: int
    multiply_adds: int
    step_seconds: float | None = None
    reference_step_seconds: float | None = None
    step_is_noisy: bool = False


def training_aware_reward(
    accuracy: float,
    step_time: float,
    parameters: float,
    step_time_exponent: float = STEP_TIME_EXPONENT,
    parameters_exponent: float = PARAMETERS_EXPONENT,
) -> float:
    """`A * S^w * P^v` of EfficientNetV2 (arXiv 2104.00298), section 3.2.

    Args:
      accuracy: A.
      step_time: S, normalised: over that of a reference network, so without unit.
      parameters: P, normalised likewise; another unit multiplies all rewards alike.
      step_time_exponent: w.
      parameters_exponent: v.

    Raises:
      ValueError: unless step time and parameters are positive.
    """
    _check_positive("training_aware_reward", step_time=step_time, parameters=parameters)
    return accuracy * step_time**step_time_exponent * parameters**parameters_exponent


def flops_reward(
    accuracy: float,
    multiply_adds: float,
    target: float,
    exponent: float = MULTIPLY_ADDS_EXPONENT,
) -> float:
    """`A * (FLOPs / T)^w` of EfficientNet (arXiv 1905.11946), section 4: its baseline network.

    Args:
      accuracy: A.
      multiply_adds: FLOPs as the paper counts them.
      target: T, in the same unit.
      exponent: w.

    Raises:
      ValueError: unless multiply-adds and target are positive.
    """
    _check_positive("flops_reward", multiply_adds=multiply_adds, target=target)
    return accuracy * (multiply_adds / target) ** exponent


def _check_positive(function: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{function}: `{name}` must be positive. Received: {value}.")


@dataclass(frozen=True)
class TrainingAware:
    """`training_aware_reward` beside the backbone, whose own reward is its accuracy."""

    reference_parameters: float
    step_time_exponent: float = STEP_TIME_EXPONENT
    parameters_exponent: float = PARAMETERS_EXPONENT

    directions: ClassVar[tuple[Goal, ...]] = ("maximize",)

    def __call__(self, measurement: Measurement) -> tuple[float]:
        """The reward, as the only objective.

        Raises:
          ValueError: if the step time was not measured.
        """
        step_time = _measured(measurement, "step_seconds") / _measured(
            measurement, "reference_step_seconds"
        )
        return (
            training_aware_reward(
                measurement.accuracy,
                step_time,
                measurement.parameters / self.reference_parameters,
                self.step_time_exponent,
                self.parameters_exponent,
            ),
        )


@dataclass(frozen=True)
class FlopsAware:
    """`flops_reward` with a target in multiply-adds."""

    target: float
    exponent: float = MULTIPLY_ADDS_EXPONENT

    directions: ClassVar[tuple[Goal, ...]] = ("maximize",)

    def __call__(self, measurement: Measurement) -> tuple[float]:
        """The reward, as the only objective."""
        accuracy, multiply_adds = measurement.accuracy, measurement.multiply_adds
        return (flops_reward(accuracy, multiply_adds, self.target, self.exponent),)


@dataclass(frozen=True)
class MultiObjective:
    """Accuracy (to be high), training step time in seconds and parameters (to be low)."""

    directions: ClassVar[tuple[Goal, ...]] = ("maximize", "minimize", "minimize")

    def __call__(self, measurement: Measurement) -> tuple[float, float, float]:
        """The three objectives.

        Raises:
          ValueError: if the step time was not measured.
        """
        seconds = _measured(measurement, "step_seconds")
        return measurement.accuracy, seconds, float(measurement.parameters)


Reward = TrainingAware | FlopsAware | MultiObjective


def _measured(measurement: Measurement, name: str) -> float:
    value = getattr(measurement, name)
    if value is None:
        raise ValueError(
            f"Measurement: `{name}` is None; expected a measured time for this reward. Use "
            "FlopsAware, or measure it."
        )
    return value
