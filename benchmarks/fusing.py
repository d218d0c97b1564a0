"""Which stages to fuse: parameters, multiply-adds and real training steps, as a table.

    python benchmarks/fusing.py --output=runs/fusing

The ablation of EfficientNetV2 (arXiv 2104.00298, table 3): EfficientNet-B4 with none of its
stages, the first three, five or all seven replaced by Fused-MBConv. The networks take turns, so
that other work on the machine meets all alike. What is timed: see `search.step_time`.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from _measure import revision
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.files import write_text

FUSED_STAGES = (0, 3, 5, 7)
CLASSES = 1000

_OUTPUT = flags.DEFINE_string("output", "runs/fusing", "Folder of the result.")
_MODEL = flags.DEFINE_string("model", "efficientnet-b4", "The network of MBConv stages.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "Side in pixels.", 32)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images in a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 2, "Steps in one measurement.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements of each network.", 1)
_CLOCK = flags.DEFINE_enum(
    "clock",
    "wall",
    ["wall", "processor"],
    "processor: for a process pinned to one core that others use too.",
)


def _recipe() -> Any:
    """Any recipe with the network, the size and the batch that are asked for."""
    from effnetv2_tf.training.recipe_files import parse_recipe

    size = _IMAGE_SIZE.value
    return parse_recipe(
        {
            "name": "fusing",
            "model": {"name": _MODEL.value},
            "data": {"source": "digits"},
            "training": {"epochs": 1, "batch_size": _BATCH_SIZE.value},
            "progressive": {"stages": 1, "image_size": [size, size]},
        }
    )


def measure() -> list[dict[str, Any]]:
    """A row for every number of fused stages."""
    from effnetv2_tf.models.stage_costs import spec_stages, totals
    from effnetv2_tf.search.spaces import FusingPoint, FusingSpace
    from effnetv2_tf.search.step_time import prepare_steps
    from effnetv2_tf.training import build

    recipe = _recipe()
    space = FusingSpace(build.network_spec(recipe.model), FUSED_STAGES)
    runs = {}
    for fused in FUSED_STAGES:
        runs[fused] = prepare_steps(
            space.recipe(FusingPoint(fused), recipe), CLASSES, 3, _CLOCK.value
        )
        runs[fused](2)  # the first traces
        print(f"{fused} stages fused: ready", flush=True)
    for run in runs.values():
        run(1)  # does not count: after a later network's trace, an earlier one's next call is slow
    seconds: dict[int, list[float]] = {fused: [] for fused in FUSED_STAGES}
    for _ in range(_ROUNDS.value):
        for fused, run in runs.items():
            seconds[fused].append(run(_STEPS.value) / _STEPS.value)
    rows = []
    for fused, steps in seconds.items():
        stages = spec_stages(space.spec(FusingPoint(fused)), _IMAGE_SIZE.value, classes=CLASSES)
        parameters, multiply_adds = totals(stages)
        rows.append(
            {
                "fused_stages": fused,
                "parameters": parameters,
                "multiply_adds": multiply_adds,
                "step_seconds": steps,
                "images_per_second": _BATCH_SIZE.value / statistics.median(steps),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| fused stages | parameters, M | multiply-adds, G | step, s (range) | images/s |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        fused, steps = row["fused_stages"], row["step_seconds"]
        lines.append(
            f"| {f'1-{fused}' if fused else 'none'} | {row['parameters'] / 1e6:.1f} | "
            f"{row['multiply_adds'] / 1e9:.2f} | {statistics.median(steps):.2f} "
            f"({min(steps):.2f}-{max(steps):.2f}) | {row['images_per_second']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    programs.check_output_folder(_OUTPUT)
    programs.import_tensorflow()
    rows = measure()
    about = {flag.name: flag.value for flag in (_MODEL, _IMAGE_SIZE, _BATCH_SIZE, _CLOCK)}
    path = Path(_OUTPUT.value) / "fusing.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**about, "revision": revision(), "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    programs.run(main)
