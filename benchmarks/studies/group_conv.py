"""Group convolutions (16 channels a group) against depthwise ones at equal parameters.

    python benchmarks/studies/group_conv.py

Masters et al. (arXiv 2106.03640) lower the expansion from 6 to 4 to pay for the groups. Here
that leaves the grouped network larger, so the depthwise one gets another block, or wider last
stages. All have batch norm.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from common import Case, Study, mean_and_spread, run_study, table


def stages(
    expansion: int, repeats: tuple[int, ...], filters: tuple[int, ...]
) -> list[dict[str, float | str]]:
    """MBConv stages with squeeze-excite; the first has expansion 1."""
    return [
        {
            "block": "mbconv",
            "stride": stride,
            "expansion": 1 if stride_index == 0 else expansion,
            "filters": width,
            "repeats": count,
            "se_ratio": 0.25,
        }
        for stride_index, (stride, count, width) in enumerate(
            zip((1, 2, 2, 1), repeats, filters, strict=True)
        )
    ]


STUDY = Study(
    "group_conv",
    cases=[
        Case(
            "G16",
            {
                "model.stages": stages(4, (1, 1, 2, 1), (16, 32, 48, 64)),
                "model.group_size": 16,
            },
        ),
        Case("G1 deeper", {"model.stages": stages(6, (1, 1, 3, 1), (16, 32, 48, 64))}),
        Case("G1 wider", {"model.stages": stages(6, (1, 1, 2, 1), (16, 32, 56, 88))}),
    ],
    base={
        "data.options": {"train_examples": 6000},
        "training.epochs": 5,
        "training.evaluate_every_epochs": 5,
        "checkpoints.every_epochs": 5,
        "progressive.image_size": [32, 32],
        "learning_rate.per_256": 0.016,
    },
)


def report(study: Study) -> str:
    """A row for each network."""
    rows = [
        [
            case.name,
            f"{study.runs[case.name][0].summary['parameters']:,}",
            f"{multiply_adds(study, case) / 1e6:.2f}",
            mean_and_spread(study.values(case.name, lambda r: r.accuracy)),
            f"{statistics.mean(study.values(case.name, lambda r: r.images_per_second)):.0f}",
        ]
        for case in study.cases
    ]
    return table(["network", "parameters", "M multiply-adds", "top-1 %", "images/s"], rows)


def multiply_adds(study: Study, case: Case) -> int:
    """Of one image of Fashion-MNIST at the training size."""
    from effnetv2_tf.models.stage_costs import spec_stages, totals
    from effnetv2_tf.training.build import network_spec

    recipe = study.recipe(case, 0)
    size = recipe.progressive.last_size
    return totals(spec_stages(network_spec(recipe.model), size, classes=10, channels=1))[1]


def draw(study: Study, path: Path) -> None:
    """Accuracy over the time of a thousand images."""
    from pictures import draw_trade_off

    points = {
        case.name: (
            study.values(case.name, lambda r: 1000 / r.images_per_second),
            study.values(case.name, lambda r: 100 * r.accuracy),
        )
        for case in study.cases
    }
    draw_trade_off(path, points, "processor seconds for 1,000 training images", "test top-1, %")


if __name__ == "__main__":
    run_study(STUDY, report, draw)
