"""The page of the benchmarks, and the reading of training histories."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
MACHINE = {
    "processor": "Abacus 9000",
    "vector_instructions": ["avx2", "avx512f"],
    "cores": 2,
    "system": "Linux x86_64",
}


@pytest.fixture(autouse=True)
def benchmarks_folder(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def sections():
    from _measure import Comparison, Target
    from _page import Section

    target = Target("at least", 2.0)
    lines = [
        Comparison("training", "keras", "images/s", [40.0, 50.0], [20.0, 20.0], target),
        Comparison("training", "timm", "images/s", [40.0], target=target, missing="no timm"),
        Comparison("import", "keras", "s", [1.0], [4.0], note="a part"),
    ]
    result = {
        "date": "2026-01-02 03:04",
        "machine": MACHINE,
        "versions": {"keras": "3.0", "timm": "not installed"},
        "busy_cores_before": 0.123,
        "comparisons": [line.as_dict() for line in lines],
    }
    return [
        Section("training", "Training", "How.", "python benchmarks/train_step.py", result),
        Section("memory", "Memory", "How.", "python benchmarks/m.py", {"failed": "no memory"}),
        Section("startup", "Startup", "How.", "python benchmarks/s.py", None),
    ]


def test_page_names_machine_versions_date_and_verdicts(sections):
    from _page import page

    text = page(sections)
    assert "- Machine: 2 cores of Abacus 9000 (AVX-512), Linux x86_64\n" in text
    assert "- Versions: keras 3.0, timm not installed\n" in text
    assert "- Measured: 2026-01-02\n" in text
    assert (
        "Targets: 1 reached, 1 peer not installed. Without a result, see below: Memory, Startup."
        in text
    )
    row = (
        "| training | keras | 45.0 (40.0 to 50.0) images/s | 20.0 (20.0 to 20.0) images/s "
        "| 2.25x | at least 2x | reached |"
    )
    assert text.count(row) == 1
    assert "- training, against timm: not installed (no timm)." in text
    assert "| import | keras | 1.00 s | 4.00 s | 0.250x |  |  |" in text
    assert "- import: a part." in text
    assert "2026-01-02 03:04; 0.12 cores were busy just before it." in text
    assert "**Failed**: no memory" in text
    assert "**Not run.**" in text


@pytest.mark.parametrize(
    ("revision", "text"),
    [
        (None, "2026-01-02 03:04; 0.12 cores"),
        ({"commit": "0123456789ab", "changed": False}, "03:04; revision 0123456789; 0.12"),
        ({"commit": "0123456789ab", "changed": True}, "revision 0123456789, with changes; 0.12"),
    ],
)
def test_page_names_the_revision(sections, revision, text):
    from _page import page

    assert text in page([replace(sections[0], result={**sections[0].result, "revision": revision})])


def test_page_names_a_later_attempt_that_failed(sections):
    from _page import page

    text = page([replace(sections[0], result={**sections[0].result, "failed_since": "noon, hot"})])
    assert "| 2.25x |" in text
    assert "**The last attempt failed**: noon, hot." in text


def test_page_has_its_pictures(sections, tmp_path):
    from _page import write_page

    path = tmp_path / "docs" / "benchmarks.md"
    write_page(sections, path)
    pictures = re.findall(r"\((pictures/.*?\.png)\)", path.read_text(encoding="utf-8"))
    assert pictures == ["pictures/benchmark_summary.png", "pictures/benchmark_training.png"]
    for picture in pictures:
        assert (path.parent / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("bound", "target", "times"),
    [("at least", 2.0, 0.5), ("at most", 2.0, 2.0), ("at least", 0.01, 10), ("at most", 0.01, 0.1)],
)
def test_times_the_target(bound, target, times):
    from _measure import Comparison, Target
    from _page import times_the_target

    line = Comparison("w", "p", "s", [2.0], [2.0], Target(bound, target))
    assert times_the_target(line) == times


def test_page_without_any_result(sections, tmp_path):
    from _page import write_page

    write_page(sections[2:], tmp_path / "benchmarks.md")
    assert "**Not run.**" in (tmp_path / "benchmarks.md").read_text(encoding="utf-8")


def test_time_to_the_same_accuracy(tmp_path):
    from _histories import Point, compare, read_points, seconds_to

    path = tmp_path / "history.csv"
    path.write_text(
        "epoch,train_seconds,val_accuracy\n1,10.0,\n2,10.0,0.8\n3,20.0,0.9\n4,20.0,0.89\n"
    )
    points = read_points(path)
    assert points == [(20.0, 0.8), (40.0, 0.9), (60.0, 0.89)]
    assert seconds_to(points, 0.85) == 40.0
    assert seconds_to(points, 0.95) is None
    assert seconds_to([Point(5.0, 0.9319999814)], 0.9330000281 - 0.001) == 5.0  # float32
    quick = [Point(10.0, 0.85), Point(21.0, 0.9)]
    first, second = compare(quick, points, tolerance=0.001)
    assert (first.ours, first.theirs, first.verdict) == ([21.0], [40.0], "reached")
    assert second.ratio == 21 / 40
    poor, _ = compare(quick[:1], points, tolerance=0.001)
    assert (poor.ours, poor.verdict) == ([], "missed")
    assert "ours reach 85.00% at most" in poor.note
