"""Evaluation of one trial: from choices to objectives, by a short training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from effnetv2_tf.errors import TrainingFailure
from effnetv2_tf.search.config import SearchConfig
from effnetv2_tf.search.decisions import Space
from effnetv2_tf.search.rewards import Measurement, Reward
from effnetv2_tf.search.step_time import Timing
from effnetv2_tf.search.trial_process import TrialTask, try_recipe
from effnetv2_tf.search.trials import (
    FOLDER,
    INHERITED_FROM,
    MEASUREMENT,
    REASON,
    RETRY_OF,
    REWARD,
    SAME_AS,
    is_set_aside,
)
from effnetv2_tf.training.isolated_run import Limits, run_isolated
from effnetv2_tf.training.recipe import Recipe

# As `run_isolated(try_recipe, ...)`: the task, its limits, what listens; gives the result.
Try = Callable[[TrialTask, Limits, Callable[[Any], None]], dict[str, Any]]


def try_isolated(task: TrialTask, limits: Limits, listen: Callable[[Any], None]) -> dict[str, Any]:
    """Tries a recipe in a process of its own, see `trial_process.try_recipe`."""
    return run_isolated(try_recipe, (task,), task.folder, limits=limits, listen=listen)


class Evaluation:
    """Evaluates the trials of a study.

    What comes of a trial is in its user attributes: `measurement` (a `rewards.Measurement`),
    `reward`, `folder`, and `same_as` for a network that was measured before and is not
    trained again.

    Args:
      config: of the search.
      space: of the networks.
      reward: from a measurement to the objectives.
      proxy: what the trials are trained by.
      output: folder of the search; the runs' folders are made in its `trials`.
      try_task: does the work; another one for tests.
    """

    def __init__(
        self,
        config: SearchConfig,
        space: Space,
        reward: Reward,
        proxy: Recipe,
        output: Path,
        try_task: Try = try_isolated,
    ) -> None:
        self._space = space
        self._reward = reward
        self._proxy = proxy
        self._output = output
        self._try_task = try_task
        self._backbone = proxy if config.needs_step_time else None
        self._timing = Timing(**config.step_time.model_dump())
        self._inherits = config.trials.inherit_weights
        self._single = len(reward.directions) == 1
        minutes, gib = config.trials.time_limit_minutes, config.trials.memory_limit_gib
        self._limits = Limits(
            None if minutes is None else minutes * 60, None if gib is None else int(gib * 2**30)
        )

    def decide(self, trial: optuna.Trial) -> dict[str, Any]:
        """The trial's choices, which its records have from then on."""
        return {
            decision.name: trial.suggest_categorical(decision.name, decision.choices)
            for decision in self._space.decisions
        }

    def __call__(self, trial: optuna.Trial, choices: Mapping[str, Any]) -> tuple[float, ...]:
        """The objectives of a trial with these choices.

        Raises:
          TrainingFailure: with the reason, if the network could not be trained within limits.
          optuna.TrialPruned: if the trial is hopeless.
          RunStopped: if this process was asked to stop.
        """
        trials = trial.study.get_trials(deepcopy=False)
        known = tried_before(trials, choices, failed=RETRY_OF not in trial.user_attrs)
        if known is not None:
            return self._record_known(trial, known)
        folder = trial.user_attrs.get(FOLDER) or f"trials/{trial.number:05d}"
        trial.set_user_attr(FOLDER, folder)
        recipe = self._space.recipe(self._space.decode(choices), self._proxy)
        name = f"{self._proxy.name}, {folder}"
        task = TrialTask(
            recipe.model_copy(update={"name": name}),
            self._output / folder,
            self._backbone,
            self._timing,
            self._output / "step_times.json",
            self._neighbour(trial, choices, trials) if self._inherits else None,
        )
        measured: dict[str, Any] = {}
        result = self._try_task(task, self._limits, lambda news: self._note(trial, measured, news))
        return self._record(trial, {**measured, "accuracy": result["accuracy"]})

    def _record_known(self, trial: optuna.Trial, known: FrozenTrial) -> tuple[float, ...]:
        """Takes over what an earlier trial of the same network came to."""
        trial.set_user_attr(SAME_AS, known.number)
        if known.state == TrialState.FAIL:
            raise TrainingFailure(known.user_attrs[REASON])
        objectives = self._record(trial, known.user_attrs[MEASUREMENT])
        if known.state == TrialState.PRUNED:
            raise optuna.TrialPruned(f"as hopeless as trial {known.number}")
        return objectives

    def _note(self, trial: optuna.Trial, measured: dict[str, Any], news: dict[str, Any]) -> None:
        """Takes down what the trial's process tells; ends a hopeless trial."""
        if "epoch" not in news:
            measured |= news
            return
        if not self._single:
            return  # the engine has no rule for several objectives
        so_far = {**measured, "accuracy": news["accuracy"]}
        # The reward, not the accuracy: a fast or small network may be the best of all with less.
        trial.report(self._reward(Measurement(**so_far))[0], news["epoch"])
        if news["epoch"] < self._proxy.training.epochs and trial.should_prune():
            self._record(trial, so_far)
            raise optuna.TrialPruned(f"hopeless after epoch {news['epoch']}")

    def _record(self, trial: optuna.Trial, values: Mapping[str, Any]) -> tuple[float, ...]:
        measurement = Measurement(**values)
        objectives = self._reward(measurement)
        trial.set_user_attr(MEASUREMENT, asdict(measurement))
        if self._single:
            trial.set_user_attr(REWARD, objectives[0])
        return objectives

    def _neighbour(
        self, trial: optuna.Trial, choices: Mapping[str, Any], trials: list[FrozenTrial]
    ) -> Path | None:
        """Folder of the finished trial that differs in the fewest decisions, the latest of them.

        A trial that is made again keeps the one that it began with.
        """
        finished = [t for t in trials if t.state == TrialState.COMPLETE]
        before = [t for t in finished if t.number == trial.user_attrs.get(INHERITED_FROM)]
        finished = before or finished
        near = [t for t in finished if (self._output / t.user_attrs.get(FOLDER, "-")).is_dir()]
        if not near:
            return None
        nearest = min(near, key=lambda t: (differences(t.params, choices), -t.number))
        trial.set_user_attr(INHERITED_FROM, nearest.number)
        return self._output / nearest.user_attrs[FOLDER]


def tried_before(
    trials: Sequence[FrozenTrial], choices: Mapping[str, Any], *, failed: bool
) -> FrozenTrial | None:
    """The trial of the same network that tells most: finished, stopped early, or failed.

    Args:
      trials: of the study.
      choices: of the network.
      failed: whether a failed trial will do.
    """
    states = [TrialState.COMPLETE, TrialState.PRUNED, *([TrialState.FAIL] if failed else [])]
    same = (t for t in trials if t.state in states and t.params == choices and not is_set_aside(t))
    return min(same, key=lambda t: states.index(t.state), default=None)


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> int:
    """Number of decisions that two networks were decided differently in."""
    return sum(first.get(name) != choice for name, choice in second.items())
