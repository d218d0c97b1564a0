"""Errors that a user can mend, and how programs end on them."""

from __future__ import annotations

import difflib
import numbers
import re
from collections.abc import Iterable
from typing import Any

# What TensorFlow writes around the message of an operation.
_NAMES = re.compile(r"\[\[.*?\]\]|\{\{.*?\}\}|\[Op:.*")
_PASSED_ON = re.compile(
    r"^(?:Error in user-defined function passed to .*? iterator: \S+:\s+"
    r"|\(\d+\) [A-Z_]+:\s+|(?:\w+\.)+(?=[A-Z]\w+: ))+"
)
_SAYS_NOTHING = re.compile(
    r"Graph execution error:|Detected at node|Hint: |\(\d+\) CANCELLED:"
    r"|\d+ (?:root|successful|derived) "
)


class UsageError(ValueError):
    """Wrong use: a one-line message is enough; programs exit with code 2."""


class TrainingFailure(RuntimeError):
    """Work that was asked for rightly and failed; programs exit with code 1."""


class RunStopped(Exception):
    """A run that was asked to stop and saved its work; programs exit with code 0."""


def operation_fault(message: str | None) -> str:
    """The line of a TensorFlow error's message in which the operation says what is wrong.

    It is the last one: the stack, and what Python said before it raised, come earlier.
    """
    for line in reversed((message or "").splitlines()):
        said = "" if line.startswith("\t") else _NAMES.sub("", line).strip()
        if said and not _SAYS_NOTHING.match(said):
            return _PASSED_ON.sub("", said).rstrip(".")
    return "no reason given"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """`did you mean 'x'?` for the nearest of `known`, or None if none is near."""
    found = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """The same behind a semicolon, or an empty string."""
    found = nearest(name, known)
    return f"; {found}" if found else ""


def is_whole(number: Any) -> bool:
    """Whether an argument is an integer, of Python or NumPy, and no bool."""
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)
