"""The machines of a multi-worker run, as the environment variable TF_CONFIG names them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from effnetv2_tf.errors import TrainingFailure, UsageError

EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """The workers of a run and which of them this process is.

    Attributes:
      addresses: `host:port` of the workers in the order of their shares of the data; the
        first one is the chief, which writes the files.
      index: of this process among them.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.addresses)

    def connect(self) -> tf.distribute.MultiWorkerMirroredStrategy:
        """Joins the other workers; waits until all of them are there.

        Raises:
          TrainingFailure: if TensorFlow gives up waiting.
          UsageError: if TensorFlow has computed something already.
        """
        others = [address for i, address in enumerate(self.addresses) if i != self.index]
        if others:
            print(f"Worker {self.index} waits for {', '.join(others)}", flush=True)
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise TrainingFailure(
                f"worker {self.index} ({self.addresses[self.index]}) could not join "
                f"{', '.join(others)}: {(error.message or 'no reason given').splitlines()[0]}; "
                "start the same command on all machines that TF_CONFIG names"
            ) from error
        except RuntimeError as error:
            raise UsageError(f"--strategy=multi_worker: {error}") from error


def read_cluster(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """The cluster of TF_CONFIG; None if that is not set or names none.

    Args:
      environment: `os.environ` by default.

    Raises:
      UsageError: if TF_CONFIG cannot be understood, or has other jobs than `chief` and
        `worker`.
    """
    text = (os.environ if environment is None else environment).get("TF_CONFIG", "")
    if not text.strip():
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _mistake("JSON", f"{text!r} ({error})") from error
    jobs = config.get("cluster", {}) if isinstance(config, dict) else None
    if not isinstance(jobs, dict):
        raise _mistake('an object with "cluster" and "task"', text)
    if not jobs:
        return None
    _check_jobs(jobs)
    addresses = [*jobs.get("chief", ()), *jobs.get("worker", ())]
    return Cluster(tuple(addresses), _own_index(config.get("task"), jobs))


def _check_jobs(jobs: Mapping[str, Any]) -> None:
    for job, addresses in jobs.items():
        if job not in ("chief", "worker"):
            raise _mistake('"worker" and perhaps "chief" in "cluster"', repr(job))
        if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
            raise _mistake(f'a list of "host:port" for {job!r}', repr(addresses))
    if len(jobs.get("chief", ())) > 1:
        raise _mistake('at most one address for "chief"', repr(jobs["chief"]))
    if not any(jobs.values()):
        raise _mistake('at least one "host:port" in "cluster"', "none")


def _own_index(task: Any, jobs: Mapping[str, list[str]]) -> int:
    task = task if isinstance(task, dict) else {}
    job, index = task.get("type"), task.get("index")
    if job not in jobs or type(index) is not int or not 0 <= index < len(jobs[job]):
        counts = ", ".join(f"{name} 0 to {len(jobs[name]) - 1}" for name in jobs)
        raise _mistake(f'"type" and "index" in "task" ({counts})', f"{job} {index}")
    return index + (len(jobs.get("chief", ())) if job == "worker" else 0)


def _mistake(expected: str, received: str) -> UsageError:
    return UsageError(f"TF_CONFIG: expected {expected}, received {received}; an example: {EXAMPLE}")
