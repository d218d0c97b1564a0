"""Runs all benchmarks and renders docs/benchmarks.md.

    python benchmarks/run_all.py [--torch_python=PATH] [--rows=training_b0,memory]

Each row is a script of this folder in a process of its own, with its result in a JSON file in
--output, and what it says on the way in a .log file beside that. A row with a result made by the
same command is not run again (--again does), so the same command goes on after an
interruption; one that fails, as a whole or in a line, is recorded with the reason and tried again
next time. A row that fails keeps the result it had, and the page says so. Without --torch_python,
a result with the PyTorch peers stays; in a new one they are reported as not installed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _measure import busy_cores, check_names
from _page import Section, write_page
from _results import TORCH_FLAG, is_fresh
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError
from effnetv2_tf.files import write_text


@dataclass(frozen=True)
class Row:
    """One benchmark.

    Attributes:
      script: in this folder.
      title: of its part of the page.
      how: what is measured.
      arguments: that differ from the script's defaults.
      torch: whether it has PyTorch peers.
      result_flag: the flag that names the JSON file.
    """

    script: str
    title: str
    how: str
    arguments: tuple[str, ...] = ()
    torch: bool = False
    result_flag: str = "output"


_TRAINING = (
    "Forward, backward and RMSProp with momentum on one synthetic batch, float32, without XLA. "
    "Ours: with the compiled operations. keras.applications: under TensorFlow's own settings, "
    "which leave oneDNN off on processors without AVX512-VNNI and the like, and with it on. "
    "timm: PyTorch, channels last, symmetric padding and the optimizer's foreach form, which "
    "measured faster than TensorFlow's padding and the default. The machine: the best rate of "
    "square matrix products of 2048, 3072 and 4096 rows; a step counts as six operations for "
    "each multiply-add of the forward pass, however it is computed: our 3x3 convolutions need "
    "a quarter of these multiplications, with stride 2 nine sixteenths."
)
_PAUSED = (
    "This package imports TensorFlow, builds its networks and traces their first step with "
    "Python's garbage collection paused; on the peer's side it runs as usual."
)
ROWS = {
    "training_b0": Row(
        "train_step.py", "Training steps of V2-B0", _TRAINING, ("--models=B0",), torch=True
    ),
    "training_s": Row(
        "train_step.py", "Training steps of V2-S", _TRAINING, ("--models=S",), torch=True
    ),
    "memory": Row(
        "step_memory.py",
        "Peak memory of training steps",
        "Largest resident size of a fresh process that makes three steps, less its size after the "
        "imports.",
    ),
    "first_step": Row(
        "first_step.py",
        "First training step",
        "A fresh process imports, builds, compiles and makes one step in `Model.fit`. " + _PAUSED,
    ),
    "stage_switches": Row(
        "stage_switches.py",
        "Stage switches",
        "Four stages of six steps with growing images. Ours: `ProgressiveLearning` in one `fit`. "
        "keras.applications: one `fit` for each stage, on a network without its own classifier, "
        "which would refuse other sizes; with data of static sides, as is usual, Keras traces the "
        "step again for the second size and relaxes it to any size then. Sides unknown: the same "
        "with data typed as ours are, which is traced once.",
    ),
    "input_pipeline": Row(
        "input_pipeline.py",
        "Input pipeline",
        "256 files, windows of scikit-learn's two photographs. Ours: the training program's "
        "pipeline, labels included. torchvision: v2 transforms on Pillow images in a DataLoader. "
        "Keras: its RandAugment layer with factor 0.5 in tf.data, after our decoding and crop. "
        "torchvision's RandomResizedCrop always filters when it shrinks Pillow images "
        "(antialiasing); our crop, like the reference's, does not, and has less to do.",
        torch=True,
    ),
    "inference": Row(
        "inference.py",
        "Inference",
        "Exports with random weights, each in its own runtime with two threads. compiled: a "
        "SavedModel in this package's operations, which TensorFlow must have loaded; savedmodel "
        "loads anywhere. The best float32 artefact is the one of our four with the smallest median "
        "of these same rounds, against one peer, which favours ours a little; the ratio is that "
        "artefact's.",
        (
            "--networks=s",
            "--batches=1",
            "--artefacts=savedmodel,compiled,tflite,onnx,keras savedmodel,timm onnx",
        ),
        torch=True,
    ),
    "g16": Row(
        "g16_step.py",
        "Group convolutions",
        "Two networks that differ in nothing but the group convolution, and the spread of its "
        "random kernels. The peer's steps take so long that it has fewer rounds than ours, and the "
        "ratio is that of the medians.",
    ),
    "startup": Row(
        "startup.py",
        "Import and build",
        "Fresh processes, TensorFlow's import included on both sides. " + _PAUSED,
    ),
    "progressive": Row(
        "progressive.py",
        "Progressive against fixed size",
        "configs/fashion_mnist.yaml against configs/fashion_mnist_fixed.yaml, seconds of training "
        "without evaluation, from the runs' history.csv. Each was run once, and the ratio is that "
        "of these two runs.",
        ("--notrain",),
        result_flag="result",
    ),
}

_LISTENING_SECONDS = 3.0  # for other work on the machine, before each row

_OUTPUT = flags.DEFINE_string("output", "runs/benchmarks", "Folder of the results.")
_ROWS = flags.DEFINE_list("rows", list(ROWS), "Of: " + ", ".join(ROWS))
_AGAIN = flags.DEFINE_bool("again", False, "Run rows that have a result, too.")
_RENDER_ONLY = flags.DEFINE_bool("render_only", False, "Run nothing; render what there is.")
_PAGE = flags.DEFINE_string("page", "docs/benchmarks.md", "Page; pictures go to pictures/ beside.")
_TORCH = flags.DEFINE_string("torch_python", None, "A Python with torch, torchvision and timm.")
_RUNS = flags.DEFINE_string("progressive_runs", "runs/progressive", "See progressive.py --output.")
_LIMIT = flags.DEFINE_integer("row_seconds", 1800, "A row that takes longer is stopped.", 1)


def arguments_of(name: str) -> list[str]:
    """A row's script and flags, but for the file of its result."""
    row = ROWS[name]
    arguments = [row.script, *row.arguments]
    if name == "progressive":
        arguments.append(f"--output={_RUNS.value}")
    if row.torch and _TORCH.value:
        arguments.append(f"{TORCH_FLAG}{_TORCH.value}")
    return arguments


def shown_command(arguments: list[str]) -> str:
    """As somebody else would type it."""
    texts = [
        f"{TORCH_FLAG}PATH"
        if text.startswith(TORCH_FLAG)
        else (f"'{text}'" if " " in text else text)
        for text in arguments
    ]
    return " ".join([f"python benchmarks/{texts[0]}", *texts[1:]])


def read_result(name: str) -> dict[str, Any] | None:
    """A row's result, if there is one."""
    path = Path(_OUTPUT.value) / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def run_row(name: str) -> None:
    """Runs a row's script, and notes its command in the result.

    If it fails, the reason is the result, or is noted in the one there was.
    """
    arguments = arguments_of(name)
    path = Path(_OUTPUT.value) / f"{name}.json"
    command = [sys.executable, str(Path(__file__).parent / arguments[0]), *arguments[1:]]
    busy = busy_cores(_LISTENING_SECONDS)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / path.name
        command.append(f"--{ROWS[name].result_flag}={new}")
        reason = _run(command, path.with_suffix(".log"))
        if not reason and not new.is_file():
            reason = "wrote no result"
        result = {"failed": reason} if reason else json.loads(new.read_text(encoding="utf-8"))
    result["arguments"] = arguments
    result["busy_cores_before"] = busy
    result["seconds"] = seconds = round(time.perf_counter() - began, 1)
    before = read_result(name) or {}
    if reason and "comparisons" in before:
        result = {**before, "failed_since": f"{time.strftime('%Y-%m-%d %H:%M')}, {reason}"}
    write_text(path, json.dumps(result, indent=1) + "\n")
    print(f"{name}: {reason or 'done'}, {seconds:.0f} s", flush=True)


def _run(command: list[str], notes: Path) -> str:
    """Runs a command in a process group of its own; returns why it failed, or nothing."""
    with notes.open("w") as file:
        process = subprocess.Popen(command, stderr=file, start_new_session=True)
        try:
            code = process.wait(_LIMIT.value)
        except subprocess.TimeoutExpired:
            return f"took more than {_LIMIT.value} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its workers, too
                process.wait()
    if code == 0:
        return ""
    lines = notes.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {code}"


def main() -> None:
    check_names(_ROWS, ROWS)
    programs.check_output_folder(_OUTPUT)
    programs.check_output_file(_PAGE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a row's processes end, too
    Path(_OUTPUT.value).mkdir(parents=True, exist_ok=True)
    for name in () if _RENDER_ONLY.value else _ROWS.value:
        known = read_result(name) or {}
        if is_fresh(known, arguments_of(name)) and not _AGAIN.value:
            print(f"{name}: has a result from {known['date']}")
            continue
        print(f"{name}: {shown_command(arguments_of(name))}", flush=True)
        run_row(name)
    sections = []
    for name, row in ROWS.items():
        result = read_result(name)
        arguments = (result or {}).get("arguments") or arguments_of(name)
        sections.append(Section(name, row.title, row.how, shown_command(arguments), result))
    _write_page(sections)


def _write_page(sections: Sequence[Section]) -> None:
    """Writes the page, but not over the published one with rows that were not run here."""
    lacking = [section.name for section in sections if section.result is None]
    if lacking and not flags.FLAGS["page"].present:
        note = (
            f"{_PAGE.value}: not written, for {_OUTPUT.value} has no result of "
            f"{', '.join(lacking)}; --page=FILE writes what there is"
        )
        if _RENDER_ONLY.value:
            raise UsageError(note)
        print(note)
        return
    write_page(sections, Path(_PAGE.value))
    print(f"{_PAGE.value}: written")


if __name__ == "__main__":
    programs.run(main)
