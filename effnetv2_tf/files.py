"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that gets its name when everything is written and on the disk.

    What a link leads to is replaced, not the link. Devices and pipes are written to as they are.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a full disk
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, errors: str = "backslashreplace") -> None:
    """Replaces a text file as a whole.

    Args:
      path: of the file.
      text: of the file.
      errors: what becomes of the parts of file names that are no UTF-8; by default escapes, which
        JSON understands, or "surrogateescape" for the names' own bytes.
    """
    with atomic_file(path) as file:
        file.write(text.encode(errors=errors))


def no_file(path: str | Path) -> str:
    """Says of a path that is no file what it is."""
    return f"{path} {'is a folder' if Path(path).is_dir() else 'does not exist'}"


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, with a byte order mark or without.

    Line ends alone separate them, not the form feeds and other marks that `str.splitlines` knows.
    """
    with path.open(encoding="utf-8-sig") as file:
        return [line.rstrip("\n") for line in file]
