"""Evaluates runs over test sizes: `python -m effnetv2_tf.resolution_sweep --model_dir=...`.

`--model_dir` may be given several times; all runs are drawn in one picture, accuracy against
multiply-adds and against measured latency, and the Pareto-optimal points are named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError

if TYPE_CHECKING:
    from effnetv2_tf.training.runs import OpenedRun

_MODEL_DIR = flags.DEFINE_multi_string("model_dir", None, "Folder of a run; repeatable.")
_SIZES = flags.DEFINE_list(
    "sizes", None, "Sides in pixels, e.g. 160,192,224; by default around the training size."
)
_STEP = flags.DEFINE_integer(
    "step", 32, "Pixels between sizes; smaller for small networks, such as their total stride.", 1
)
_IMAGES = flags.DEFINE_string("images", None, programs.IMAGES_HELP)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "last", programs.CHECKPOINT_HELP)
_RAW = flags.DEFINE_bool("raw_weights", False, "Evaluate the raw weights, not their averages.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "Images in a call, for the latency.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Calls whose median is the latency.", 1)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the results; a single run's by default.")


def main() -> None:
    programs.check_output_folder(_OUTPUT)
    programs.check_not_empty(_IMAGES, "a folder or a CSV file")
    folders = [Path(text) for text in dict.fromkeys(_MODEL_DIR.value or ())]
    if not folders:
        raise UsageError("--model_dir: expected the folder of a training run, received none")
    if len(folders) > 1 and _OUTPUT.value is None:
        raise UsageError("--output: expected a folder with several --model_dir, received none")
    given = programs.parse_sizes("sizes", _SIZES.value)
    programs.import_tensorflow()
    from effnetv2_tf.training import resolution_sweep
    from effnetv2_tf.training.runs import open_run

    images = None if _IMAGES.value is None else Path(_IMAGES.value)
    opened = {folder: open_run(folder, _CHECKPOINT.value, _RAW.value, images) for folder in folders}
    runs = _named(opened)
    sizes = {}
    for name, run in runs.items():
        around = resolution_sweep.sizes_around(
            resolution_sweep.training_size(run.recipe), _STEP.value
        )
        sizes[name] = list(dict.fromkeys(given)) or around
        _note_misaligned(name, run, sizes[name])
    points = resolution_sweep.sweep(runs, sizes, _BATCH_SIZE.value, _ROUNDS.value, _show)
    _write(runs, [vars(point) for point in points], Path(_OUTPUT.value or folders[0]))


def _named(opened: dict[Path, OpenedRun]) -> dict[str, OpenedRun]:
    """The runs by the recipes' names, or by their folders where several have the same."""
    names = [run.recipe.name for run in opened.values()]
    if len(set(names)) == len(names):
        return dict(zip(names, opened.values(), strict=True))
    return {str(folder): run for folder, run in opened.items()}


def _note_misaligned(name: str, run: OpenedRun, sizes: list[int]) -> None:
    from effnetv2_tf.models import scaling
    from effnetv2_tf.training import build, resolution_sweep

    misaligned = resolution_sweep.misaligned_sizes(run.recipe, sizes)
    if misaligned:
        stride = scaling.total_stride(build.network_spec(run.recipe.model))
        trained = resolution_sweep.training_size(run.recipe)
        print(
            f"Note: {name} was trained at {trained} px and has a total stride of {stride}; "
            f"{', '.join(map(str, misaligned))} px leave another remainder, so that padding lies "
            "differently"
        )


def _data_name(runs: dict[str, OpenedRun]) -> str:
    """Of the first run's data; says where others go by another name."""
    names = list(dict.fromkeys(run.evaluation.info.name for run in runs.values()))
    if len(names) > 1:
        print(
            f"Note: the runs are evaluated on {programs.listed(names)}: as many images of the same "
            "classes, but only the same images can be compared; --images=... gives all the same"
        )
    return names[0]


def _show(name: str, size: int, result: Any) -> None:
    print(f"{name} at {size} px: {result.top_1:.2%} of {result.images} images", flush=True)


def _write(runs: dict[str, OpenedRun], rows: list[dict[str, Any]], output: Path) -> None:
    """Prints the table and writes resolution_sweep.json, .csv and .png."""
    import json

    from effnetv2_tf.export.report import processor
    from effnetv2_tf.files import write_text
    from effnetv2_tf.reporting.resolution_sweep import draw_sweep, sweep_table
    from effnetv2_tf.training.monitors import rows_to_csv
    from effnetv2_tf.training.resolution_sweep import WARM_UP_CALLS
    from effnetv2_tf.training.run_summary import versions

    data = _data_name(runs)
    machine = processor()
    report = {
        "data": data,
        "runs": {
            name: {
                "checkpoint": str(run.checkpoint.path),
                "step": run.checkpoint.step,
                "data": run.evaluation.info.name,
            }
            for name, run in runs.items()
        },
        "latency": {
            "batch_size": _BATCH_SIZE.value,
            "warm_up_calls": WARM_UP_CALLS,
            "rounds": _ROUNDS.value,
            "statistic": "median",
            "of": "the Keras network in TensorFlow, batch norms not folded",
            "processor": machine,
        },
        "versions": versions(),
        "points": rows,
    }
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "resolution_sweep.json", json.dumps(report, indent=2) + "\n")
    write_text(output / "resolution_sweep.csv", rows_to_csv(rows))
    picture = output / "resolution_sweep.png"
    draw_sweep(
        rows, picture, f"Test sizes on {data}, px (bold: trained at)", _BATCH_SIZE.value, machine
    )
    print(
        f"\n{sweep_table(rows)}\n\nLatency: median of {_ROUNDS.value} calls after "
        f"{WARM_UP_CALLS} to warm up, batch {_BATCH_SIZE.value}, the Keras network in TensorFlow, "
        f"{machine}"
    )
    for path in (output / "resolution_sweep.json", output / "resolution_sweep.csv", picture):
        print(f"Wrote {path}")


if __name__ == "__main__":
    programs.run(main)
