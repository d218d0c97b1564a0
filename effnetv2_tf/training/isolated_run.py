"""A training run in a process of its own: a crash or lack of memory ends that run alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from effnetv2_tf.errors import RunStopped, TrainingFailure, UsageError
from effnetv2_tf.training.recipe import Recipe

LOG_NAME = "train.log"
_WATCH_SECONDS = 0.2


@dataclass(frozen=True)
class Limits:
    """What a process may use; None for as much as it likes.

    Attributes:
      seconds: from its start to its end, without what it waits for others, see `Messenger`.
      memory_bytes: held at a time; needs Linux.
    """

    seconds: float | None = None
    memory_bytes: int | None = None


NO_LIMITS = Limits()


class Messenger:
    """How a piece of work speaks to the process that waits for it.

    Args:
      send: a pair of what kind of message it is, and the message.
    """

    def __init__(self, send: Callable[[tuple[str, Any]], None]) -> None:
        self._send = send

    def __call__(self, value: Any) -> None:
        """Tells something picklable, see `run_isolated`."""
        self._send(("told", value))

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Surrounds time that is spent waiting for other processes: no limit counts it."""
        self._send(("waits", None))
        try:
            yield
        finally:
            self._send(("goes on", None))


class LimitExceeded(TrainingFailure):
    """A piece of work took more time or memory than it may."""


def train_isolated(recipe: Recipe, model_dir: Path) -> dict[str, Any]:
    """Trains as the training program does, going on where an earlier run stopped.

    The process takes devices as `--strategy=auto` does; for the rest see `run_isolated`.

    Args:
      recipe: what to do.
      model_dir: the folder of the run.

    Returns:
      The summary of the run.

    Raises:
      TrainingFailure: with the reason in one line, whatever the run failed of.
      RunStopped: if this process or the run's was asked to stop (SIGTERM).
    """
    return run_isolated(_train, (recipe, model_dir), model_dir)


def run_isolated(
    work: Callable[..., Any],
    arguments: tuple,
    folder: Path,
    *,
    limits: Limits = NO_LIMITS,
    listen: Callable[[Any], None] | None = None,
) -> Any:
    """Does a piece of work in a process of its own.

    The process is a fresh one (`spawn`), writes what it prints to `train.log` in the folder,
    and ends with the process that started it, however that ends. A script that calls this
    needs the usual `if __name__ == "__main__":`.

    Args:
      work: a module's function, called as `work(*arguments, tell)`; `tell`, a `Messenger`, sends a
        picklable value to `listen`. Its module must not import TensorFlow at the top.
      arguments: picklable.
      folder: gets `train.log`.
      limits: of time and memory.
      listen: called with what `work` tells. If it raises, the work is ended.

    Returns:
      What `work` returns.

    Raises:
      TrainingFailure: with the reason in one line, whatever the work failed of (LimitExceeded:
        its limits).
      RunStopped: if this process or the work's was asked to stop (SIGTERM).
    """
    # Not above: the fresh process, which imports this module, sets TensorFlow's environment first.
    from effnetv2_tf.training.interruptions import on_sigterm

    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, arguments, folder, sender), daemon=True)
    process.start()
    sender.close()
    try:
        # The run's process gets SIGTERM passed on: it saves its work and says so.
        with on_sigterm(lambda *_: process.terminate()):
            outcome, what = _listen(receiver, process, limits, listen)
    except EOFError:  # it ended without a word
        process.join()
        outcome, what = _outcome_of_exit(process.exitcode, folder)
    except Exception:  # over a limit, or no longer wanted
        process.kill()
        raise
    finally:
        process.terminate()  # it has said all, or this process is interrupted
        process.join()
        receiver.close()
    if outcome == "stopped":
        raise RunStopped(what)
    if outcome == "failed":
        raise TrainingFailure(what)
    return what


def _listen(
    receiver: Connection,
    process: BaseProcess,
    limits: Limits,
    listen: Callable[[Any], None] | None,
) -> tuple[str, Any]:
    """Waits for what comes of the work, and watches over the limits."""
    began = time.monotonic()
    waits_since: float | None = None
    while True:
        if receiver.poll(_WATCH_SECONDS if limits != NO_LIMITS else None):
            outcome, what = receiver.recv()
            if outcome == "waits":
                waits_since = time.monotonic()
            elif outcome == "goes on" and waits_since is not None:
                began += time.monotonic() - waits_since
                waits_since = None
            elif outcome != "told":
                return outcome, what
            elif listen is not None:
                listen(what)
        seconds = (time.monotonic() if waits_since is None else waits_since) - began
        if limits.seconds is not None and seconds > limits.seconds:
            raise LimitExceeded(f"ended after its time limit of {limits.seconds:g} s")
        if limits.memory_bytes is not None:
            used = _resident_bytes(process.pid)
            if used > limits.memory_bytes:
                raise LimitExceeded(
                    f"ended with {used / 2**30:.2f} GiB of memory in use, over its limit of "
                    f"{limits.memory_bytes / 2**30:.2f} GiB"
                )


def _resident_bytes(pid: int | None) -> int:
    """Memory that a process holds, by Linux's /proc; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _run(work: Callable[..., Any], arguments: tuple, folder: Path, sender: Connection) -> None:
    """What the process does: prepares itself, works, and sends what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends this process
    threading.Thread(target=end_with_parent, daemon=True).start()
    log = (folder / LOG_NAME).open("a", encoding="utf-8", buffering=1)
    os.dup2(log.fileno(), 1)  # what TensorFlow writes from C++
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    try:
        sender.send(("finished", work(*arguments, Messenger(sender.send))))
    except RunStopped as stopped:
        print(stopped)
        sender.send(("stopped", str(stopped)))
    except Exception as error:
        traceback.print_exc()
        sender.send(("failed", _reason(error)))


def _train(recipe: Recipe, model_dir: Path, tell: Callable[[Any], None]) -> dict[str, Any]:
    from effnetv2_tf.training.distribution import choose_strategy
    from effnetv2_tf.training.trainer import train

    strategy, choice = choose_strategy()
    print(choice)
    return train(recipe, model_dir, strategy, verbose=2)


def end_with_parent() -> None:
    """Waits for the parent's end and ends this process, so that no run goes on unwatched."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _reason(error: Exception) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, UsageError | TrainingFailure) and message:
        return message
    return f"{type(error).__name__}: {message[:500]}" if message else type(error).__name__


def _outcome_of_exit(code: int | None, model_dir: Path) -> tuple[str, str]:
    log = model_dir / LOG_NAME
    if code == -signal.SIGTERM:  # before training listened to it
        return "stopped", "Stopped by SIGTERM; run the same command again to go on"
    if code is not None and code < 0:
        hint = "; memory may have run out" if -code == signal.SIGKILL else ""
        name = signal.Signals(-code).name
        return "failed", f"the process was ended by signal {name}{hint}; see {log}"
    return "failed", f"the process ended with exit code {code}; see {log}"
