"""Seconds to import the package and to build EfficientNetV2-S, against keras.applications.

    python benchmarks/startup.py --output=result.json

Every measurement is a fresh process, and the two libraries take turns. The time counts from
the process's start until the network is built; TensorFlow's import is in it on both sides.
Import and building alone are lines of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from _measure import Rounds, Target, define_flags, finish, run
from _worker import Worker
from absl import flags

_LIBRARIES = ("effnetv2_tf", "keras.applications")

define_flags(rounds=7)
_MODEL = flags.DEFINE_enum("model", "S", ["B0", "S"], "Of EfficientNetV2.")

Parts = dict[str, dict[str, list[float]]]


def _turn(library: str, parts: Parts) -> Callable[[], float]:
    def seconds() -> float:
        began = time.perf_counter()
        with Worker("_keras_worker.py") as worker:
            found = worker.ask("import_and_build", library=library, model=_MODEL.value)
            whole = time.perf_counter() - began
        for part, value in found.items():
            parts[part].setdefault(library, []).append(value)
        return whole

    return seconds


def main() -> None:
    parts: Parts = {"import": {}, "build": {}}
    rounds = Rounds()
    for library in _LIBRARIES:
        rounds.enter(library, lambda library=library: _turn(library, parts))
    rounds.run(flags.FLAGS.rounds)
    network = f"V2-{_MODEL.value}"
    target = Target("at most", 0.5)
    comparisons = [
        rounds.compare(
            *_LIBRARIES,
            what=f"process start to {network} built",
            unit="s",
            target=target,
            note="TensorFlow's import, the same on both sides, included",
        )
    ]
    texts = {"import": "import of TensorFlow and the library", "build": f"building {network}"}
    for part, values in parts.items():
        rounds.values = values
        comparisons.append(rounds.compare(*_LIBRARIES, what=texts[part], unit="s"))
    finish(comparisons)


if __name__ == "__main__":
    run(main)
