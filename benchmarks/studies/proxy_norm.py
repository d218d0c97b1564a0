"""Proxy-normalised activations over layer norm against batch norm, at three batch sizes.

    python benchmarks/studies/proxy_norm.py

The paper's claim (Labatie et al., arXiv 2106.03743): without batch statistics nothing
depends on the batch size, and the proxy keeps what batch norm gives. The learning rate
is in proportion to the batch.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from common import Case, Run, Study, mean_and_spread, run_study, table

BATCHES = (4, 16, 64)
NORMS = {
    "BN": {"learning_rate.per_256": 0.016, "learning_rate.warmup_epochs": 0.5},
    "LN+PN": {
        "model.normalization": "layer",
        "model.proxy_normalization": True,
        "learning_rate.per_256": 0.008,
        "learning_rate.warmup_epochs": 1.0,
    },
}
# The moving statistics of BN average over as many images at every batch size.
AVERAGED_IMAGES = 640


def momentum(batch: int) -> float:
    """Of BN's moving statistics at a batch size."""
    return 1 - batch / AVERAGED_IMAGES


STUDY = Study(
    "proxy_norm",
    cases=[
        Case(
            f"{norm}, batch {batch}",
            {
                **settings,
                "training.batch_size": batch,
                **({"model.batch_norm_momentum": momentum(batch)} if norm == "BN" else {}),
            },
        )
        for batch in BATCHES
        for norm, settings in NORMS.items()
    ],
    base={
        "data.options": {"train_examples": 8000},
        "training.epochs": 5,
        "training.evaluate_every_epochs": 5,
        "checkpoints.every_epochs": 5,
        "progressive.image_size": [28, 28],
    },
)


def report(study: Study) -> str:
    """A row for each batch size."""
    rows = []
    for batch in BATCHES:
        cells = [str(batch)]
        for norm in NORMS:
            name = f"{norm}, batch {batch}"
            cells.append(mean_and_spread(study.values(name, lambda r: r.accuracy)))
        for norm in NORMS:
            speeds = study.values(f"{norm}, batch {batch}", lambda r: r.images_per_second)
            cells.append(f"{statistics.mean(speeds):.0f}")
        rows.append(cells)
    header = ["batch", *(f"{n}, top-1 %" for n in NORMS), *(f"{n}, images/s" for n in NORMS)]
    return table(header, rows)


def draw(study: Study, path: Path) -> None:
    """Accuracy over batch size, a line for each norm."""
    from pictures import draw_lines

    lines = {
        norm: [study.values(f"{norm}, batch {b}", _accuracy_in_percent) for b in BATCHES]
        for norm in NORMS
    }
    draw_lines(path, BATCHES, lines, "batch size", "test top-1, %", log_x=True)


def _accuracy_in_percent(run: Run) -> float:
    return 100 * run.accuracy


if __name__ == "__main__":
    run_study(STUDY, report, draw)
