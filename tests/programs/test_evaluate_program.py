"""From the command line: a run's accuracy at its own size, or one clear line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "effnetv2_tf.evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_named_checkpoint_and_a_single_batch(tiny_run):
    recipe = tiny_run / "recipe.yaml"
    recipe.write_text(
        recipe.read_text().replace("eval_batch_size: null", "eval_batch_size: 360"), "utf-8"
    )
    done = run(f"--model_dir={tiny_run}", "--checkpoint=step-0000000007.npz")
    assert done.returncode == 0, done.stderr
    assert "step-0000000007.npz (step 7, raw weights) on digits/test" in done.stdout
    (row,) = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["16"]]
    assert row[3:] == ["360", "-"]
    report = json.loads((tiny_run / "evaluation.json").read_text())
    assert report["sizes"]["16"]["images"] == 360
    rows = list(csv.DictReader((tiny_run / "classes_16.csv").open()))
    assert [row["class"] for row in rows] == list("0123456789")
    assert sum(int(row["images"]) for row in rows) == 360
    correct = sum(int(row["correct"]) for row in rows)
    assert correct / 360 == report["sizes"]["16"]["top_1"]
    pairs = list(csv.DictReader((tiny_run / "confusion_16.csv").open()))
    assert sum(int(pair["images"]) for pair in pairs) == 360
    assert sum(int(p["images"]) for p in pairs if p["true"] == p["predicted"]) == correct
    assert "there are no images of" not in done.stdout
    assert report["weights"] == "raw"  # the run keeps no averages


def test_an_empty_checkpoint_is_refused(tiny_run):
    done = run(f"--model_dir={tiny_run}", "--checkpoint=")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --checkpoint: expected last, best, the name of a file")
    assert done.stderr.strip().endswith("received ''")
