"""Progressive against fixed-size training, with the same number of epochs.

    python benchmarks/progressive.py --output=runs/progressive

Runs configs/fashion_mnist.yaml and configs/fashion_mnist_fixed.yaml one after the other,
each through the ordinary training program in a process of its own, and prints accuracy and
training seconds (evaluation left out) of both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from absl import app, flags

_OUTPUT = flags.DEFINE_string("output", "runs/progressive", "Folder of the two runs.")
_SET = flags.DEFINE_multi_string("set", [], "Overrides for both recipes, as in train.")


def run(recipe: str, folder: Path) -> dict:
    """Trains (or goes on training) a recipe and returns its summary."""
    command = [sys.executable, "-m", "effnetv2_tf.train", f"--config=configs/{recipe}.yaml"]
    command += [f"--model_dir={folder}", "--progress=lines"]
    command += [f"--set={override}" for override in _SET.value]
    subprocess.run(command, check=True)
    return json.loads((folder / "summary.json").read_text())


def main(_: list[str]) -> None:
    results = {}
    for name in ("fashion_mnist", "fashion_mnist_fixed"):
        results[name] = run(name, Path(_OUTPUT.value) / name)
    for name, summary in results.items():
        print(f"{name:>20}: {summary['accuracy']:.2%}, {summary['train_seconds']:.0f} s training")
    progressive, fixed = results["fashion_mnist"], results["fashion_mnist_fixed"]
    print(f"accuracy, progressive less fixed: {progressive['accuracy'] - fixed['accuracy']:+.2%}")
    print(f"time, progressive over fixed:     {_time_ratio(progressive, fixed):.3f}")


def _time_ratio(progressive: dict, fixed: dict) -> float:
    return progressive["train_seconds"] / fixed["train_seconds"]


if __name__ == "__main__":
    app.run(main)
