"""Real processes: one is killed and the search goes on; two work on one study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from optuna.trial import TrialState

from effnetv2_tf.search import trials as trials_of
from effnetv2_tf.search.session import Session

WORKER = """
import sys
from pathlib import Path
from effnetv2_tf.search.config import SearchJob, load_search
from effnetv2_tf.search.session import Session

folder, storage, budget, pauses = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]

def try_task(task, limits, listen):
    if task.folder.name in pauses:
        print("pausing", flush=True)
        sys.stdin.read()  # until this process is killed
    layers = sum(stage.repeats for stage in task.recipe.model.stages)
    listen({"parameters": layers, "multiply_adds": layers})
    return {"accuracy": layers / 8, "train_seconds": 0.0}

config = load_search("configs/search_v2_digits.yaml", ["reward.kind=flops"])
print("ready", flush=True)
sys.stdin.readline()
Session(SearchJob(config, "tiny", storage, folder, budget), try_task=try_task).work()
"""


@pytest.fixture
def start_worker(tmp_path):
    """Starts a process that works on the study, and waits until it is about to."""
    (tmp_path / "worker.py").write_text(WORKER)
    started = []

    def start(job, *pauses):
        process = subprocess.Popen(
            [
                sys.executable,
                tmp_path / "worker.py",
                job.output,
                job.storage,
                str(job.budget),
                *pauses,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _go(process):
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.slow
def test_after_kill_9_no_trial_is_lost_or_counted_twice(make_job, pretend, start_worker):
    job = make_job("reward.kind=flops", budget=5)
    worker = start_worker(job, "00002")
    _go(worker)
    assert "pausing\n" in iter(worker.stdout.readline, ""), "the worker ended before it paused"
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    session = Session(job, try_task=pretend)
    states = [trial.state for trial in session.study.trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING]

    session.work()
    trials = session.study.trials
    assert len(trials_of.ended(trials)) == len(trials_of.counted(trials)) == 5
    assert [t.number for t in trials if trials_of.is_set_aside(t)] == [2]
    again = [t for t in trials if t.user_attrs.get(trials_of.RETRY_OF) == 2]
    assert [t.params for t in again] == [trials[2].params]
    # The same again does nothing more.
    Session(job, try_task=pretend).work()
    assert len(session.study.trials) == len(trials)


@pytest.mark.slow
def test_the_trials_of_two_workers_add_up(make_job, start_worker):
    job = make_job("reward.kind=flops", budget=24)
    workers = [start_worker(job) for _ in range(2)]
    for worker in workers:
        _go(worker)
    said = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    trials = Session(job).study.trials
    counted = trials_of.counted(trials)
    assert len(counted) == 24
    assert all(trial.state == TrialState.COMPLETE for trial in counted)
    # One that lost the race for the last trial gives its own up.
    assert len(trials) - len(counted) <= 1
    made_by = {trial.user_attrs[trials_of.WORKER] for trial in counted}
    assert len(made_by) == 2
    announced = [line for text in said for line in text.splitlines() if line.startswith("[")]
    assert len(announced) == 24
