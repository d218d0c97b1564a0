"""The comparison of searchers: its rewards, and that it takes none of other settings."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def search(output, reward):
    command = [sys.executable, "benchmarks/search.py", f"--output={output}", f"--reward={reward}"]
    command += ["--trials=2", "--seeds=1", "--searchers=evolution,random"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_rewards_of_each_search(tmp_path):
    done = search(tmp_path, "table")
    assert done.returncode == 0, done.stderr
    rewards = json.loads((tmp_path / "rewards.json").read_text())["rewards"]
    assert {kind: len(runs[0]) for kind, runs in rewards.items()} == {"evolution": 2, "random": 2}
    assert (tmp_path / "searchers.png").is_file()


def test_rewards_of_other_settings_are_refused(tmp_path):
    (tmp_path / "measured.json").write_text(json.dumps({"layers=1": 0.5}))
    done = search(tmp_path, "digits")
    assert done.returncode == 2, done.stderr
    assert "--output: expected a folder of the same settings (--set)" in done.stderr
    assert json.loads((tmp_path / "measured.json").read_text()) == {"layers=1": 0.5}
