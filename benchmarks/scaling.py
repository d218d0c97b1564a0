"""Training steps on 1 and 2 virtual devices, and on 1 and 2 worker processes.

    python benchmarks/scaling.py [--model=B0] [--image_size=64] [--batch_size=32]
    python benchmarks/scaling.py --estimate     # on paper: 32 TPU cores and 8 GPUs

The global batch is the same in all cases. On one machine all of them share its processor, so
the figures show what distribution costs, not what it gains. Each case has processes of its own.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _measure import revision, run
from absl import flags

from effnetv2_tf.errors import TrainingFailure, UsageError

CASES = ("devices:1", "devices:2", "workers:1", "workers:2")

_MODEL = flags.DEFINE_enum("model", "B0", ["B0", "B1", "B2", "B3", "S", "M", "L"], "V2 variant.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 64, "Side in pixels.", 32)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Images in a step, over all replicas.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements of each case.", 1)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps in one measurement.", 1)
_SYNCHRONIZED = flags.DEFINE_bool("synchronized_batch_norm", False, "Over the global batch.")
_ESTIMATE = flags.DEFINE_bool("estimate", False, "Prints the paper estimate and measures nothing.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
_CASE = flags.DEFINE_enum("case", None, list(CASES), "Measures this one, in this process.")


@dataclass(frozen=True)
class Accelerators:
    """Published figures of a set of accelerators.

    Attributes:
      name: what they are.
      count: of chips.
      peak_flops: of a chip, in bfloat16, operations/s.
      all_reduce_bytes: that a chip can send to the others in a second.
      source: of the figures.
    """

    name: str
    count: int
    peak_flops: float
    all_reduce_bytes: float
    source: str


ACCELERATORS = (
    Accelerators(
        "32 TPU v3 cores (16 chips)",
        16,
        123e12,
        340e12 / 1024,
        "cloud.google.com/tpu/docs/v3: 123 TFLOPS a chip, 340 TB/s all-reduce for 1024 chips",
    ),
    Accelerators(
        "8 A100 GPUs", 8, 312e12, 300e9, "NVIDIA's data sheet: 312 TFLOPS, NVLink 300 GB/s each way"
    ),
)
# EfficientNetV2-S in the paper, tables 6 and 7: 350 epochs of ImageNet in 7.1 h on 32 cores.
PAPER_IMAGES_PER_SECOND = 350 * 1_281_167 / (7.1 * 3600)
PAPER_SIZES = (128, 185, 242, 300)  # four equal stages from 128 to 300 px
FLOPS_PER_MULTIPLY_ADD = 6  # two operations; the backward pass costs two forward ones


def main() -> None:
    if _ESTIMATE.value:
        print(estimate())
        return
    if _CASE.value is not None:
        print(json.dumps(measure(_CASE.value)))
        return
    if _BATCH_SIZE.value % 2:
        raise UsageError(
            "--batch_size: expected a multiple of 2, for every case to divide among its replicas, "
            f"received {_BATCH_SIZE.value}"
        )
    results = {case: run_case(case) for case in CASES}
    base = results[CASES[0]]["images_per_second"]
    for case, result in results.items():
        speed = result["images_per_second"]
        print(f"{case:>10}: {speed:6.1f} images/s ({speed / base:.2f} of devices:1)", flush=True)
    if _OUTPUT.value:
        report = {"revision": revision(), "cases": results}
        Path(_OUTPUT.value).write_text(json.dumps(report, indent=2) + "\n")


def run_case(case: str) -> dict[str, Any]:
    """Measures a case in processes of its own; returns the first one's result."""
    kind, _, number = case.partition(":")
    count = int(number) if kind == "workers" else 1
    addresses = [f"localhost:{_free_port()}" for _ in range(count)]
    processes = []
    for index in range(count):
        environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
        if kind == "workers":
            task = {"type": "worker", "index": index}
            cluster = {"cluster": {"worker": addresses}, "task": task}
            environment["TF_CONFIG"] = json.dumps(cluster)
        command = [sys.executable, *sys.argv, f"--case={case}"]
        processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        )
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise TrainingFailure(f"{case}: a process failed, see above")
    return json.loads(outputs[0].strip().splitlines()[-1])


def measure(case: str) -> dict[str, Any]:
    """Training steps of one case on synthetic images: images/s, and seconds of the first."""
    from effnetv2_tf.training.distribution import choose_strategy

    kind, _, number = case.partition(":")
    devices = [f"CPU:{i}" for i in range(int(number))]
    if kind == "workers":
        strategy, _ = choose_strategy("multi_worker")
    else:
        strategy, _ = choose_strategy("mirrored", devices=devices)
    step = _training_step(strategy)
    began = time.perf_counter()
    step()
    first = time.perf_counter() - began
    step()
    speeds = []
    for _ in range(_ROUNDS.value):
        began = time.perf_counter()
        for _ in range(_STEPS.value):
            step()
        speeds.append(_BATCH_SIZE.value * _STEPS.value / (time.perf_counter() - began))
    return {"images_per_second": statistics.median(speeds), "all": speeds, "first_step": first}


def _training_step(strategy: Any) -> Any:
    import tensorflow as tf

    import effnetv2_tf
    from effnetv2_tf.models import families
    from effnetv2_tf.models.network import build_network
    from effnetv2_tf.training.distributed_data import distribute
    from effnetv2_tf.training.distributed_steps import make_train_function

    spec = getattr(families, f"EFFICIENTNETV2_{_MODEL.value}")
    with strategy.scope():
        model = build_network(spec, synchronized_batch_norm=_SYNCHRONIZED.value)
        optimizer = effnetv2_tf.RMSProp(0.01)
        model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        optimizer.build(model.trainable_variables)

    def make_batches(context: Any) -> Any:
        size = _BATCH_SIZE.value
        if context is not None:
            size = context.get_per_replica_batch_size(size)
        shape = (size, _IMAGE_SIZE.value, _IMAGE_SIZE.value, 3)
        images = tf.random.stateless_uniform(shape, [0, 1], maxval=255.0)
        labels = tf.random.stateless_uniform(shape[:1], [0, 2], maxval=1000, dtype=tf.int32)
        return tf.data.Dataset.from_tensors((images, labels)).repeat()

    function = make_train_function(model)
    iterator = iter(distribute(strategy, make_batches, shares=True))
    return lambda: float(function(iterator)["loss"])


def estimate() -> str:
    """A Markdown table for EfficientNetV2-S: nothing in it was measured by this program."""
    from effnetv2_tf.models import families
    from effnetv2_tf.models.flops import count_flops, stage_table
    from effnetv2_tf.models.stage_costs import totals

    spec = families.EFFICIENTNETV2_S
    gradient_bytes = 4 * totals(stage_table(spec, PAPER_SIZES[-1]))[0]
    per_image = [FLOPS_PER_MULTIPLY_ADD * count_flops(spec, size) for size in PAPER_SIZES]
    paper = PAPER_IMAGES_PER_SECOND * statistics.mean(per_image)
    utilization = paper / (ACCELERATORS[0].count * ACCELERATORS[0].peak_flops)
    lines = [
        f"Gradients {gradient_bytes / 1e6:.0f} MB; the paper's speed is {utilization:.1%} of peak.",
        "",
        "| devices | px | GFLOP/image | step of 4096, ms | all-reduce, ms | share | images/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for chips in ACCELERATORS:
        for size, flops in zip(PAPER_SIZES, per_image, strict=True):
            compute = 4096 * flops / (chips.count * chips.peak_flops * utilization)
            ring = 2 * (chips.count - 1) / chips.count
            reduce = ring * gradient_bytes / chips.all_reduce_bytes
            lines.append(
                f"| {chips.name} | {size} | {flops / 1e9:.1f} | {compute * 1e3:.0f} | "
                f"{reduce * 1e3:.2f} | {reduce / (compute + reduce):.1%} | "
                f"{4096 / (compute + reduce):,.0f} |"
            )
    return "\n".join([*lines, "", *(f"{chips.name}: {chips.source}" for chips in ACCELERATORS)])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    run(main)
