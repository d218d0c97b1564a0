"""Training steps of G16-EfficientNet-B0, against the same network with Keras's group convolution.

    python benchmarks/g16_step.py --output=result.json

The two networks differ in nothing but `GroupConv2D` and `keras.layers.Conv2D(groups=...)`, and in
the spread of these layers' random kernels, which costs no time.
Keras's gradient on a CPU is compiled by XLA and takes seconds for each layer, so its rounds
have one step and there are few of them; ours go on alternating with those, then alone.
"""

from __future__ import annotations

from collections.abc import Callable

from _measure import Rounds, Target, Workers, define_flags, finish, run
from absl import flags

_OURS = "effnetv2_tf"
_THEIRS = "keras"
_PEER = "keras.layers.Conv2D(groups)"

define_flags(rounds=7)
_PEER_ROUNDS = flags.DEFINE_integer("peer_rounds", 2, "Measurements of the peer.", 1)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "Side in pixels.", 32)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images in a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 3, "Our steps in one measurement; the peer makes one.", 1)


def prepare(workers: Workers, convolution: str, steps: int) -> Callable[[], float]:
    """Builds a contestant, which makes its first step; then images per second of each round."""
    worker = workers.start("_group_worker.py")
    worker.ask(
        "first_step",
        convolution=convolution,
        image_size=_IMAGE_SIZE.value,
        batch_size=_BATCH_SIZE.value,
    )
    return lambda: steps * _BATCH_SIZE.value / worker.ask("steps", count=steps)


def main() -> None:
    rounds = Rounds()
    with Workers() as workers:
        rounds.enter(_OURS, lambda: prepare(workers, _OURS, _STEPS.value))
        rounds.enter(_PEER, lambda: prepare(workers, _THEIRS, 1))
        rounds.run(min(_PEER_ROUNDS.value, flags.FLAGS.rounds))
        rounds.turns.pop(_PEER, None)
        rounds.run(max(0, flags.FLAGS.rounds - _PEER_ROUNDS.value))
    comparison = rounds.compare(
        _OURS,
        _PEER,
        what=f"G16-EfficientNet-B0 training, {_IMAGE_SIZE.value} px, batch {_BATCH_SIZE.value}",
        unit="images/s",
        target=Target("at least", 10),
        note=f"the peer made {_PEER_ROUNDS.value} step(s) that count",
    )
    finish([comparison])


if __name__ == "__main__":
    run(main)
