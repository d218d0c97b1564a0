"""Group convolutions against dense ones: milliseconds, and per multiply-add.

    python benchmarks/group_conv.py [--clock=processor]

For each shape a 3x3 convolution in groups of 16 channels is computed as the one native
operation and as a dense convolution for each group (`GroupConv2D` takes the first where it has
a gradient, see `choose_convolution`), beside the dense convolution of all channels and the
depthwise one. A measurement is the forward pass and the gradients of images and kernel. The
sides take turns; medians are printed, and the ratio per multiply-add to the dense convolution.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import revision, run
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError

_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images.", 1)
_GROUP_SIZE = flags.DEFINE_integer("group_size", 16, "Channels a group.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Measurements of each side, alternating.", 1)
_SHAPES = flags.DEFINE_list(
    "shapes", "56x96,28x192,28x96,14x384,7x768", "Rows (and columns) x channels."
)
_CLOCK = flags.DEFINE_enum(
    "clock",
    "wall",
    ["wall", "processor"],
    "processor: for a process pinned to one core that others use too.",
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def parse_shape(text: str) -> tuple[int, int]:
    """The rows and channels in one text of --shapes.

    Raises:
      UsageError: if it has others than these, or the channels make no whole groups.
    """
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split("x")]
    if len(numbers) != 2 or not all(numbers) or numbers[1] % _GROUP_SIZE.value:
        raise UsageError(
            "--shapes: expected rows x channels such as 56x96, the channels a multiple of "
            f"--group_size ({_GROUP_SIZE.value}), received {text!r}"
        )
    return numbers[0], numbers[1]


def contestants(rows: int, channels: int) -> dict[str, tuple[Callable[[], Any], int]]:
    """A step and its number of multiply-adds (forward) by name."""
    import tensorflow as tf

    from effnetv2_tf.models.layers import group_conv

    def depthwise(x: Any, kernel: Any, strides: Any, padding: str) -> Any:
        return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], padding)

    groups = channels // _GROUP_SIZE.value
    grouped = (3, 3, _GROUP_SIZE.value, channels)
    sides = {
        "native": (group_conv.convolve_natively, grouped),
        "split": (group_conv.convolve_split, grouped),
        "dense": (group_conv.convolve_natively, (3, 3, channels, channels)),
        "depthwise": (depthwise, (3, 3, channels, 1)),
    }
    if group_conv.choose_convolution(groups, tf.float32) is group_conv.convolve_split:
        del sides["native"]  # it has no gradient here
    images = tf.random.stateless_normal([_BATCH_SIZE.value, rows, rows, channels], [0, 1])
    return {
        name: (_step(convolve, images, shape), _multiply_adds(rows, shape))
        for name, (convolve, shape) in sides.items()
    }


def _step(convolve: Callable, images: Any, kernel_shape: tuple[int, ...]) -> Callable[[], Any]:
    import tensorflow as tf

    kernel = tf.random.stateless_normal(kernel_shape, [0, 2])

    @tf.function
    def step(x: Any, k: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, k])
            y = convolve(x, k, (1, 1), "SAME")
        return tape.gradient(y, [x, k], output_gradients=tf.ones_like(y))

    return lambda: step(images, kernel)[1].numpy()


def _multiply_adds(rows: int, kernel_shape: tuple[int, ...]) -> int:
    count = _BATCH_SIZE.value * rows * rows
    for side in kernel_shape:
        count *= side
    return count


def measure(rows: int, channels: int) -> dict[str, dict[str, float]]:
    """Median milliseconds and multiply-adds of each side."""
    clock = {"wall": time.perf_counter, "processor": time.process_time}[_CLOCK.value]
    sides = contestants(rows, channels)
    for _ in range(2):  # the first call traces, and makes the earlier sides' next call slow
        for step, _ in sides.values():
            step()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_ROUNDS.value):
        for name, (step, _) in sides.items():
            began = clock()
            step()
            times[name].append(1000 * (clock() - began))
    return {
        name: {"ms": statistics.median(times[name]), "multiply_adds": count}
        for name, (_, count) in sides.items()
    }


def main() -> None:
    shapes = {text: parse_shape(text) for text in _SHAPES.value}
    programs.import_tensorflow()
    results = {}
    print("| shape | side | M multiply-adds | ms | per multiply-add, of dense |")
    print("| --- | --- | --- | --- | --- |")
    for shape, (rows, channels) in shapes.items():
        results[shape] = sides = measure(rows, channels)
        dense = sides["dense"]["ms"] / sides["dense"]["multiply_adds"]
        for name, side in sides.items():
            ratio = side["ms"] / side["multiply_adds"] / dense
            millions = side["multiply_adds"] / 1e6
            print(
                f"| {rows}x{rows}x{channels} | {name} | {millions:.0f} | {side['ms']:.1f} | "
                f"{ratio:.2f} |",
                flush=True,
            )
    if _OUTPUT.value:
        report = {"revision": revision(), "shapes": results}
        Path(_OUTPUT.value).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
