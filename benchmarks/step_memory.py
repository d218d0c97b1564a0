"""Peak resident memory of training steps at a large batch, against keras.applications.

    python benchmarks/step_memory.py --batch_size=64 --output=result.json

Every measurement is a fresh process: import, build, `fit` for one step, two more steps. Counted
is the process's largest resident size, less what it was after the imports. Ours is measured
again with `set_recompute`, of norms and of blocks.
"""

from __future__ import annotations

from _measure import Rounds, Target, define_flags, finish, run
from _worker import Worker
from absl import flags

_PEER = "keras.applications"
_OURS: dict[str, bool | str] = {  # what is recomputed
    "effnetv2_tf": False,
    "effnetv2_tf, recomputing norms": "norms",
    "effnetv2_tf, recomputing blocks": "blocks",
}

define_flags(rounds=5)
_MODEL = flags.DEFINE_enum("model", "B0", ["B0", "S"], "Of EfficientNetV2.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "Side in pixels.", 32)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a step.", 1)


def megabytes(contestant: str) -> float:
    """What the steps of a fresh process take at most."""
    with Worker("_keras_worker.py") as worker:
        worker.ask(
            "first_step",
            library=_PEER if contestant == _PEER else "effnetv2_tf",
            recompute=_OURS.get(contestant, False),
            model=_MODEL.value,
            image_size=_IMAGE_SIZE.value,
            batch_size=_BATCH_SIZE.value,
        )
        worker.ask("steps", count=2)
        memory = worker.ask("memory")
    return memory["peak"] - memory["after_import"]


def main() -> None:
    rounds = Rounds()
    for name in (*_OURS, _PEER):
        rounds.enter(name, lambda name=name: lambda: megabytes(name))
    rounds.run(flags.FLAGS.rounds)
    shape = f"V2-{_MODEL.value}, {_IMAGE_SIZE.value} px, batch {_BATCH_SIZE.value}"
    comparisons = [
        rounds.compare(
            ours,
            _PEER,
            what=f"peak memory of training steps, {shape}"
            + (f", recomputing {parts}" if parts else ""),
            unit="MB",
            target=Target("at most", 0.6),
            note="above what is resident after the imports"
            + (f'; with `set_recompute(model, "{parts}")`' if parts else ""),
        )
        for ours, parts in _OURS.items()
    ]
    finish(comparisons)


if __name__ == "__main__":
    run(main)
