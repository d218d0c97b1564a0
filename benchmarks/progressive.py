"""Progressive against fixed-size training: accuracy, and the time to the same accuracy.

    python benchmarks/progressive.py --output=runs/progressive
    python benchmarks/progressive.py --output=runs/progressive --notrain --result=result.json

Runs configs/fashion_mnist.yaml and configs/fashion_mnist_fixed.yaml one after the other, each
through the ordinary training program in a process of its own; `--notrain` reads what such runs
have left. Times are seconds of training, evaluation left out, at the end of the first epoch
whose held-out accuracy is high enough: the fixed run's final accuracy less --tolerance. A
second line takes the highest accuracy that both runs reach.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from _histories import compare, read_points
from _measure import run, write_result
from absl import flags

_OUTPUT = flags.DEFINE_string("output", "runs/progressive", "Folder of the two runs.")
_SET = flags.DEFINE_multi_string("set", [], "Overrides for both recipes, as in train.")
_TRAIN = flags.DEFINE_bool("train", True, "Train; otherwise read the runs in the folder.")
_RESULT = flags.DEFINE_string("result", None, "JSON file for the result.")
_TOLERANCE = flags.DEFINE_float(
    "tolerance", 0.001, "How far below the fixed run's final accuracy still counts.", 0.0
)

PROGRESSIVE, FIXED = "fashion_mnist", "fashion_mnist_fixed"


def train(recipe: str, folder: Path) -> None:
    """Trains (or goes on training) a recipe."""
    command = [sys.executable, "-m", "effnetv2_tf.train", f"--config=configs/{recipe}.yaml"]
    command += [f"--model_dir={folder}", "--progress=lines"]
    command += [f"--set={override}" for override in _SET.value]
    subprocess.run(command, check=True)


def main() -> None:
    folder = Path(_OUTPUT.value)
    if _TRAIN.value:
        for recipe in (PROGRESSIVE, FIXED):
            train(recipe, folder / recipe)
    runs = {}
    for recipe in (PROGRESSIVE, FIXED):
        runs[recipe] = read_points(folder / recipe / "history.csv")
        last = runs[recipe][-1]
        print(f"{recipe:>20}: {last.accuracy:.2%} after {last.seconds:.0f} s of training")
    lines = compare(runs[PROGRESSIVE], runs[FIXED], _TOLERANCE.value)
    summaries = {
        recipe: json.loads((folder / recipe / "summary.json").read_text(encoding="utf-8"))
        for recipe in (PROGRESSIVE, FIXED)
    }
    for comparison in lines:
        print(comparison)
    if _RESULT.value:
        write_result(Path(_RESULT.value), lines, points=runs, summaries=summaries)


if __name__ == "__main__":
    run(main, result_flag="result")
