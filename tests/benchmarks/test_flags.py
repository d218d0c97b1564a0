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
        ("inference", "--batches=x", "expected whole numbers from 1 up, received 'x'"),
        ("group_conv", "--shapes=abc", "expected rows x channels such as 56x96"),
        ("group_conv", "--shapes=4x8", "expected rows x channels such as 56x96"),
        ("scaling", "--batch_size=3", "expected a multiple of 2"),
        ("train_step", "--models=B7", "expected some of B0, S, received 'B7'"),
        ("parity", "--networks=efficientnet-b9", "expected some of efficientnetv2-b0, "),
        ("parity", "--sizes=abc", "expected whole numbers from 8 up, received 'abc'"),
        ("run_all", "--page=setup.py/page.md", "expected a file in a folder"),
        ("startup", "--output=setup.py/result.json", "expected a file in a folder"),
        ("fusing", "--output=setup.py", "expected a folder for the results"),
    ],
)
def test_wrong_flag(script, flag, expected):
    code, text = run(script, flag)
    assert code == 2, text
    assert text.count("\n") == 1, text
    assert f"error: {flag.partition('=')[0]}: {expected}" in text


@pytest.mark.parametrize("script", ["group_conv", "scaling"])
def test_no_rounds(script):
    code, text = run(script, "--rounds=0")
    assert code == 2, text
    assert "flag --rounds=0" in text


def test_differences_that_say_nothing_are_failures():
    source = (
        "import sys; from parity import check_differences; "
        "check_differences([float(text) for text in sys.argv[1:]])"
    )
    for numbers, code in (["1e-6", "1e-5"], 0), (["1e-6", "nan"], 1), (["1e-3"], 1), ([], 1):
        command = [sys.executable, "-c", source, *numbers]
        done = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, check=False)
        assert done.returncode == code, done.stderr
