"""A run in a process of its own: how it ends is told, and it never outlives its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from effnetv2_tf.errors import RunStopped, TrainingFailure
from effnetv2_tf.training import isolated_run
from effnetv2_tf.training.checkpoints import CheckpointFolder
from effnetv2_tf.training.isolated_run import Limits, run_isolated, train_isolated
from effnetv2_tf.training.recipe_files import dump_recipe, parse_recipe

RECIPE = parse_recipe(
    {
        "name": "endless",
        "model": {
            "name": "efficientnetv2-b0",
            "stem_filters": 8,
            "head_filters": 8,
            "stages": [{"block": "fused", "expansion": 1, "filters": 8, "repeats": 1}],
        },
        "data": {
            "source": "digits",
            "augmentation": {"crop": "none", "policy": "none"},
            "eval_crop": "none",
        },
        "training": {"epochs": 100_000, "batch_size": 128},
        "progressive": {"stages": 1, "image_size": [8, 8]},
    }
)


def _send_to_the_run(number):
    """Sends a signal to the first process that is started from now on."""

    def send():
        deadline = time.monotonic() + 120
        while not (children := multiprocessing.active_children()):
            assert time.monotonic() < deadline, "no process was started"
        os.kill(children[0].pid, number)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    return sender


def test_a_killed_process_is_a_failure_with_its_signal(tmp_path):
    sender = _send_to_the_run(signal.SIGKILL)
    with pytest.raises(TrainingFailure, match=r"signal SIGKILL; memory .*train\.log"):
        train_isolated(RECIPE, tmp_path)
    sender.join()


def test_a_process_that_is_asked_to_stop_is_no_failure(tmp_path):
    sender = _send_to_the_run(signal.SIGTERM)
    with pytest.raises(RunStopped, match="Stopped by SIGTERM; run the same command again"):
        train_isolated(RECIPE, tmp_path)
    sender.join()


PARENT = """
import multiprocessing, sys, threading
from effnetv2_tf.errors import RunStopped
from effnetv2_tf.training.isolated_run import Limits, run_isolated, train_isolated
from effnetv2_tf.training.recipe_files import load_recipe
from pathlib import Path

def tell():
    while not (children := multiprocessing.active_children()):
        pass
    print(children[0].pid, flush=True)

if __name__ == "__main__":
    threading.Thread(target=tell).start()
    try:
        train_isolated(load_recipe(sys.argv[1]), Path(sys.argv[2]))
    except RunStopped:
        sys.exit(0)
    sys.exit("the run ended")
"""


def _start_parent(folder):
    """A process that trains for ever in a process of its own; also the number of that."""
    (folder / "recipe.yaml").write_text(dump_recipe(RECIPE))
    (folder / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, "parent.py", "recipe.yaml", "run"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    return parent, int(parent.stdout.readline())


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd_open")
def test_a_run_ends_with_the_process_that_started_it(tmp_path):
    parent, number = _start_parent(tmp_path)
    child = os.pidfd_open(number)
    with parent:
        parent.kill()
    ended, _, _ = select.select([child], [], [], 60)
    os.close(child)
    assert ended, "the run outlived its parent by a minute"


@pytest.mark.slow
def test_sigterm_is_passed_on_and_the_run_saves_its_work(tmp_path):
    log = tmp_path / "run" / "train.log"
    log.parent.mkdir()
    os.mkfifo(log)  # so that this test waits for lines, not for a file
    parent, _ = _start_parent(tmp_path)
    with parent, log.open() as lines:
        next(line for line in lines if line.startswith("Epoch 2/"))
        parent.terminate()
        said = lines.read()
    assert parent.returncode == 0
    step = int(re.search(r"Stopped by SIGTERM after step (\d+); a checkpoint", said)[1])
    assert CheckpointFolder(tmp_path / "run" / "checkpoints").latest().step == step


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Pieces of work in a module that the fresh process can import."""
    (tmp_path / "pieces_of_work.py").write_text(
        "import time\n"
        "def tells(first, tell):\n    tell(first)\n    tell(first + 1)\n    return first + 2\n"
        "def goes_on(tell):\n    tell('begun')\n    time.sleep(600)\n"
        "def takes_memory(tell):\n    kept = bytearray(300 * 2**20)\n    time.sleep(600)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import pieces_of_work

    yield pieces_of_work
    del sys.modules["pieces_of_work"]


def test_work_tells_and_returns(work, tmp_path):
    heard = []
    assert run_isolated(work.tells, (1,), tmp_path, listen=heard.append) == 3
    assert heard == [1, 2]


def test_work_over_its_time_is_ended(work, tmp_path):
    with pytest.raises(TrainingFailure, match=r"ended after its time limit of 0\.5 s"):
        run_isolated(work.goes_on, (), tmp_path, limits=Limits(seconds=0.5))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("seconds", "is_over"),
    [([1, 5, 65, 68, 69], False), ([1, 5, 65, 73], True), ([11], True)],
)
def test_waiting_for_others_is_no_time_of_the_work(monkeypatch, seconds, is_over):
    """Begun at 0, limited to 10 s: it tells something, waits for a minute, tells more, and ends."""
    messages = iter([("told", 1), ("waits", None), ("goes on", None), ("told", 2), ("finished", 3)])
    times = iter(seconds)
    now = [0]

    class Receiver:
        def poll(self, timeout):
            now[0] = next(times)
            return True

        def recv(self):
            return next(messages)

    monkeypatch.setattr(isolated_run.time, "monotonic", lambda: now[0])
    heard = []
    with pytest.raises(isolated_run.LimitExceeded) if is_over else contextlib.nullcontext():
        outcome = isolated_run._listen(Receiver(), None, Limits(seconds=10), heard.append)
        assert outcome == ("finished", 3)
        assert heard == [1, 2]


def test_work_says_that_it_waits():
    said = []
    tell = isolated_run.Messenger(said.append)
    with pytest.raises(LookupError), tell.waiting():
        raise LookupError
    assert said == [("waits", None), ("goes on", None)]


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_work_over_its_memory_is_ended(work, tmp_path):
    limit = Limits(seconds=60, memory_bytes=250 * 2**20)
    with pytest.raises(TrainingFailure, match=r"GiB of memory in use, over its limit of 0\.24 GiB"):
        run_isolated(work.takes_memory, (), tmp_path, limits=limit)


def test_who_listens_may_end_the_work(work, tmp_path):
    def listen(news):
        raise LookupError(news)

    with pytest.raises(LookupError, match="begun"):
        run_isolated(work.goes_on, (), tmp_path, listen=listen)
    assert not multiprocessing.active_children()
