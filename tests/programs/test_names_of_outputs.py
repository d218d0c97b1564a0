"""Names that cannot be are refused before any work."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--model_dir=a", "--output="), "--output: expected a folder for the results"),
        (("augment_sheet", "--config=a", "--output="), "--output: expected the name of a file to"),
        (("describe", "--model=b0", "--picture="), "--picture: expected the name of a file to"),
        (("train", "--config=a", "--model_dir="), "--model_dir: expected the folder of the run"),
        (("compound_search", "--config=a", "--output="), "--output: expected a folder for the"),
        (("data_service", "--dispatcher=foo"), "--dispatcher: expected host:port, received 'foo'"),
    ],
)
def test_one_line_and_2(arguments, message):
    program, *options = arguments
    command = [sys.executable, "-X", "importtime", "-m", f"effnetv2_tf.{program}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (error,) = re.findall("^error: .*", done.stderr, re.MULTILINE)
    assert error.startswith(f"error: {message}")
    assert not re.search(r"\| +tensorflow$", done.stderr, re.MULTILINE)  # it takes seconds
