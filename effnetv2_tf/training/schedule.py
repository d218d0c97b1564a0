"""Progressive learning's stages: a pure function of the step.

EfficientNetV2 (arXiv 2104.00298), section 4 and algorithm 1: training is divided into
stages; from stage to stage the image size grows and, with it, the regularisation.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal

from effnetv2_tf.errors import is_whole

Interpolation = Literal["paper", "reference"]
MIN_IMAGE_SIZE = 8
_BELOW = {"dropout_rate": 1, "drop_path_rate": 1}


@dataclass(frozen=True)
class Regularization:
    """The strength of each scheduled regulariser; None means "not scheduled, leave it alone".

    Attributes:
      randaugment_magnitude: of RandAugment, 10 is the unit; 0 switches it off.
      mixup_alpha: parameter of mixup's Beta distribution; 0 switches it off.
      cutmix_alpha: of CutMix's; 0 switches it off.
      dropout_rate: before the classifier.
      drop_path_rate: of the last block.
      crop_area_min: smallest share of an image's area in random resized crops. Networks learn
        the size at which objects appear, in pixels (arXiv 1906.06423); small images that show
        a small part of a picture show it at the size of the large images to come.
      crop_area_max: the largest.
    """

    randaugment_magnitude: float | None = None
    mixup_alpha: float | None = None
    cutmix_alpha: float | None = None
    dropout_rate: float | None = None
    drop_path_rate: float | None = None
    crop_area_min: float | None = None
    crop_area_max: float | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            if not isinstance(value, numbers.Real):
                raise ValueError(
                    f"Regularization: `{f.name}` must be a number. Received: {value!r}."
                )
            below = _BELOW.get(f.name, math.inf)
            if not 0 <= float(value) < below:
                limit = "" if below == math.inf else f" and below {below:g}"
                raise ValueError(
                    f"Regularization: `{f.name}` must be at least 0{limit}. Received: {value}."
                )

    def interpolate(self, end: Regularization, share: float) -> Regularization:
        """`self + (end - self) * share` for every quantity that both name."""
        values = {}
        for f in fields(self):
            first, last = getattr(self, f.name), getattr(end, f.name)
            if first is None or last is None:
                values[f.name] = last if first is None else first
            else:
                values[f.name] = first + (last - first) * share
        return Regularization(**values)


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
      index: 0 for the first.
      image_size: side in pixels.
      batch_size: images in a step, over all replicas.
      first_epoch: number of the stage's first epoch, from 0.
      epochs: number of epochs.
      steps_per_epoch: optimizer steps in each of them.
      first_step: number of optimizer steps before the stage.
      regularization: in force during the stage.
      preprocessing: of its images: `"training"`, or `"evaluation"` for what images go through
        at test time, without augmentation.
    """

    index: int
    image_size: int
    batch_size: int
    first_epoch: int
    epochs: int
    steps_per_epoch: int
    first_step: int
    regularization: Regularization = field(default_factory=Regularization)
    preprocessing: Literal["training", "evaluation"] = "training"

    @property
    def last_epoch(self) -> int:
        """The number of the epoch after the stage."""
        return self.first_epoch + self.epochs

    @property
    def last_step(self) -> int:
        """The number of optimizer steps at the stage's end."""
        return self.first_step + self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class Position:
    """Where a step lies: its stage, its epoch, and the step within the epoch."""

    stage: Stage
    epoch: int
    step_in_epoch: int


@dataclass(frozen=True)
class StageSchedule:
    """The stages of a run, in order, without gaps.

    Raises:
      ValueError: if there is none, or one does not begin where the one before ends.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("StageSchedule: expected at least one stage. Received: none.")
        for before, stage in pairwise(self.stages):
            expected = (before.last_epoch, before.last_step)
            if (stage.first_epoch, stage.first_step) != expected:
                raise ValueError(
                    f"StageSchedule: stage {stage.index} must begin with epoch {expected[0]} and "
                    f"step {expected[1]}, where the stage before ends. Received: "
                    f"first_epoch={stage.first_epoch}, first_step={stage.first_step}."
                )

    @property
    def epochs(self) -> int:
        return self.stages[-1].last_epoch

    @property
    def total_steps(self) -> int:
        return self.stages[-1].last_step

    @property
    def most_steps_per_epoch(self) -> int:
        """Steps of the longest epoch: the stages' differ if their batch sizes do."""
        return max(stage.steps_per_epoch for stage in self.stages)

    def stage_of_epoch(self, epoch: int) -> Stage:
        """The stage that an epoch belongs to; the last one for epochs past the end."""
        for stage in self.stages:
            if epoch < stage.last_epoch:
                return stage
        return self.stages[-1]

    def first_step_of_epoch(self, epoch: int) -> int:
        """Number of optimizer steps before an epoch."""
        stage = self.stage_of_epoch(epoch)
        return stage.first_step + (epoch - stage.first_epoch) * stage.steps_per_epoch

    def position(self, step: int) -> Position:
        """Where the step that follows `step` finished steps lies."""
        if step < 0:
            raise ValueError(f"`step` must be >= 0. Received: step={step}.")
        stage = next((s for s in self.stages if step < s.last_step), self.stages[-1])
        epoch, step_in_epoch = divmod(step - stage.first_step, stage.steps_per_epoch)
        return Position(stage, stage.first_epoch + epoch, step_in_epoch)

    def with_fine_tuning(self, image_size: int, epochs: int) -> StageSchedule:
        """The schedule with one more stage at another size with the evaluation's preprocessing.

        RandAugment, mixup and CutMix are off in it, where they were scheduled; everything else
        is as in the stage before.

        Args:
          image_size: side in pixels.
          epochs: of the new stage.

        Raises:
          ValueError: naming the argument that cannot be.
        """
        if not is_whole(epochs) or epochs < 1:
            raise ValueError(f"`epochs` must be a whole number from 1 up. Received: {epochs!r}.")
        if not is_whole(image_size) or image_size < MIN_IMAGE_SIZE:
            raise ValueError(
                f"`image_size` must be a whole number of pixels, at least {MIN_IMAGE_SIZE}. "
                f"Received: {image_size!r}."
            )
        last = self.stages[-1]
        mixing = ("randaugment_magnitude", "mixup_alpha", "cutmix_alpha")
        off = {name: 0.0 for name in mixing if getattr(last.regularization, name) is not None}
        stage = replace(
            last,
            index=last.index + 1,
            image_size=image_size,
            first_epoch=last.last_epoch,
            epochs=epochs,
            first_step=last.last_step,
            regularization=replace(last.regularization, **off),
            preprocessing="evaluation",
        )
        return StageSchedule((*self.stages, stage))

    @classmethod
    def progressive(
        cls,
        *,
        epochs: int,
        num_examples: int,
        batch_size: int | Sequence[int],
        image_size: tuple[int, int],
        num_stages: int = 4,
        start: Regularization = Regularization(),
        end: Regularization = Regularization(),
        interpolation: Interpolation = "paper",
        size_multiple: int = 1,
        image_sizes: Sequence[int] | None = None,
        epochs_per_stage: Sequence[int] | None = None,
    ) -> StageSchedule:
        """The paper's schedule, or the reference code's.

        Args:
          epochs: in all; divided among the stages as evenly as can be.
          num_examples: training images in an epoch.
          batch_size: over all replicas; one number, or one for each stage.
          image_size: sides (S0, Se) in pixels at the first and the last stage.
          num_stages: M.
          start: regularisation at the first stage.
          end: at the last stage.
          interpolation: of sizes. `"paper"`: share i / (M - 1), so that the first stage has S0
            (algorithm 1); `"reference"`: share (i + 1) / M with the size cut to an integer
            (google/automl), so that already the first stage lies past S0. Regularisation has
            the share i / (M - 1) in both.
          size_multiple: sizes are rounded to the nearest multiple, the last one included.
          image_sizes: the stages' sides, given outright.
          epochs_per_stage: the stages' epochs, given outright.

        Raises:
          ValueError: naming the argument that cannot be.
        """
        for name, value in (("epochs", epochs), ("num_examples", num_examples)):
            if not is_whole(value):
                raise ValueError(f"`{name}` must be a whole number. Received: {value!r}.")
        for name, given in (("start", start), ("end", end)):
            if not isinstance(given, Regularization):
                raise ValueError(
                    f"`{name}` must be a Regularization, e.g. Regularization(dropout_rate=0.1). "
                    f"Received: {given!r}."
                )
        lengths = _epochs_per_stage(epochs, num_stages, epochs_per_stage)
        sizes = _image_sizes(image_size, num_stages, interpolation, size_multiple, image_sizes)
        batches = _batch_sizes(batch_size, num_stages, num_examples)
        stages: list[Stage] = []
        for i in range(num_stages):
            previous = stages[-1] if stages else None
            stages.append(
                Stage(
                    index=i,
                    image_size=sizes[i],
                    batch_size=batches[i],
                    first_epoch=previous.last_epoch if previous else 0,
                    epochs=lengths[i],
                    steps_per_epoch=num_examples // batches[i],
                    first_step=previous.last_step if previous else 0,
                    regularization=start.interpolate(end, stage_share(i, num_stages)),
                )
            )
        return cls(tuple(stages))


def stage_share(index: int, num_stages: int, interpolation: Interpolation = "paper") -> float:
    """How far stage `index` lies between the start (0) and the end (1) of the schedule."""
    if interpolation == "reference":
        return (index + 1) / num_stages
    if interpolation == "paper":
        return index / (num_stages - 1) if num_stages > 1 else 1.0
    raise ValueError(
        f"`interpolation` must be 'paper' or 'reference'. Received: {interpolation!r}."
    )


def _epochs_per_stage(epochs: int, num_stages: int, given: Sequence[int] | None) -> list[int]:
    if not is_whole(num_stages) or num_stages < 1:
        raise ValueError(
            f"`num_stages` must be a whole number from 1 up. Received: num_stages={num_stages!r}."
        )
    if given is not None:
        whole = _is_list(given) and all(map(is_whole, given))
        if not whole or len(given) != num_stages or sum(given) != epochs or min(given) < 1:
            raise ValueError(
                f"`epochs_per_stage` must hold {num_stages} positive whole numbers (`num_stages`) "
                f"that add up to {epochs} (`epochs`). Received: {given}."
            )
        return list(given)
    if num_stages > epochs:
        raise ValueError(
            f"`num_stages` must not exceed `epochs`: every stage needs an epoch. Received: "
            f"num_stages={num_stages}, epochs={epochs}."
        )
    bounds = [epochs * i // num_stages for i in range(num_stages + 1)]
    return [last - first for first, last in pairwise(bounds)]


def _image_sizes(
    image_size: tuple[int, int],
    num_stages: int,
    interpolation: Interpolation,
    size_multiple: int,
    given: Sequence[int] | None,
) -> list[int]:
    if not is_whole(size_multiple) or size_multiple < 1:
        raise ValueError(
            f"`size_multiple` must be a whole number from 1 up. Received: {size_multiple!r}."
        )
    stage_share(0, num_stages, interpolation)  # refuses another, also where it is not used
    if given is not None:
        if not _is_list(given) or len(given) != num_stages:
            raise ValueError(
                f"`image_sizes` must hold {num_stages} numbers (`num_stages`). Received: {given}."
            )
        _check_are_sides("image_sizes", given)
        sizes = [round_size(size, size_multiple) for size in given]
    else:
        if not _is_list(image_size) or len(image_size) != 2:
            raise ValueError(
                "`image_size` must be the sides at the first and the last stage, e.g. (128, 300). "
                f"Received: {image_size}."
            )
        _check_are_sides("image_size", image_size)
        first, last = image_size
        shares = [stage_share(i, num_stages, interpolation) for i in range(num_stages)]
        exact = [first + (last - first) * share for share in shares]
        sizes = [round_size(size, size_multiple) for size in exact]
    if min(sizes) < MIN_IMAGE_SIZE:
        rounded = f", rounded to multiples of {size_multiple} (`size_multiple`)"
        raise ValueError(
            f"Image sizes must be at least {MIN_IMAGE_SIZE} pixels. Received: {sizes}"
            f"{rounded if size_multiple > 1 else ''}."
        )
    return sizes


def _is_list(values: Any) -> bool:
    """Whether an argument holds several values, in a list, a tuple or an array."""
    return hasattr(values, "__len__") and not isinstance(values, str)


def _check_are_sides(name: str, sizes: Sequence[int]) -> None:
    if not all(map(is_whole, sizes)):
        raise ValueError(f"`{name}` must hold whole numbers of pixels. Received: {sizes}.")


def round_size(size: float, multiple: int) -> int:
    """Rounds a side in pixels to the nearest multiple; with multiple 1, down, as the papers."""
    if multiple == 1:
        return int(size + 1e-6)
    return int(size / multiple + 0.5) * multiple


def _batch_sizes(batch_size: int | Sequence[int], num_stages: int, num_examples: int) -> list[int]:
    sizes = list(batch_size) if isinstance(batch_size, Sequence) else [batch_size] * num_stages
    if len(sizes) != num_stages or not all(map(is_whole, sizes)):
        raise ValueError(
            f"`batch_size` must be one whole number or {num_stages} of them (`num_stages`). "
            f"Received: {batch_size}."
        )
    for size in sizes:
        if not 1 <= size <= num_examples:
            raise ValueError(
                f"`batch_size` must lie between 1 and the number of training images "
                f"({num_examples}). Received: {size}."
            )
    return sizes
