"""A training run in a process of its own: a crash or lack of memory ends that run alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from effnetv2_tf.errors import RunStopped, TrainingFailure, UsageError
from effnetv2_tf.training.recipe import Recipe

LOG_NAME = "train.log"


def train_isolated(recipe: Recipe, model_dir: Path) -> dict[str, Any]:
    """Trains as the training program does, going on where an earlier run stopped.

    The process is a fresh one (`spawn`), writes what it prints to `train.log` in the folder
    of the run, takes devices as `--strategy=auto` does, and ends with the process that
    started it, however that ends. A script that calls this needs the usual
    `if __name__ == "__main__":`.

    Args:
      recipe: what to do.
      model_dir: the folder of the run.

    Returns:
      The summary of the run.

    Raises:
      TrainingFailure: with the reason in one line, whatever the run failed of.
      RunStopped: if this process or the run's was asked to stop (SIGTERM).
    """
    # Not above: the fresh process, which imports this module, sets TensorFlow's environment first.
    from effnetv2_tf.training.interruptions import on_sigterm

    model_dir.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(recipe, model_dir, sender), daemon=True)
    process.start()
    sender.close()
    try:
        # The run's process gets SIGTERM passed on: it saves its work and says so.
        with on_sigterm(lambda *_: process.terminate()):
            outcome, what = receiver.recv()
    except EOFError:  # it ended without a word
        process.join()
        outcome, what = _outcome_of_exit(process.exitcode, model_dir)
    finally:
        process.terminate()  # it has said all, or this process is interrupted
        process.join()
        receiver.close()
    if outcome == "stopped":
        raise RunStopped(what)
    if outcome == "failed":
        raise TrainingFailure(what)
    return what


def _train(recipe: Recipe, model_dir: Path, sender: Connection) -> None:
    """What the process does: prepares itself, trains, and sends what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = (model_dir / LOG_NAME).open("a", encoding="utf-8", buffering=1)
    os.dup2(log.fileno(), 1)  # what TensorFlow writes from C++
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    try:
        from effnetv2_tf.training.distribution import choose_strategy
        from effnetv2_tf.training.trainer import Trainer

        strategy, choice = choose_strategy()
        print(choice)
        sender.send(("finished", Trainer(recipe, model_dir, strategy, verbose=2).run()))
    except RunStopped as stopped:
        print(stopped)
        sender.send(("stopped", str(stopped)))
    except Exception as error:
        traceback.print_exc()
        sender.send(("failed", _reason(error)))


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, so that no run goes on unwatched."""
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
