"""Seconds from a process's start to the end of its first training step; its memory, too.

    python benchmarks/first_step.py --output=result.json

Every measurement is a fresh process that imports the library (TensorFlow included), builds and
compiles a network, and makes one step in `Model.fit`; the two libraries take turns. Peak
memory is the process's largest resident size, less what it was after the imports.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from _measure import Rounds, Target, define_flags, finish, run
from _worker import Worker
from absl import flags

LIBRARIES = ("effnetv2_tf", "keras.applications")

define_flags(rounds=5)
_MODEL = flags.DEFINE_enum("model", "B0", ["B0", "S"], "Of EfficientNetV2.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "Side in pixels.", 32)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images in a step.", 1)


def main() -> None:
    memory: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    rounds = Rounds()
    for library in LIBRARIES:
        rounds.enter(library, lambda library=library: _seconds(library, memory[library]))
    rounds.run(flags.FLAGS.rounds)
    shape = f"V2-{_MODEL.value}, {_IMAGE_SIZE.value} px, batch {_BATCH_SIZE.value}"
    seconds = rounds.compare(
        *LIBRARIES,
        what=f"process start to the end of the first training step, {shape}",
        unit="s",
        target=Target("at most", 0.25),
    )
    rounds.values = memory
    peak = rounds.compare(
        *LIBRARIES,
        what=f"peak memory of the first training step, {shape}",
        unit="MB",
        target=Target("at most", 0.6),
        note="above what is resident after the imports; tracing included",
    )
    finish([seconds, peak])


def _seconds(library: str, memory: list[float]) -> Callable[[], float]:
    """A turn: starts a process, notes its memory, ends it; returns the seconds."""

    def turn() -> float:
        began = time.perf_counter()
        with Worker("_keras_worker.py") as worker:
            worker.ask("first_step", library=library, **_shape())
            seconds = time.perf_counter() - began
            found = worker.ask("memory")
        memory.append(found["peak"] - found["after_import"])
        return seconds

    return turn


def _shape() -> dict[str, Any]:
    return {
        "model": _MODEL.value,
        "image_size": _IMAGE_SIZE.value,
        "batch_size": _BATCH_SIZE.value,
    }


if __name__ == "__main__":
    run(main)
