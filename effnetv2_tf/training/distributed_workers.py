"""What the processes of a multi-worker run agree upon, and what to say when one is gone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_tf.errors import TrainingFailure
from effnetv2_tf.training.checkpoints import CheckpointFolder
from effnetv2_tf.training.strategies import worker_addresses

_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)


class Workers:
    """The processes that train together under a strategy; usually there is one.

    The methods that talk to the others must be called by all workers, in the same order.

    Args:
      strategy: of the run.

    Attributes:
      count: number of processes.
      index: of this one. Number 0, the chief, writes the files.
      addresses: `host:port` of each; empty if there is one process.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.count, self.index = 1, 0
        self.addresses = worker_addresses(strategy)
        if self.addresses:
            self.count = len(self.addresses)
            resolver = strategy.cluster_resolver
            chiefs = resolver.cluster_spec().as_dict().get("chief", ())
            before = len(chiefs) if resolver.task_type == "worker" else 0
            self.index = before + (resolver.task_id or 0)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.index == 0

    def gather(self, value: int) -> list[int]:
        """Every worker's `value`, by index."""
        if self.count == 1:
            return [value]
        return [int(number) for number in self._gather_row(np.array([value]))[:, 0]]

    def gather_text(self, text: str) -> list[str]:
        """Every worker's text, by index."""
        if self.count == 1:
            return [text]
        data = np.frombuffer(text.encode(), np.uint8)
        lengths = self.gather(len(data))
        rows = self._gather_row(np.pad(data, (0, max(lengths) - len(data))))
        return [
            row[:length].astype(np.uint8).tobytes().decode()
            for row, length in zip(rows, lengths, strict=True)
        ]

    def _gather_row(self, own: np.ndarray) -> np.ndarray:
        """int64 (workers, length) from every worker's numbers, of the same length."""
        rows = np.zeros((self.count, len(own)), np.int64)
        rows[self.index] = own
        total = self._strategy.reduce(tf.distribute.ReduceOp.SUM, tf.constant(rows), axis=None)
        return np.asarray(total)

    def any(self, value: bool) -> bool:
        """Whether `value` is true for any worker."""
        return max(self.gather(int(value))) > 0

    def wait(self) -> None:
        """Returns when all workers have come here."""
        self.gather(0)

    def check_same_step(self, step: int, folder: Path) -> None:
        """Refuses to go on if the workers restored different checkpoints.

        Args:
          step: of the checkpoint that this worker restored; 0 for none.
          folder: where it looked.

        Raises:
          TrainingFailure: on all workers, saying what each of them found.
        """
        steps = self.gather(step)
        if len(set(steps)) == 1:
            return
        found = ", ".join(f"worker {i} at step {number}" for i, number in enumerate(steps))
        raise TrainingFailure(
            f"{folder}: the workers see different checkpoints: {found}; --model_dir must be a "
            "folder that all workers share"
        )

    def describe_loss(self, error: tf.errors.OpError) -> str | None:
        """What to tell the user if `error` means that another worker is gone; else None."""
        message = error.message or ""
        speaks_of_others = "ollective" in message or "oordination" in message
        if self.count == 1 or not (isinstance(error, _LOST) or speaks_of_others):
            return None
        tasks = {int(number) for number in re.findall(r"task:(\d+)", message)} - {self.index}
        named = [
            f"worker {i} ({self.addresses[i]})" for i in sorted(tasks) if i < len(self.addresses)
        ]
        who = " and ".join(named) if len(named) == 1 else "another worker"
        return f"{who} stopped or cannot be reached; start the same command on all workers again"


class FollowerCheckpoints(CheckpointFolder):
    """The checkpoints of a run as seen by a worker that only reads them.

    Saving gathers the values from all workers, so everybody comes this far; the chief writes.
    """

    def save(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> Path:
        """The path under which the chief writes."""
        return self.folder / f"step-{metadata['step']:010d}.npz"

    def save_best(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> Path:
        """The path under which the chief writes."""
        return self.best
