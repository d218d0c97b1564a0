"""What is left of a search: the table, the pictures, the best network's recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from effnetv2_tf.errors import TrainingFailure
from effnetv2_tf.files import write_text
from effnetv2_tf.reporting.architecture import draw_architecture
from effnetv2_tf.reporting.architecture_search import draw_front, draw_rewards
from effnetv2_tf.reporting.cells import draw_genotype
from effnetv2_tf.reporting.pareto import Direction, pareto_front
from effnetv2_tf.search.build import network_rows
from effnetv2_tf.search.decisions import Space
from effnetv2_tf.search.rewards import Measurement
from effnetv2_tf.search.trials import (
    INHERITED_FROM,
    MEASUREMENT,
    REASON,
    RETRY_OF,
    REWARD,
    SAME_AS,
    ended,
)
from effnetv2_tf.training.monitors import rows_to_csv
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import dump_recipe

TABLE_NAME = "trials.csv"
BEST_NAME = "best.yaml"
CELLS_NAME = "best_cells.png"
_STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "stopped early"}
_MEASURED = list(Measurement.__dataclass_fields__)


def trial_rows(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
) -> list[dict[str, Any]]:
    """A row for every trial that counts and has ended, in order.

    Args:
      trials: of the study.
      directions: of its objectives; with several, `on_front` says who is not dominated.
    """
    rows = [_row(trial) for trial in ended(trials)]
    if len(directions) == 1:
        return rows
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    words: list[Direction] = [
        "max" if direction == StudyDirection.MAXIMIZE else "min" for direction in directions
    ]
    front = {finished[i].number for i in pareto_front([t.values for t in finished], words)}
    return [{**row, "on_front": row["trial"] in front} for row in rows]


def _row(trial: FrozenTrial) -> dict[str, Any]:
    attributes = trial.user_attrs
    measured = attributes.get(MEASUREMENT, {})
    return {
        "trial": trial.number,
        "state": _STATES.get(trial.state, "failed"),
        REWARD: attributes.get(REWARD),
        **{name: measured.get(name) for name in _MEASURED},
        "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 1),
        **{name: attributes.get(name) for name in (SAME_AS, RETRY_OF, INHERITED_FROM, REASON)},
        **trial.params,
    }


def write_table(
    output: Path, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
) -> list[dict[str, Any]]:
    """Writes trials.csv; returns its rows."""
    output.mkdir(parents=True, exist_ok=True)
    rows = trial_rows(trials, directions)
    write_text(output / TABLE_NAME, rows_to_csv(rows))
    return rows


def best_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The finished row with the highest reward; with several objectives, the highest accuracy.

    Raises:
      TrainingFailure: if none was finished, with the reason of the first.
    """
    finished = [row for row in rows if row["state"] == "finished"]
    if not finished:
        reason = next((row[REASON] for row in rows if row[REASON]), "all were stopped early")
        raise TrainingFailure(
            f"none of {len(rows)} networks could be trained (--retry_failed tries again); the "
            f"first: {reason}"
        )
    if finished[0][REWARD] is not None:
        return max(finished, key=lambda row: row[REWARD])
    return max((row for row in finished if row["on_front"]), key=lambda row: row["accuracy"])


def publish(
    output: Path,
    trials: Sequence[FrozenTrial],
    directions: Sequence[StudyDirection],
    *,
    space: Space,
    recipe: Recipe,
    classes: int,
    channels: int,
) -> dict[str, Any]:
    """Writes table, summary, pictures, and the best network as a recipe; returns the summary.

    Args:
      output: folder of the search.
      trials: of the study.
      directions: of its objectives.
      space: that was searched.
      recipe: that the best network is for.
      classes: of the data.
      channels: of the data.

    Raises:
      TrainingFailure: if no network was trained.
    """
    rows = write_table(output, trials, directions)
    best = best_of(rows)
    draw_rewards(rows, output / "rewards.png", recipe.name)
    draw_front(rows, output / "front.png", recipe.name)
    names = [decision.name for decision in space.decisions]
    chosen = space.recipe(space.decode({name: best[name] for name in names}), recipe)
    chosen = chosen.model_copy(update={"name": f"{recipe.name}, searched"})
    write_text(output / BEST_NAME, dump_recipe(chosen))
    title = f"{chosen.name}: trial {best['trial']}"
    draw_architecture(network_rows(chosen, classes, channels), output / "best.png", title)
    if chosen.model.genotype is not None:
        draw_genotype(chosen.model.genotype.genotype, output / CELLS_NAME, title)
    states = [row["state"] for row in rows]
    summary = {
        "best": best,
        "trials": len(rows),
        **{state.replace(" ", "_"): states.count(state) for state in sorted(set(states))},
        "results": rows,
    }
    write_text(output / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary
