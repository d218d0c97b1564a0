"""Contestants in processes of their own: libraries that clash never meet, all take turns.

Needs Python's own library alone, so that the Python of another environment can run it too.
The driver asks over a pipe, one JSON line a request; the worker answers in the same way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Variables that differ from this process's; None is for one that is not set.
Environment = Mapping[str, "str | None"] | None
_HERE = Path(__file__).resolve().parent


class NotInstalled(Exception):
    """A peer that cannot take part because something it needs is not installed."""


class WorkerFailed(Exception):
    """A contestant that could not do what it was asked for."""


class Worker:
    """A running worker.

    Args:
      script: file in this folder that ends in `serve(...)`.
      python: interpreter; None for this one.
      environment: variables that differ from this process's.
    """

    def __init__(
        self, script: str, python: str | None = None, environment: Environment = None
    ) -> None:
        variables = {**os.environ, **(environment or {})}
        self._notes = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115
        self._script = script
        try:
            self._process = subprocess.Popen(
                [python or sys.executable, str(_HERE / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._notes,
                text=True,
                env={name: value for name, value in variables.items() if value is not None},
            )
        except OSError as error:
            raise NotInstalled(f"the other Python does not start: {error.strerror}") from error

    def ask(self, what: str, **arguments: Any) -> Any:
        """Has the worker call its handler `what`; returns what that returned.

        Raises:
          NotInstalled: if an import failed there.
          WorkerFailed: if anything else did; with its message, or the process's last words.
        """
        try:
            self._process.stdin.write(json.dumps([what, arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerFailed(f"{self._script} ended: {self._last_words()}")
        kind, answer = json.loads(line)
        if kind == "missing":
            raise NotInstalled(answer)
        if kind == "failed":
            raise WorkerFailed(answer)
        return answer

    def close(self) -> None:
        """Ends the process, which has nothing to save."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._notes.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _last_words(self) -> str:
        self._process.wait()
        self._notes.seek(0)
        lines = self._notes.read().strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}, nothing said"


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answers requests until the driver goes away.

    What libraries print goes to the standard error stream, for the pipe belongs to the answers.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        what, arguments = json.loads(line)
        try:
            answer = ("done", handlers[what](**arguments))
        except ImportError as error:
            answer = ("missing", str(error))
        except Exception as error:
            message = " ".join(str(error).split())[:300]
            answer = ("failed", f"{type(error).__name__}: {message}")
        print(json.dumps(answer), file=channel, flush=True)
