"""Wrong flags of the benchmark programs: one line and exit code 2, before anything is measured."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script, *arguments):
    command = [sys.executable, f"benchmarks/{script}.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("script", "flag", "expected"),
    [
        ("stage_switches", "--image_sizes=96", "expected two or more, received [96]"),
        ("run_all", "--page=setup.py/page.md", "expected a file in a folder"),
        ("startup", "--output=setup.py/result.json", "expected a file in a folder"),
    ],
)
def test_wrong_flag(script, flag, expected):
    code, text = run(script, flag)
    assert code == 2, text
    assert text.count("\n") == 1, text
    assert f"error: {flag.partition('=')[0]}: {expected}" in text
