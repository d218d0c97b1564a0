"""Training at about half the pixels, then fine-tuning at the test size, against native training.

    python benchmarks/studies/reduced_resolution.py

After Masters et al., arXiv 2106.03640. The accuracy of the reduced runs before fine-tuning is
that of the network trained at the reduced size, tested at the test size.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from common import Case, Study, mean_and_spread, run_study, table

TEST_SIZE, REDUCED_SIZE, EPOCHS = 48, 32, 5


def reduced(fine_tune: str | int) -> dict:
    """Settings of training at the reduced size."""
    return {
        "progressive.image_size": [REDUCED_SIZE, REDUCED_SIZE],
        "reduced_resolution": {
            "modulo": 8,
            "fine_tune_epochs": 2,
            "fine_tune": fine_tune,
            "learning_rate_per_256": 0.01,
        },
    }


STUDY = Study(
    "reduced_resolution",
    cases=[
        Case("native", {"progressive.image_size": [TEST_SIZE, TEST_SIZE]}),
        Case("reduced, top", reduced("top")),
        Case("reduced, top and two blocks", reduced(2)),
    ],
    base={
        "data.options": {"train_examples": 5000},
        "data.eval_size": TEST_SIZE,
        "training.epochs": EPOCHS,
        "training.evaluate_every_epochs": EPOCHS,
        "checkpoints.every_epochs": EPOCHS,
    },
)


def report(study: Study) -> str:
    """A row for each way to train."""
    native = statistics.mean(study.values("native", lambda r: r.seconds))
    rows = []
    for case in study.cases:
        seconds = study.values(case.name, lambda r: r.seconds)
        before = "" if case.name == "native" else mean_and_spread(_before(study, case))
        rows.append(
            [
                case.name,
                str(int(study.runs[case.name][0].history[-1]["epoch"])),
                before,
                mean_and_spread(study.values(case.name, lambda r: r.accuracy)),
                mean_and_spread(seconds, "s"),
                f"{statistics.mean(seconds) / native:.2f}",
            ]
        )
    header = ["training", "epochs", "before fine-tuning, top-1 %", "top-1 %", "s", "of native"]
    return table(header, rows)


def _before(study: Study, case: Case) -> list[float]:
    return study.values(case.name, lambda run: run.accuracy_after(EPOCHS))


def draw(study: Study, path: Path) -> None:
    """Accuracy over training seconds."""
    from pictures import draw_trade_off

    points = {
        case.name: (
            study.values(case.name, lambda r: r.seconds),
            study.values(case.name, lambda r: 100 * r.accuracy),
        )
        for case in study.cases
    }
    draw_trade_off(path, points, "processor seconds of training", "test top-1, %")


if __name__ == "__main__":
    run_study(STUDY, report, draw)
