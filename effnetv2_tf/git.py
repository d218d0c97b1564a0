"""What Git says of a checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SECONDS = 10


def ask_git(folder: Path, *command: str) -> str | None:
    """What Git says in a folder; None if it says nothing, or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
