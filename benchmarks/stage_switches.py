"""Extra seconds at the three stage switches of a four-stage run.

    python benchmarks/stage_switches.py --output=result.json

Ours: one `fit` with `ProgressiveLearning`. keras.applications: one `fit` for each stage, the
network and the optimizer going on. Its data have static sides, as is usual, so that Keras traces
the step again for the second size and relaxes it to any size then. A second line has the same with
data whose sides are unknown, as ours are: there is one trace. Extra is the time between the last
step of a stage and the end of the first of the next, less an ordinary step of that stage; building
the datasets, which draw one synthetic batch again and again, is in it. Every measurement is a
fresh process, and all take turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from _measure import Rounds, Target, define_flags, finish, run
from _worker import Worker
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError

_OURS = "effnetv2_tf"
_PEERS = {
    "keras.applications": Target("at most", 0.05),
    "keras.applications, sides unknown": None,
}

define_flags(rounds=5)
_MODEL = flags.DEFINE_enum("model", "B0", ["B0", "S"], "Of EfficientNetV2.")
_SIZES = flags.DEFINE_list("image_sizes", "96,128,160,192", "Sides of the stages in pixels.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images in a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 6, "Steps in a stage.", 3)


def medians(runs: Sequence[Sequence[float]]) -> str:
    """Of each switch over the runs, in seconds."""
    return ", ".join(f"{statistics.median(values):.2f} s" for values in zip(*runs, strict=True))


def main() -> None:
    image_sizes = programs.parse_sizes("image_sizes", _SIZES.value)
    if len(image_sizes) < 2:
        raise UsageError(f"--image_sizes: expected two or more, received {image_sizes}")
    libraries = (_OURS, *_PEERS)
    switches: dict[str, list[list[float]]] = {library: [] for library in libraries}

    def seconds(library: str) -> float:
        with Worker("_stages_worker.py") as worker:
            extra = worker.ask(
                "run_stages",
                library=library,
                model=_MODEL.value,
                image_sizes=image_sizes,
                batch_size=_BATCH_SIZE.value,
                steps=_STEPS.value,
            )
        switches[library].append(extra)
        return sum(extra)

    rounds = Rounds()
    for library in libraries:
        rounds.enter(library, lambda library=library: lambda: seconds(library))
    rounds.run(flags.FLAGS.rounds)
    sizes = ", ".join(map(str, image_sizes))
    note = "each switch, medians: " + "; ".join(
        f"{name} {medians(values)}" for name, values in switches.items() if values
    )
    comparisons = [
        rounds.compare(
            _OURS,
            peer,
            what=f"extra seconds at the switches of a run of {len(image_sizes)} stages "
            f"({sizes} px), V2-{_MODEL.value}, batch {_BATCH_SIZE.value}",
            unit="s",
            target=target,
            note=note,
        )
        for peer, target in _PEERS.items()
    ]
    finish(comparisons, extra_seconds_of_each_switch=switches)


if __name__ == "__main__":
    run(main)
