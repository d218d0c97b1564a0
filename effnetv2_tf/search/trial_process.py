"""What happens in the process of a trial: its step is timed, then it is trained.

TensorFlow is imported within the functions: the process that imports this module sets its
environment first.
"""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnetv2_tf.search.step_time import (
    StepTime,
    StepTimeCache,
    Timing,
    cache_key,
    measure_step_time,
)
from effnetv2_tf.training.isolated_run import Messenger
from effnetv2_tf.training.recipe import Recipe

if TYPE_CHECKING:
    from effnetv2_tf.training.trainer import Trainer


@dataclass(frozen=True)
class TrialTask:
    """What to try.

    Attributes:
      recipe: of the network, trained as `effnetv2_tf.train` does.
      folder: of the run; a run that was interrupted there goes on.
      backbone: the recipe whose step time is the unit; None to time nothing.
      timing: how to measure.
      step_times: the file that keeps step times.
      inherit_from: folder of a run whose tensors are the first weights, as far as they fit.
    """

    recipe: Recipe
    folder: Path
    backbone: Recipe | None
    timing: Timing
    step_times: Path
    inherit_from: Path | None = None


def try_recipe(task: TrialTask, tell: Messenger) -> dict[str, Any]:
    """Times and trains a recipe.

    Args:
      task: what to try.
      tell: is given a dict with `parameters`, `multiply_adds` and the step times, then after
        every validation one with `epoch` and `accuracy`.

    Returns:
      `accuracy` and `train_seconds`.
    """
    from effnetv2_tf.models.flops import count_flops
    from effnetv2_tf.training import build
    from effnetv2_tf.training.distribution import choose_strategy
    from effnetv2_tf.training.trainer import Trainer

    strategy, choice = choose_strategy()
    print(choice)
    times = _step_times(task, tell)
    trainer = Trainer(task.recipe, task.folder, strategy, verbose=2)
    tell(
        {
            "parameters": int(trainer.network.count_params()),
            "multiply_adds": count_flops(trainer.network, build.evaluation_size(task.recipe)),
            **times,
        }
    )
    if task.inherit_from is not None and trainer.folder.latest() is None:
        copied = inherit_weights(trainer, task.inherit_from)
        print(f"{copied} of {len(trainer.model.weights)} tensors begin as in {task.inherit_from}")
    trainer.callbacks.append(_teller(tell))
    summary = trainer.run()
    return {"accuracy": summary["accuracy"], "train_seconds": summary["train_seconds"]}


def inherit_weights(trainer: Trainer, folder: Path) -> int:
    """Copies another run's raw weights of equal name and shape, into the averages too.

    Returns:
      How many tensors were copied; 0 if the folder has no whole checkpoint.
    """
    from effnetv2_tf.keras_compat import tf_variable
    from effnetv2_tf.training.checkpoints import CheckpointFolder
    from effnetv2_tf.training.state import weights_by_name

    checkpoint = CheckpointFolder(folder / "checkpoints").latest()
    if checkpoint is None:
        return 0
    copied = 0
    for name, variable in weights_by_name(trainer.model).items():
        value = checkpoint.arrays.get(name)
        if value is not None and value.shape == tuple(variable.shape):
            variable.assign(value)
            copied += 1
    if trainer.ema is not None:
        for average, weight in zip(trainer.ema.averages, trainer.model.weights, strict=True):
            average.assign(tf_variable(weight))
    return copied


def _step_times(task: TrialTask, tell: Messenger) -> dict[str, Any]:
    """The step times of the network and the backbone, of a `Measurement`."""
    if task.backbone is None:
        return {}
    import keras
    import tensorflow as tf

    from effnetv2_tf.kernels import operations
    from effnetv2_tf.training import build
    from effnetv2_tf.training.run_summary import versions

    source = build.open_sources(task.recipe).train
    classes, channels = source.info.num_classes, build.channels_of(task.recipe, source)
    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    kind = details.get("device_name", f"{platform.machine()}, {_usable_cores()} cores")
    device = f"{platform.node()} {kind}, TensorFlow {versions()['tensorflow']}"
    if operations.in_use():
        device += ", compiled kernels"
    if task.timing.clock != "wall":
        device += f", {task.timing.clock} clock"
    cache = StepTimeCache(task.step_times)

    def timed(recipe: Recipe) -> StepTime:
        key = cache_key(recipe, classes, channels, device)
        return cache.get_or_measure(
            key,
            lambda: measure_step_time(recipe, classes, channels, task.timing),
            waiting=tell.waiting,
        )

    backbone, own = timed(task.backbone), timed(task.recipe)
    # What was measured is not to count against the memory that the training may use.
    keras.backend.clear_session()
    gc.collect()
    noisy = " (noisy)" if own.is_noisy else ""
    print(f"A step takes {own.seconds:.4g} s{noisy}, the backbone's {backbone.seconds:.4g} s")
    return {
        "step_seconds": own.seconds,
        "reference_step_seconds": backbone.seconds,
        "step_is_noisy": own.is_noisy or backbone.is_noisy,
    }


def _usable_cores() -> int | None:
    """As many as `taskset` and the like leave to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _teller(tell: Callable[[Any], None]) -> Any:
    """A callback that tells the accuracy after every validation."""
    import keras

    def on_epoch_end(epoch: int, logs: dict[str, Any] | None) -> None:
        if logs and "val_accuracy" in logs:
            tell({"epoch": epoch + 1, "accuracy": float(logs["val_accuracy"])})

    return keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
