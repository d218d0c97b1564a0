"""RandAugment's magnitude against the image size: do small images want weaker augmentation?

    python benchmarks/studies/randaugment_size.py

EfficientNetV2's paper (Tan & Le, arXiv 2104.00298, table 5): at 128 px magnitude 5 is best of
5, 10 and 15, at 300 px magnitude 15. Training images are few, and seen often, so that there is
something to regularise.
"""

from __future__ import annotations

from pathlib import Path

from common import Case, Run, Study, mean_and_spread, run_study, table

SIZES = (20, 40)
MAGNITUDES = (0, 5, 10)


def case_name(size: int, magnitude: int) -> str:
    """Of a cell of the table."""
    return f"{size} px, magnitude {magnitude}"


STUDY = Study(
    "randaugment_size",
    cases=[
        Case(
            case_name(size, magnitude),
            {
                "progressive.image_size": [size, size],
                "progressive.randaugment_magnitude": [magnitude, magnitude],
            },
        )
        for size in SIZES
        for magnitude in MAGNITUDES
    ],
    base={
        "data.options": {"train_examples": 2000},
        "data.augmentation.policy": "randaugment",
        "training.batch_size": 25,
        "training.epochs": 10,
        "training.evaluate_every_epochs": 10,
        "checkpoints.every_epochs": 10,
        "learning_rate.warmup_epochs": 1.0,
    },
)


def report(study: Study) -> str:
    """A row for each size: test accuracy, and the accuracy on the last epoch's augmented images."""
    rows = [
        [
            str(size),
            *(_cell(study, size, magnitude, lambda r: r.accuracy) for magnitude in MAGNITUDES),
            *(_cell(study, size, magnitude, _training_accuracy) for magnitude in MAGNITUDES),
        ]
        for size in SIZES
    ]
    header = ["px", *(f"test, {m}" for m in MAGNITUDES), *(f"training, {m}" for m in MAGNITUDES)]
    return table(header, rows)


def _cell(study: Study, size: int, magnitude: int, of) -> str:
    return mean_and_spread(study.values(case_name(size, magnitude), of))


def _training_accuracy(run: Run) -> float:
    return float(run.history[-1]["accuracy"])


def draw(study: Study, path: Path) -> None:
    """Accuracy over magnitude, a line for each size."""
    from pictures import draw_lines

    lines = {
        f"{size} px": [
            study.values(case_name(size, m), lambda r: 100 * r.accuracy) for m in MAGNITUDES
        ]
        for size in SIZES
    }
    draw_lines(path, MAGNITUDES, lines, "RandAugment magnitude", "test top-1, %")


if __name__ == "__main__":
    run_study(STUDY, report, draw)
