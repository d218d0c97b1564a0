"""Callbacks that watch a run: time, divergence, records, checkpoints, console."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import TrainingFailure, UsageError, suggestion
from effnetv2_tf.files import write_text
from effnetv2_tf.training.checkpoints import Checkpoint, CheckpointFolder
from effnetv2_tf.training.progressive import ProgressiveLearning, current_learning_rate
from effnetv2_tf.training.state import TrainingState


class StopOnDivergence(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a run whose loss or weights are no longer numbers, and says where and what may help."""

    def __init__(self, progressive: ProgressiveLearning) -> None:
        super().__init__()
        self._progressive = progressive
        self._last_finite = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self._last_finite = keras_compat.steps_made(self.model.optimizer)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = self._progressive.next_step
        if logs and not math.isfinite(float(logs.get("loss", 0.0))):
            stage = self._progressive.stage
            rate = current_learning_rate(self.model.optimizer)
            raise TrainingFailure(
                f"the loss became {float(logs['loss'])} between steps {self._last_finite} and "
                f"{step} (stage {stage.index if stage else 0}, learning rate {rate:.3g}); lower "
                "learning_rate.per_256, lengthen learning_rate.warmup_epochs, or set "
                "optimizer.gradient_clip_norm"
            )
        self._last_finite = step

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks at the weights, too: one that the images do not reach leaves the loss as it is."""
        for weight in self.model.weights:
            values = keras_compat.tf_variable(weight).numpy()
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                raise TrainingFailure(
                    f"{keras_compat.variable_path(weight)} became NaN or infinite in epoch "
                    f"{epoch + 1}, though the loss is a number; in bfloat16 TensorFlow gives such "
                    "gradients of strided convolutions on one pixel: take larger images, or "
                    "training.precision=float32"
                )


class RunRecords(keras.callbacks.Callback):  # type: ignore[misc]
    """One row an epoch, with its training time, also across interruptions; history.csv.

    Args:
      path: of history.csv, replaced as a whole after every epoch; None to write none.
      progressive: tells the steps.
    """

    def __init__(self, path: Path | None, progressive: ProgressiveLearning) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self.seconds_before = 0.0
        self._path = path
        self._progressive = progressive
        self._began = self._ended = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = self._ended = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._ended = time.perf_counter()

    @property
    def epoch_seconds(self) -> float:
        """Seconds of training in this epoch up to the last step, earlier sessions included."""
        return self.seconds_before + self._ended - self._began

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        stage = self._progressive.schedule.stage_of_epoch(epoch)
        seconds = self.epoch_seconds
        images = stage.steps_per_epoch * stage.batch_size
        self.rows.append(
            {
                "epoch": epoch + 1,
                "step": self._progressive.next_step,
                **{name: float(value) for name, value in (logs or {}).items()},
                "train_seconds": round(seconds, 3),
                "images_per_second": round(images / max(seconds, 1e-9), 2),
            }
        )
        self.seconds_before = 0.0
        self._began = self._ended
        if self._path is not None:
            write_text(self._path, rows_to_csv(self.rows))


def rows_to_csv(rows: list[dict[str, float]]) -> str:
    """Rows of unequal keys as CSV with the union of the columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class SaveCheckpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes checkpoints after epochs, and within them every so many steps.

    Args:
      folder: where.
      state: what.
      records: rows and times that go along.
      progressive: tells the steps.
      every_epochs: between checkpoints.
      every_steps: between checkpoints within an epoch, or None.
      monitor: the logged quantity that decides which checkpoint is best, or None.
      mode: `"max"` or `"min"`.
      about_data: gives what goes along about the data, see `data_record`.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        state: TrainingState,
        records: RunRecords,
        progressive: ProgressiveLearning,
        every_epochs: int = 1,
        every_steps: int | None = None,
        monitor: str | None = "val_accuracy",
        mode: str = "max",
        about_data: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        super().__init__()
        self._folder = folder
        self._state = state
        self._records = records
        self._progressive = progressive
        self._every_epochs = every_epochs
        self._every_steps = every_steps
        self._monitor = monitor
        self._mode = mode
        self._about_data = about_data
        self._saved_step = -1
        self._saved_rows = 0
        self._interrupted_metrics: Checkpoint | None = None
        self._metrics_before_test: dict[str, Any] = {}
        self.best: dict[str, Any] | None = None

    def resume(self, checkpoint: Checkpoint) -> None:
        """Restores the run that wrote `checkpoint`."""
        self._state.restore(checkpoint.arrays, checkpoint.path)
        self._records.rows = [dict(row) for row in checkpoint.metadata["rows"]]
        self._records.seconds_before = checkpoint.metadata["epoch_seconds"]
        self.best = checkpoint.metadata["best"]
        self._interrupted_metrics = checkpoint
        self._saved_step = checkpoint.step
        self._saved_rows = len(self._records.rows)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._interrupted_metrics is not None:
            if self._interrupted_metrics.metadata["epoch_seconds"] > 0:
                self._state.restore_metrics(self._interrupted_metrics.arrays)
            self._interrupted_metrics = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = self._progressive.next_step
        due = self._every_steps and step - max(self._saved_step, 0) >= self._every_steps
        if due and step < self._progressive.epoch_end_step:
            self._save(self._records.epoch_seconds)

    def on_test_begin(self, logs: Any = None) -> None:
        self._metrics_before_test = self._state.metric_arrays()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._metrics_before_test = {}
        last = epoch + 1 == self._progressive.schedule.epochs
        improved = self._note_best(epoch, logs or {})
        if improved:
            self._folder.save_best(self._state.arrays(), self._metadata(0.0))
        if last or (epoch + 1) % self._every_epochs == 0:
            self._save(0.0)

    def save_now(self) -> None:
        """Writes a checkpoint of the step just made, whatever is due.

        Also one at an epoch's end that was not yet evaluated: a resumed run does that first.
        """
        self._save(self._records.epoch_seconds)

    def _note_best(self, epoch: int, logs: dict) -> bool:
        if self._monitor is None or self._monitor not in logs:
            return False
        value, best = float(logs[self._monitor]), self.best
        sign = 1.0 if self._mode == "max" else -1.0
        sought = {"monitor": self._monitor, "mode": self._mode}
        # What was best by another quantity, before the recipe was changed, is no measure.
        is_rival = best is not None and all(best.get(k, v) == v for k, v in sought.items())
        if best is not None and is_rival and sign * value <= sign * best["value"]:
            return False
        self.best = {"epoch": epoch + 1, "value": value, **sought}
        return True

    def _save(self, epoch_seconds: float) -> None:
        metadata = self._metadata(epoch_seconds)
        rows = len(self._records.rows)  # an epoch's last step is saved again once evaluated
        if (metadata["step"], rows) != (self._saved_step, self._saved_rows):
            # Validation uses the metrics of training for its own sums.
            arrays = {**self._state.arrays(), **self._metrics_before_test}
            self._folder.save(arrays, metadata)
            self._saved_step, self._saved_rows = metadata["step"], rows

    def _metadata(self, epoch_seconds: float) -> dict[str, Any]:
        return {
            "step": self._progressive.next_step,
            "epoch_seconds": epoch_seconds,
            "rows": self._records.rows,
            "best": self.best,
            **self._about_data(),
        }


def check_monitor(monitor: str, metrics: Iterable[str]) -> None:
    """Refuses a monitored quantity that no epoch will log: no checkpoint would ever be best.

    Args:
      monitor: of `SaveCheckpoints`.
      metrics: names of the model's.

    Raises:
      UsageError: with the nearest name.
    """
    names = list(metrics)
    known = [f"val_{name}" for name in names] + names
    if monitor not in known:
        hint = suggestion(monitor, known)
        raise UsageError(
            f"checkpoints.monitor: expected one of {', '.join(known)}, received {monitor!r}{hint}"
        )


class StageAnnouncer(keras.callbacks.Callback):  # type: ignore[misc]
    """Prints a line when a stage begins."""

    def __init__(self, progressive: ProgressiveLearning) -> None:
        super().__init__()
        self._progressive = progressive
        self._announced = -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        stage = self._progressive.schedule.stage_of_epoch(epoch)
        if stage.index == self._announced:
            return
        self._announced = stage.index
        count = len(self._progressive.schedule.stages)
        strengths = ", ".join(
            f"{name.replace('_', ' ')} {value:.3g}"
            for name, value in vars(stage.regularization).items()
            if value is not None
        )
        print(
            f"Stage {stage.index + 1} of {count}: {stage.image_size} px, batch "
            f"{stage.batch_size}, epochs {stage.first_epoch + 1} to {stage.last_epoch}"
            + (f"; {strengths}" if strengths else "")
            + ("; the evaluation's preprocessing" if stage.preprocessing == "evaluation" else "")
        )
