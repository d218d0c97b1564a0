"""Errors that a user can mend, and how programs end on them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Wrong use: a one-line message is enough; programs exit with code 2."""


class TrainingFailure(RuntimeError):
    """Work that was asked for rightly and failed; programs exit with code 1."""


class RunStopped(Exception):
    """A run that was asked to stop and saved its work; programs exit with code 0."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `known`, or an empty string."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
