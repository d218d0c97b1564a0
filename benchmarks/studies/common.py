"""What the studies share: runs of recipes that are not repeated, means and spreads, tables.

A study is a list of cases, each trained with every seed through the ordinary trainer in a
folder of its own below `--output`. The same command goes on after an interruption, and
reads what is finished.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import flags

from effnetv2_tf import programs

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the runs; runs/studies/NAME by default.")
_PICTURE = flags.DEFINE_string("picture", None, "PNG to draw; picture.png in --output by default.")
_SEEDS = flags.DEFINE_list("seeds", "0,1,2", "Seeds of weights, order and augmentation.")
_ONLY = flags.DEFINE_multi_string("only", None, "A case to run, repeatable; all by default.")

Tree = dict[str, Any]

# Fused blocks, then MBConv with squeeze-excite, as EfficientNetV2, for images of 20 to 48 px.
STAGES = (
    {"block": "fused", "stride": 1, "expansion": 1, "filters": 16, "repeats": 1},
    {"block": "fused", "stride": 2, "expansion": 4, "filters": 24, "repeats": 1},
    {"block": "mbconv", "stride": 2, "expansion": 4, "filters": 48, "repeats": 2, "se_ratio": 0.25},
    {"block": "mbconv", "stride": 1, "expansion": 4, "filters": 64, "repeats": 1, "se_ratio": 0.25},
)
BASE: Tree = {
    "name": "study",
    "model": {
        "name": "efficientnetv2-b0",
        "stem_filters": 16,
        "stem_stride": 2,
        "head_filters": 256,
        "classifier_initializer": "zeros",
        "stages": STAGES,
    },
    "data": {
        "source": "fashion_mnist",
        "augmentation": {"crop": "pad", "crop_padding": 2, "flip": True, "policy": "none"},
        "eval_crop": "none",
        "eval_batch_size": 500,
    },
    # The learning rate ends at 0: averages of the weights would change little.
    "training": {
        "batch_size": 50,
        "label_smoothing": 0.05,
        "ema_decay": None,
    },
    "progressive": {"stages": 1, "image_size": [28, 28]},
    "learning_rate": {"per_256": 0.016, "decay": "cosine", "warmup_epochs": 0.5},
}


@dataclass(frozen=True)
class Case:
    """One column of a comparison.

    Attributes:
      name: in tables, pictures and, with dashes, of the folder.
      settings: what it changes in the base recipe, `{"section.key": value}`.
    """

    name: str
    settings: Tree


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      summary: the trainer's `summary.json`.
      history: its `history.csv`, a row an epoch.
      cpu_seconds: processor time of the training steps of each epoch.
    """

    summary: Tree
    history: list[dict[str, str]]
    cpu_seconds: list[float]

    @property
    def accuracy(self) -> float:
        """Top-1 on the test images at the end."""
        return float(self.summary["accuracy"])

    def accuracy_after(self, epoch: int) -> float:
        """Top-1 on the test images after an epoch, from 1, that ended with an evaluation."""
        return float(self.history[epoch - 1]["val_accuracy"])

    @property
    def seconds(self) -> float:
        """Processor seconds of training, tracing left out: each stage at its fastest epoch."""
        total, first = 0.0, 0
        for stage in self.summary["stages"]:
            total += stage["epochs"] * min(self.cpu_seconds[first : first + stage["epochs"]])
            first += stage["epochs"]
        return total

    @property
    def images_per_second(self) -> float:
        """Of processor time, tracing left out."""
        rows = self.history
        images = sum(float(r["images_per_second"]) * float(r["train_seconds"]) for r in rows)
        return images / self.seconds


@dataclass
class Study:
    """Cases and, once run, what came out."""

    name: str
    cases: Sequence[Case]
    base: Tree = field(default_factory=dict)
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def recipe(self, case: Case, seed: int) -> Any:
        """The recipe of a case: the shared base, the study's changes, the case's."""
        from effnetv2_tf.training.recipe_files import parse_recipe

        tree = copy.deepcopy(BASE)
        for key, value in {**self.base, **case.settings, "seed": seed}.items():
            _put(tree, key, value)
        steps = tree["data"]["options"]["train_examples"] // tree["training"]["batch_size"]
        together = max(count for count in range(1, 11) if steps % count == 0)
        _put(tree, "training.steps_per_execution", together)
        return parse_recipe({**tree, "name": f"{self.name}_{folder_name(case)}"}, case.name)

    def run(self, folder: Path, seeds: Iterable[int], only: Sequence[str] | None) -> None:
        """Trains what is not finished, seed by seed, so that cases share the machine's moods."""
        cases = [case for case in self.cases if only is None or case.name in only]
        for seed in seeds:
            for case in cases:
                run_folder = folder / folder_name(case) / f"seed{seed}"
                began = time.perf_counter()
                run = _train(self.recipe(case, seed), run_folder)
                self.runs.setdefault(case.name, []).append(run)
                print(
                    f"{self.name}, {case.name}, seed {seed}: {run.accuracy:.2%}, "
                    f"{run.seconds:.1f} s training, {time.perf_counter() - began:.0f} s in all",
                    flush=True,
                )

    def values(self, case_name: str, of: Callable[[Run], float]) -> list[float]:
        """One number of each of a case's runs."""
        return [of(run) for run in self.runs[case_name]]


def folder_name(case: Case) -> str:
    """The case's name for a path."""
    return case.name.replace(",", "").replace("+", "-").replace(" ", "-").lower()


def mean_and_spread(values: Sequence[float], unit: str = "%") -> str:
    """`91.23 ± 0.12`: mean and sample standard deviation; shares are given in percent."""
    factor, digits = (100, 2) if unit == "%" else (1, 1)
    scaled = [value * factor for value in values]
    spread = statistics.stdev(scaled) if len(scaled) > 1 else 0.0
    return f"{statistics.mean(scaled):.{digits}f} ± {spread:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def run_study(study: Study, report: Callable[[Study], str], draw: Callable[[Study, Path], None]):
    """Runs a study as a program: trains, prints its table, writes results and picture."""

    def main() -> None:
        programs.import_tensorflow()
        folder = Path(_OUTPUT.value or f"runs/studies/{study.name}")
        study.run(folder, [int(seed) for seed in _SEEDS.value], _ONLY.value)
        results = {
            name: [
                {"accuracy": r.accuracy, "seconds": r.seconds, **_essentials(r.summary)}
                for r in runs
            ]
            for name, runs in study.runs.items()
        }
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        if _ONLY.value is None:
            text = report(study)
            (folder / "results.md").write_text(text + "\n")
            print(text)
            draw(study, Path(_PICTURE.value or folder / "picture.png"))

    programs.run(main)


def _train(recipe: Any, folder: Path) -> Run:
    import keras

    from effnetv2_tf.training.recipe_files import load_recipe
    from effnetv2_tf.training.trainer import Trainer

    summary, clock = folder / "summary.json", folder / "cpu_seconds.json"
    if not (summary.is_file() and load_recipe(folder / "recipe.yaml") == recipe):
        keras.backend.clear_session()
        trainer = Trainer(recipe, folder, verbose=0)
        trainer.callbacks.append(_cpu_clock(clock, trainer.progressive))
        trainer.run()
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    seconds = json.loads(clock.read_text())
    per_epoch = [seconds.get(row["epoch"], math.inf) for row in history]
    return Run(json.loads(summary.read_text()), history, per_epoch)


def _cpu_clock(path: Path, progressive: Any) -> Any:
    """A callback that notes the processor time of every epoch's steps.

    Unlike the trainer's own clock it does not mind other work on the same core. Epochs that an
    interruption cut in two are left out.
    """
    import keras

    class CpuClock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            first_step = progressive.schedule.first_step_of_epoch(epoch)
            self.is_whole = progressive.next_step == first_step
            self.began = time.process_time()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ended = time.process_time()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds = json.loads(path.read_text()) if path.is_file() else {}
            if self.is_whole:
                seconds[str(epoch + 1)] = self.ended - self.began
            path.write_text(json.dumps(seconds))

    return CpuClock()


def _essentials(summary: Tree) -> Tree:
    return {name: summary[name] for name in ("seed", "parameters", "steps", "git_revision")}


def _put(tree: Tree, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value
