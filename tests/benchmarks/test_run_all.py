"""The program that runs all benchmarks, on the row that trains and measures nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HISTORY = "epoch,train_seconds,val_accuracy\n1,{seconds},0.8\n2,{seconds},0.9\n"


def run_all(folder, *arguments):
    command = [sys.executable, "benchmarks/run_all.py", f"--output={folder / 'results'}"]
    command += [f"--page={folder / 'page.md'}", f"--progressive_runs={folder / 'runs'}"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def write_runs(folder):
    for name, seconds in (("fashion_mnist", 10.0), ("fashion_mnist_fixed", 20.0)):
        run = folder / "runs" / name
        run.mkdir(parents=True)
        (run / "history.csv").write_text(HISTORY.format(seconds=seconds))
        (run / "summary.json").write_text("{}")


def test_failure_is_recorded_and_tried_again_and_a_result_is_kept(tmp_path):
    code, text = run_all(tmp_path, "--rows=progressive")
    assert code == 0, text
    assert "**Failed**: error:" in (tmp_path / "page.md").read_text()
    write_runs(tmp_path)
    code, text = run_all(tmp_path, "--rows=progressive")
    assert code == 0, text
    page = (tmp_path / "page.md").read_text()
    assert "| 20.0 s | 40.0 s | 0.500x | at most 0.55x | reached |" in page
    result = json.loads((tmp_path / "results" / "progressive.json").read_text())
    assert result["points"]["fashion_mnist"] == [[10.0, 0.8], [20.0, 0.9]]
    _, text = run_all(tmp_path, "--rows=progressive")
    assert "progressive: has a result from" in text
    assert json.loads((tmp_path / "results" / "progressive.json").read_text()) == result
    shutil.rmtree(tmp_path / "runs")
    _, text = run_all(tmp_path, "--rows=progressive", "--again")
    kept = json.loads((tmp_path / "results" / "progressive.json").read_text())
    reason = kept.pop("failed_since")
    assert "expected a finished run's history" in reason
    assert kept == result
    page = (tmp_path / "page.md").read_text()
    assert "| 20.0 s | 40.0 s | 0.500x | at most 0.55x | reached |" in page
    assert f"**The last attempt failed**: {reason}." in page


PLAIN, TORCH = ["train_step.py"], ["train_step.py", "--torch_python=python"]


@pytest.mark.parametrize(
    ("stored", "line", "wanted", "fresh"),
    [
        (PLAIN, {}, PLAIN, True),
        (PLAIN, {}, ["train_step.py", "--steps=2"], False),
        (PLAIN, {"failed": "no memory"}, PLAIN, False),
        (PLAIN, {"missing": "no timm"}, PLAIN, True),
        (PLAIN, {"missing": "no timm"}, TORCH, False),
        (TORCH, {"missing": "no timm"}, TORCH, False),
        (TORCH, {}, TORCH, True),
        (TORCH, {}, PLAIN, True),
        (TORCH, {"failed": "no memory"}, PLAIN, True),
        (TORCH, {}, ["g16_step.py"], False),
    ],
)
def test_what_is_run_again(monkeypatch, stored, line, wanted, fresh):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from _results import is_fresh

    lines = [{"failed": "", "missing": ""}, {"failed": "", "missing": "", **line}]
    result = {"arguments": stored, "comparisons": lines}
    assert is_fresh(result, wanted) is fresh
    assert not is_fresh({"arguments": stored, "failed": "no memory"}, wanted)


def test_published_page_stays_without_all_results(tmp_path):
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    page.write_text("published")
    command = [sys.executable, str(ROOT / "benchmarks" / "run_all.py"), "--render_only"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "docs/benchmarks.md: not written, for runs/benchmarks has no result of" in done.stderr
    assert page.read_text() == "published"


def test_unknown_row(tmp_path):
    code, text = run_all(tmp_path, "--rows=startups")
    assert code == 2
    assert "received 'startups'; did you mean 'startup'?" in text
