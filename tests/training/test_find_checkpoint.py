"""What --checkpoint means, the same for every program."""

import subprocess
import sys

import numpy as np
import pytest

from effnetv2_tf.errors import UsageError
from effnetv2_tf.programs import CHECKPOINT_HELP
from effnetv2_tf.training.checkpoints import CheckpointFolder, write_checkpoint
from effnetv2_tf.training.runs import find_checkpoint

ARRAYS = {"model/stem/kernel": np.zeros((1, 1, 3, 8), np.float32)}


@pytest.fixture
def run(tmp_path):
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints")
    for step in (3, 6):
        folder.save(ARRAYS, {"step": step})
    folder.save_best(ARRAYS, {"step": 5})
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "step"), [("last", 6), ("best", 5), ("step-0000000003.npz", 3), ("best.npz", 5)]
)
def test_keywords_and_names(run, name, step):
    assert find_checkpoint(run, name).step == step


def test_a_path(run, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "mine.npz", ARRAYS, {"step": 9})
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(run, str(tmp_path / "mine.npz")).step == 9
    assert find_checkpoint(run, "mine.npz").step == 9
    write_checkpoint(run / "checkpoints" / "mine.npz", ARRAYS, {"step": 10})
    assert find_checkpoint(run, "mine.npz").step == 10  # the run's own come first
    assert find_checkpoint(run, str(tmp_path / "mine.npz")).step == 9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "received ''"),
        ("bets", "received 'bets'; did you mean 'best'?"),
        ("step-3.npz", "received 'step-3.npz'; did you mean 'step-0000000003.npz'?"),
        (".", "received '.'"),
        ("/no/where.npz", "received '/no/where.npz'"),
    ],
)
def test_what_is_no_checkpoint(run, name, message):
    with pytest.raises(UsageError) as caught:
        find_checkpoint(run, name)
    assert str(caught.value).startswith(
        f"--checkpoint: expected last, best, the name of a file in {run / 'checkpoints'} "
        "(step-0000000003.npz, step-0000000006.npz) or a path, received "
    )
    assert str(caught.value).endswith(message)


def test_a_damaged_newest_one_is_not_replaced(run):
    newest = run / "checkpoints" / "step-0000000006.npz"
    newest.write_bytes(newest.read_bytes()[:-50])
    with pytest.raises(UsageError, match=r"damaged, .*--checkpoint=step-0000000003\.npz"):
        find_checkpoint(run)


def test_a_run_without_checkpoints(tmp_path):
    with pytest.raises(UsageError, match="holds no checkpoint; train first"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("program", ["evaluate", "resolution_sweep", "predict", "export"])
def test_all_programs_say_the_same(program):
    command = [sys.executable, "-m", f"effnetv2_tf.{program}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"--checkpoint: {CHECKPOINT_HELP} (default: 'last')" in " ".join(done.stdout.split())
