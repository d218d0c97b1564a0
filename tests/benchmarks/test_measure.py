"""Ratios, verdicts and taking turns."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from absl import flags

from effnetv2_tf.errors import TrainingFailure, UsageError

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_folder(monkeypatch):
    """The benchmarks are scripts: they find each other in their own folder."""
    monkeypatch.syspath_prepend(str(FOLDER))


def make_line(**fields):
    from _measure import Comparison

    return Comparison(**{"what": "training", "peer": "them", "unit": "images/s", **fields})


def test_ratio_is_the_median_of_the_rounds():
    # The machine was slow in the last round, for both.
    assert make_line(ours=[20.0, 22.0, 2.0], theirs=[10.0, 10.0, 2.0]).ratio == 2.0


def test_ratio_of_medians_where_rounds_are_no_pairs():
    assert make_line(ours=[10.0, 30.0, 20.0], theirs=[2.0, 2.0]).ratio == 10.0


@pytest.mark.parametrize(
    ("bound", "target", "verdict"),
    [
        ("at least", 2.0, "reached"),
        ("at least", 2.01, "missed"),
        ("at most", 2.0, "reached"),
        ("at most", 1.99, "missed"),
    ],
)
def test_verdict(bound, target, verdict):
    from _measure import Target

    line = make_line(ours=[20.0], theirs=[10.0], target=Target(bound, target))
    assert line.verdict == verdict
    assert str(line).endswith(f"target {bound} {target:.3g}x: {verdict}")


def test_absent_values_are_named():
    from _measure import Target

    line = make_line(ours=[20.0], target=Target("at least", 2.0))
    assert replace(line, missing="No module named 'timm'").verdict == "peer not installed"
    assert "No module named 'timm'" in str(replace(line, missing="No module named 'timm'"))
    assert replace(line, failed="out of memory").verdict == "failed"
    assert replace(line, ours=[], theirs=[3.0]).verdict == "missed"  # a goal never reached
    assert line.verdict == "failed"


@pytest.mark.parametrize("ours", [[0.0], [-0.1]])
def test_no_ratio_of_what_is_not_positive(ours):
    from _measure import Target

    line = make_line(ours=ours, theirs=[2.0], target=Target("at most", 0.5))
    assert (line.ratio, line.verdict) == (None, "no ratio")
    assert replace(line, ours=[2.0], theirs=ours).ratio is None
    assert "ratio none" in str(replace(line, target=None))


def test_result_without_ours_is_a_failure_that_is_written(tmp_path, monkeypatch):
    from _measure import finish

    path = tmp_path / "result.json"
    holders = flags.FlagValues()
    flags.DEFINE_string("output", str(path), "", flag_values=holders)
    holders.mark_as_parsed()
    monkeypatch.setattr(flags, "FLAGS", holders)
    finish([make_line(ours=[1.0], failed="them: no memory")])
    with pytest.raises(TrainingFailure, match="training: ours: no memory"):
        finish([make_line(theirs=[1.0], failed="ours: no memory")])
    assert json.loads(path.read_text())["comparisons"][0]["failed"] == "ours: no memory"


def test_result_file_is_checked_before_the_work(tmp_path):
    from _measure import check_result_file

    def holder(name):
        return SimpleNamespace(name="output", value=name)

    check_result_file(holder(None))
    check_result_file(holder(str(tmp_path / "new" / "result.json")))
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").touch()
    for name in ("file/result.json", "new"):
        with pytest.raises(UsageError, match="--output: expected"):
            check_result_file(holder(str(tmp_path / name)))


def test_revision_and_whether_files_differ_from_it(tmp_path):
    from _measure import revision

    def git(*command):
        who = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True)

    assert revision(tmp_path) is None
    git("init", "-q")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").touch()
    (tmp_path / "code.py").touch()
    git("add", ".")
    git("commit", "-q", "-m", "first")
    (tmp_path / "docs" / "page.md").write_text("figures")
    found = revision(tmp_path / "docs")
    assert len(found["commit"]) == 40
    assert not found["changed"]
    (tmp_path / "code.py").write_text("1")
    assert revision(tmp_path / "docs")["changed"]


def test_lines_survive_json():
    from _measure import Comparison, Target

    line = make_line(ours=[1.0, 2.0], theirs=[1.0, 4.0], target=Target("at most", 0.6), note="n")
    values = json.loads(json.dumps(line.as_dict()))
    assert Comparison.from_dict(values) == line
    assert values["ratio"] == 0.75
    assert values["verdict"] == "missed"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "-"),
        ([1234.5], "1234"),
        ([0.01234, 0.02, 0.001], "0.0123 (0.0010 to 0.0200)"),
        ([12.34, 9.0, 110.0], "12.3 (9.0 to 110.0)"),
        ([0.0], "0"),
    ],
)
def test_show(values, text):
    from _measure import show

    assert show(values) == text


def test_contestants_take_turns_and_failing_ones_drop_out():
    from _measure import Rounds
    from _worker import NotInstalled, WorkerFailed

    calls = []

    def turn(name):
        def value():
            calls.append(name)
            if name == "weak" and calls.count(name) == 2:
                raise WorkerFailed("too hot")
            return float(len(calls))

        return value

    def absent():
        raise NotInstalled("No module named 'peer'")

    rounds = Rounds()
    rounds.enter("ours", lambda: turn("ours"))
    rounds.enter("weak", lambda: turn("weak"))
    rounds.enter("absent", absent)
    rounds.run(3, pause=0.0)
    assert calls == ["ours", "weak", "ours", "weak", "ours"]
    assert rounds.values == {"ours": [1.0, 3.0, 5.0]}
    weak = rounds.compare("ours", "weak", what="w", unit="s")
    assert (weak.verdict, weak.failed) == ("failed", "weak: too hot")
    assert rounds.compare("ours", "absent", what="w", unit="s").verdict == "peer not installed"


def test_worker_answers_and_says_what_is_missing_and_what_failed():
    from _worker import NotInstalled, Worker, WorkerFailed

    folder = FOLDER.parent / "tests" / "benchmarks"
    with Worker(str(folder / "echo_worker.py"), sys.executable) as worker:
        assert worker.ask("echo", value=[1, 2]) == [1, 2]
        with pytest.raises(NotInstalled, match="no_such_peer"):
            worker.ask("import_peer")
        with pytest.raises(WorkerFailed, match="ZeroDivisionError: .*by zero"):
            worker.ask("divide")
        assert worker.ask("echo", value="still there") == "still there"
        with pytest.raises(WorkerFailed, match="ended: good bye"):
            worker.ask("leave")


def test_python_that_is_not_there():
    from _worker import NotInstalled, Worker

    with pytest.raises(NotInstalled, match="No such file"):
        Worker("_torch_worker.py", "/no/such/python")
