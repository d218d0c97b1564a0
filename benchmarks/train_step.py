"""Training steps of this package and of keras.applications, alternating in one process.

    python benchmarks/train_step.py [--model=B0] [--image_size=128] [--batch_size=16]

Prints images/s (median over the rounds), the seconds of the first step (tracing included)
and of the first step at a new image size, and the ratios. Both sides run without XLA, with
oneDNN as the environment has it, on the same synthetic images; keras.applications gets a
fixed input size because its classifier refuses variable ones, so a new size means a new
model there.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import app, flags

from effnetv2_tf import programs

programs.prepare_environment()

_MODEL = flags.DEFINE_enum("model", "B0", ["B0", "B1", "B2", "B3", "S", "M", "L"], "V2 variant.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "Side in pixels.")
_NEXT_SIZE = flags.DEFINE_integer("next_size", 160, "Side of the stage switched to.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images in a step.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Measurements of each side, alternating.")
_STEPS = flags.DEFINE_integer("steps", 5, "Steps in one measurement.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


@dataclass
class Side:
    """One contestant's measurements, in seconds but for `images_per_second`."""

    name: str
    first_step: float = 0.0
    switch: float = 0.0
    images_per_second: list[float] = field(default_factory=list)
    model: Any = None
    batches: Any = None

    def steps(self, count: int) -> float:
        """Runs training steps and returns their seconds."""
        began = time.perf_counter()
        for _ in range(count):
            self.model.train_function(self.batches)
        return time.perf_counter() - began


def batches(size: int, dynamic: bool):
    """An endless iterator of one synthetic batch, typed as in training."""
    import tensorflow as tf

    from effnetv2_tf.training.progressive import forget_sides

    shape = (_BATCH_SIZE.value, size, size, 3)
    images = tf.random.stateless_uniform(shape, [0, 1], maxval=255.0)
    labels = tf.random.stateless_uniform(shape[:1], [0, 2], maxval=1000, dtype=tf.int32)
    dataset = tf.data.Dataset.from_tensors((images, labels)).repeat()
    return iter(dataset.map(forget_sides) if dynamic else dataset)


def start(side: Side, size: int) -> float:
    """Builds and compiles a model; returns the seconds until its first step is done."""
    import keras

    import effnetv2_tf

    ours = side.name == "effnetv2_tf"
    library = effnetv2_tf if ours else keras.applications
    constructor = getattr(library, f"EfficientNetV2{_MODEL.value}")
    shape = (None, None, 3) if ours else (size, size, 3)
    side.model = constructor(weights=None, input_shape=shape)
    optimizer_class = effnetv2_tf.RMSProp if ours else keras.optimizers.RMSprop
    optimizer = optimizer_class(0.01, rho=0.9, momentum=0.9, epsilon=1e-3)
    side.model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    if ours:
        optimizer.build(side.model.trainable_variables)
    side.model.make_train_function()
    side.batches = batches(size, dynamic=ours)
    return side.steps(1)


def measure() -> tuple[Side, Side]:
    """Runs both sides."""
    ours, theirs = Side("effnetv2_tf"), Side("keras.applications")
    ours.first_step = start(ours, _IMAGE_SIZE.value)
    theirs.first_step = start(theirs, _IMAGE_SIZE.value)
    for side in (ours, theirs):
        side.steps(2)
    for _ in range(_ROUNDS.value):
        for side in (ours, theirs):
            seconds = side.steps(_STEPS.value)
            side.images_per_second.append(_BATCH_SIZE.value * _STEPS.value / seconds)
    usual = _BATCH_SIZE.value / statistics.median(ours.images_per_second)
    ours.batches = batches(_NEXT_SIZE.value, dynamic=True)
    first = ours.steps(1)
    second = min(ours.steps(1) for _ in range(3))
    ours.switch = max(0.0, first - second)
    theirs.switch = start(theirs, _NEXT_SIZE.value) - usual
    return ours, theirs


def main(_: list[str]) -> None:
    ours, theirs = measure()
    for side in (ours, theirs):
        speeds = side.images_per_second
        print(
            f"{side.name:>20}: {statistics.median(speeds):6.1f} images/s "
            f"(from {min(speeds):.1f} to {max(speeds):.1f}), first step "
            f"{side.first_step:5.1f} s, switch to {_NEXT_SIZE.value} px {side.switch:5.2f} s"
        )
    ratio = statistics.median(
        a / b for a, b in zip(ours.images_per_second, theirs.images_per_second, strict=True)
    )
    print(f"images/s, ours over theirs:   {ratio:.2f}")
    print(f"first step, ours over theirs: {ours.first_step / theirs.first_step:.3f}")
    print(f"stage switch, ours:           {ours.switch:.2f} s")
    if _OUTPUT.value:
        sides = [
            {k: v for k, v in vars(side).items() if k not in ("model", "batches")}
            for side in (ours, theirs)
        ]
        Path(_OUTPUT.value).write_text(json.dumps({"sides": sides, "ratio": ratio}, indent=2))


if __name__ == "__main__":
    app.run(main)
