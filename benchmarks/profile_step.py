"""Where the time of a training step goes, by operation.

    taskset -c 0 python benchmarks/profile_step.py [--model=B0] [--recompute]

TensorFlow's profiler records a few steps on one synthetic batch; the time of an operation is its
own, without that of operations within it. With one core the times add up to the step; with more,
they are processor time. docs/performance.md has results.
"""

from __future__ import annotations

import collections
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from effnetv2_tf import programs

_MODEL = flags.DEFINE_enum("model", "B0", ["B0", "B1", "B2", "B3", "S", "M", "L"], "V2 variant.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "Side in pixels.", 32)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images in a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps to record, after three others.", 1)
_ROWS = flags.DEFINE_integer("rows", 20, "Operations to show.", 1)
_RECOMPUTE = flags.DEFINE_bool("recompute", False, "Whether norms are recomputed.")

Times = dict[str, list[float]]  # milliseconds of each event, by operation


def record(folder: Path) -> None:
    """Writes a profile of training steps below `folder`."""
    import tensorflow as tf
    from _keras_worker import batches, build

    import effnetv2_tf
    from effnetv2_tf import keras_compat

    model = build("effnetv2_tf", _MODEL.value, _IMAGE_SIZE.value)
    if _RECOMPUTE.value:
        effnetv2_tf.set_recompute(model)
    keras_compat.build_optimizer(model.optimizer, model.trainable_variables)
    model.make_train_function()
    iterator = iter(batches("effnetv2_tf", _IMAGE_SIZE.value, _BATCH_SIZE.value))
    for _ in range(3):
        model.train_function(iterator)
    tf.profiler.experimental.start(str(folder))
    for _ in range(_STEPS.value):
        model.train_function(iterator)
    tf.profiler.experimental.stop()


def read(folder: Path) -> Times:
    """The operations' own times in a profile."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(next(folder.rglob("*.xplane.pb")).read_bytes())
    times: Times = collections.defaultdict(list)
    for plane in space.planes:
        if "host:CPU" in plane.name:
            names = {number: data.name for number, data in plane.event_metadata.items()}
            for line in plane.lines:
                add_own_times(line.events, names, times)
    return times


def add_own_times(events: Any, names: dict[int, str], times: Times) -> None:
    """Adds a thread's events, each less the events within it."""
    open_events: list[tuple[int, str, int]] = []  # end, operation, index among its times
    for event in sorted(events, key=lambda e: (e.offset_ps, -e.duration_ps)):
        while open_events and open_events[-1][0] <= event.offset_ps:
            open_events.pop()
        if open_events:
            _, outer, index = open_events[-1]
            times[outer][index] -= event.duration_ps / 1e9
        operation = names[event.metadata_id].rsplit(":", 1)[-1]
        times[operation].append(event.duration_ps / 1e9)
        end = event.offset_ps + event.duration_ps
        open_events.append((end, operation, len(times[operation]) - 1))


def main() -> None:
    programs.import_tensorflow()
    with tempfile.TemporaryDirectory() as name:
        record(Path(name))
        times = read(Path(name))
    steps = _STEPS.value
    # Not operations: the executor's loop and the call of the whole step.
    sums = {k: sum(v) / steps for k, v in times.items() if k not in ("Run", "FunctionRun")}
    print(f"V2-{_MODEL.value}, {_IMAGE_SIZE.value} px, batch {_BATCH_SIZE.value}: ms in a step")
    for operation in sorted(sums, key=lambda k: -sums[k])[: _ROWS.value]:
        count = len(times[operation]) / steps
        print(f"{sums[operation]:9.2f}  {count:5.0f} x {operation}")
    print(f"{sum(sums.values()):9.2f}  together")


if __name__ == "__main__":
    programs.run(main)
