"""A worker for the test of workers."""

import importlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from _worker import serve


def leave():
    print("good bye", file=sys.stderr, flush=True)
    os._exit(3)


def echo(value):
    print("libraries print all sorts of things")
    return value


if __name__ == "__main__":
    serve(
        {
            "echo": echo,
            "divide": lambda: 1 // 0,
            "import_peer": lambda: importlib.import_module("no_such_peer") and None,
            "leave": leave,
        }
    )
