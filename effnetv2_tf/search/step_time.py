"""How long a training step takes: measured on the device, until the measurement settles."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import filelock

from effnetv2_tf.errors import UsageError
from effnetv2_tf.files import write_text
from effnetv2_tf.models import scaling
from effnetv2_tf.models.nasnet_specs import NASNetSpec
from effnetv2_tf.models.specs import NetworkSpec
from effnetv2_tf.training.recipe import Recipe

Clock = Literal["wall", "processor"]
_CLOCKS: dict[Clock, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": time.process_time,
}


@dataclass(frozen=True)
class StepTime:
    """A measured training step.

    Attributes:
      seconds: of a step, the median of the rounds that count.
      spread: of these rounds, half the interquartile range over the median.
      rounds: that were measured in all.
      is_noisy: whether the spread stayed over the tolerance.
    """

    seconds: float
    spread: float
    rounds: int
    is_noisy: bool


@dataclass(frozen=True)
class Timing:
    """How to measure.

    Attributes:
      warmup_steps: made first, tracing among them, and not counted.
      steps: of a round, which gives one number.
      rounds: whose spread is looked at, the latest ones.
      tolerance: largest spread to be content with.
      most_rounds: after which the measurement is reported as noisy.
      clock: `"wall"`, or `"processor"` for the processor time of this process: of use on a CPU
        that others share, where a wall clock measures what they do; of no use with a GPU.
    """

    warmup_steps: int = 3
    steps: int = 4
    rounds: int = 5
    tolerance: float = 0.05
    most_rounds: int = 20
    clock: Clock = "wall"


def settled_step_time(round_seconds: Callable[[], float], timing: Timing) -> StepTime:
    """Measures rounds until the latest ones agree.

    Args:
      round_seconds: makes a round of `timing.steps` steps and returns its seconds.
      timing: see `Timing`.
    """
    seconds: list[float] = []
    while True:
        seconds.append(round_seconds() / timing.steps)
        latest = seconds[-timing.rounds :]
        spread = _spread(latest)
        settled = len(seconds) >= timing.rounds and spread <= timing.tolerance
        if settled or len(seconds) >= timing.most_rounds:
            return StepTime(statistics.median(latest), spread, len(seconds), not settled)


def _spread(seconds: list[float]) -> float:
    if len(seconds) < 2:
        return 0.0
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return (high - low) / 2 / median


def measure_step_time(recipe: Recipe, num_classes: int, channels: int, timing: Timing) -> StepTime:
    """Times the recipe's training step, see `prepare_steps`.

    Args:
      recipe: of the network.
      num_classes: of the classifier.
      channels: of the images.
      timing: see `Timing`.
    """
    run = prepare_steps(recipe, num_classes, channels, timing.clock)
    run(timing.warmup_steps)
    return settled_step_time(lambda: run(timing.steps), timing)


def prepare_steps(
    recipe: Recipe, num_classes: int, channels: int, clock: Clock = "wall"
) -> Callable[[int], float]:
    """Builds the recipe's network, to be trained at its last stage's size and batch.

    The images are random. Input pipeline, averages of weights and validation are left out: it
    is the network's and the optimizer's time that is to be compared.

    Args:
      recipe: of the network.
      num_classes: of the classifier.
      channels: of the images.
      clock: see `Timing`.

    Returns:
      A function that makes so many training steps and returns the seconds they took; the
      first call traces.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from effnetv2_tf.training import build

    keras.utils.set_random_seed(recipe.seed)
    build.set_precision(recipe)
    batch_size, image_size = measured_batch(recipe)
    schedule = build.build_schedule(recipe, num_examples=100 * batch_size)
    model = build.build_model(recipe, num_classes, channels)
    optimizer = build.build_optimizer(recipe, schedule, model)
    build.compile_model(model, recipe, optimizer, steps_per_execution=1)
    rng = np.random.default_rng(0)
    shape = (batch_size, image_size, image_size, channels)
    images = tf.constant(rng.integers(0, 256, shape), tf.float32)
    labels = tf.one_hot(rng.integers(0, num_classes, batch_size), num_classes)
    step = tf.function(model.train_step, jit_compile=bool(model.jit_compile))  # not on CPUs

    seconds = _CLOCKS[clock]

    def run(steps: int) -> float:
        began = seconds()
        for _ in range(steps):
            logs = step((images, labels))
        tf.nest.map_structure(np.asarray, logs)  # waits for the device
        return seconds() - began

    return run


def measured_batch(recipe: Recipe) -> tuple[int, int]:
    """Images and their side in pixels, of a batch of the recipe's last stage."""
    progressive, training = recipe.progressive, recipe.training
    batch_size = progressive.batch_sizes[-1] if progressive.batch_sizes else training.batch_size
    return batch_size, progressive.last_size


def cache_key(recipe: Recipe, num_classes: int, channels: int, device: str) -> str:
    """A hash of all that decides a step's time.

    Args:
      recipe: of the network, which may be spelled in any way; its name, data and length do not
        matter.
      num_classes: of the classifier.
      channels: of the images.
      device: that trains, and its machine.
    """
    from effnetv2_tf.training import build

    parts: dict[str, Any] = {
        "network": _resolved(build.model_spec(recipe.model)),
        "synchronized_batch_norm": recipe.model.synchronized_batch_norm,
        "optimizer": recipe.optimizer.model_dump(),
        "batch": measured_batch(recipe),
        "precision": recipe.training.precision,
        "jit_compile": recipe.training.jit_compile,
        "classes": num_classes,
        "channels": channels,
        "device": device,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _resolved(spec: NetworkSpec | NASNetSpec) -> dict[str, Any]:
    """A network by the widths and layers that it has, not by how they came about."""
    values = asdict(spec)
    for name in ("name", "train_size", "eval_size", "preprocessing"):
        del values[name]
    if isinstance(spec, NASNetSpec):
        return values
    for name in ("width", "depth", "scale_stem", "scale_head", "rounding"):
        del values[name]
    values["stem_filters"] = scaling.scaled_stem_filters(spec)
    values["head_filters"] = scaling.scaled_head_filters(spec)
    for stage, row in zip(spec.stages, values["stages"], strict=True):
        row["filters"], row["repeats"] = scaling.scaled_stage(spec, stage)
        del row["scale_depth"]
    return values


class StepTimeCache:
    """Step times by `cache_key` in a JSON file that processes share.

    Args:
      path: of the file; made if need be.

    Raises:
      UsageError: if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        self._measuring = filelock.FileLock(path.with_name(f".{path.name}.measuring.lock"))

    def get(self, key: str) -> StepTime | None:
        """The step time that was put in, if there is one."""
        entry = self._read().get(key)
        return None if entry is None else StepTime(**entry)

    def put(self, key: str, step_time: StepTime) -> StepTime:
        """Adds a step time, unless another process was first; returns what is in the file."""
        with self._lock:
            entries = self._read()
            if key not in entries:
                entries[key] = asdict(step_time)
                write_text(self._path, json.dumps(entries, indent=1, sort_keys=True) + "\n")
            return StepTime(**entries[key])

    def get_or_measure(
        self,
        key: str,
        measure: Callable[[], StepTime],
        waiting: Callable[[], AbstractContextManager] = nullcontext,
    ) -> StepTime:
        """The step time from the file, or else a measured one, which is put in.

        Of the processes that share the file, one measures at a time.

        Args:
          key: see `cache_key`.
          measure: measures it.
          waiting: surrounds the time in which other processes measure.
        """
        known = self.get(key)
        if known is not None:
            return known
        with waiting():
            turn = self._measuring.acquire()
        with turn:
            known = self.get(key)  # another process may have measured it meanwhile
            return self.put(key, measure()) if known is None else known

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise UsageError(f"{self._path}: damaged ({error}); remove it") from error
