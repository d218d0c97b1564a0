"""The comparison of searchers keeps no rewards of other settings."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def search(output, *arguments):
    command = [sys.executable, "benchmarks/search.py", f"--output={output}", "--reward=digits"]
    command += ["--trials=1", "--seeds=1", "--searchers=random", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_rewards_of_other_settings_are_refused(tmp_path):
    (tmp_path / "measured.json").write_text(json.dumps({"layers=1": 0.5}))
    done = search(tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--output: expected a folder of the same settings (--set)" in done.stderr
    assert json.loads((tmp_path / "measured.json").read_text()) == {"layers=1": 0.5}
