"""Ending a run early without losing work, and keeping two runs apart."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import keras

from effnetv2_tf.errors import RunStopped, UsageError


class StopOnSignal(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends `fit` by RunStopped after the step, or the batch of validation, that runs.

    Pre-emptible machines get SIGTERM some seconds before they are taken away; a user presses
    Ctrl-C, and a second time to end at once.

    Args:
      any_worker: tells whether its argument is true for any of the workers that train together.
      every_calls: how often to ask, from the first batch of an epoch or a validation on; workers
        have to talk to each other for it. With `steps_per_execution` Keras calls once in so many
        batches.
    """

    def __init__(self, any_worker: Callable[[bool], bool] = bool, every_calls: int = 1) -> None:
        super().__init__()
        self._any_worker = any_worker
        self._every_calls = every_calls
        self._calls = 0
        self.received: signal.Signals | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within this context SIGTERM and Ctrl-C ask for an end instead of ending the process.

        Ctrl-C is left alone where the process has a handler of its own for it, or ignores it.
        """
        with on_sigterm(self._note), contextlib.ExitStack() as stack:
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                stack.enter_context(_handling(signal.SIGINT, self._note))
            yield

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            if self.received == signal.SIGINT:
                raise KeyboardInterrupt
            print("\nStopping after this step; Ctrl-C again stops at once.", flush=True)
        self.received = signal.Signals(number)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._calls = 0

    def on_test_begin(self, logs: Any = None) -> None:
        self._calls = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._stop_if_asked()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        self._calls += 1  # the batch's number may never be a multiple
        if (self._calls - 1) % self._every_calls:
            return
        if self._any_worker(self.received is not None):
            raise RunStopped(self.received.name if self.received else "SIGTERM of another worker")


@contextlib.contextmanager
def on_sigterm(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Within this context SIGTERM calls `handler` instead of ending the process.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """
    with _handling(signal.SIGTERM, handler):
        yield


@contextlib.contextmanager
def _handling(number: signal.Signals, handler: Callable[[int, Any], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def only_run_in(
    folder: Path, flag: str = "--model_dir", another: str = "another process is training"
) -> Iterator[None]:
    """Holds a folder; the system lets go of it when the process ends, however it ends.

    Args:
      folder: of a run.
      flag: that named it, for the message.
      another: what else holds it, for the message.

    Raises:
      UsageError: if another process holds the folder.
    """
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UsageError(
            f"{flag}: {another} in {folder}; wait for its end, or choose another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
