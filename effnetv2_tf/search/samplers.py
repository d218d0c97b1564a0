"""Searchers as Optuna samplers: whatever engine, storage and workers do, they can propose.

None keeps state beside the study: what is proposed for trial n is a function of the seed, n, and
the trials that were finished by then, on whatever machine. Trials that are made again have no n of
their own. So a killed search goes on as it was.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from effnetv2_tf.search.decisions import Choice, Decision
from effnetv2_tf.search.trials import position, reward_of


def distributions(decisions: Sequence[Decision]) -> dict[str, BaseDistribution]:
    """Optuna's form of decisions."""
    return {decision.name: CategoricalDistribution(decision.choices) for decision in decisions}


def learned_from(study: optuna.Study) -> list[tuple[dict[str, Choice], float]]:
    """Choices and rewards of the trials that ended well or were stopped early, as they ended.

    Failed trials are left out: what they failed of need not lie in the network.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=states)
    trials.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    rewarded = ((trial.params, reward_of(trial)) for trial in trials)
    return [(choices, reward) for choices, reward in rewarded if reward is not None]


class PointSampler(optuna.samplers.BaseSampler):
    """Base of our samplers: decides on all decisions of a point at once.

    Args:
      decisions: of the space.
      seed: of the random numbers; each trial has a stream of its own.
    """

    def __init__(self, decisions: Sequence[Decision], seed: int = 0) -> None:
        self.decisions = tuple(decisions)
        self._seed = seed
        self._distributions = distributions(decisions)

    @abc.abstractmethod
    def propose(
        self, history: Sequence[tuple[Mapping[str, Choice], float]], rng: np.random.Generator
    ) -> dict[str, Choice]:
        """A choice for every decision.

        Args:
          history: choices and rewards of the finished trials, in the order they ended.
          rng: of this trial alone.
        """

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        number = position(study.get_trials(deepcopy=False), trial.number)
        return self.propose(learned_from(study), np.random.default_rng([self._seed, number]))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise ValueError(
            f"{type(self).__name__}: {param_name!r} is no decision of the space; expected one of "
            f"{', '.join(self._distributions)}"
        )


class SeededByTrial(optuna.samplers.BaseSampler):
    """One of Optuna's own samplers, made anew for every trial with a seed of the trial's own.

    Theirs begin their random numbers anew in every process: workers that begin at once would
    propose the same, and a search that goes on what it proposed before.

    Args:
      make: a sampler with the given seed.
      seed: of the search.
    """

    def __init__(self, make: Callable[[int], optuna.samplers.BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._sampler = make(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        number = position(study.get_trials(deepcopy=False), trial.number)
        words = np.random.SeedSequence([self._seed, number]).generate_state(1)
        self._sampler = self._make(int(words[0]))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


class RandomSampler(PointSampler):
    """Every point is as likely as another, whatever was found."""

    def propose(
        self, history: Sequence[tuple[Mapping[str, Choice], float]], rng: np.random.Generator
    ) -> dict[str, Choice]:
        return random_point(self.decisions, rng)


class ControllerSampler(PointSampler):
    """The LSTM controller trained by PPO, see `controller.Controller`.

    Every `batch_size` finished trials it is updated once. A fresh process makes the updates of
    all trials before again; on one kind of machine that gives the same controller.

    Args:
      decisions: of the space.
      seed: of the random numbers and the controller's initial weights.
      settings: `controller.ControllerSettings`, or None for its defaults.
    """

    def __init__(
        self, decisions: Sequence[Decision], seed: int = 0, settings: Any | None = None
    ) -> None:
        # Not above: it imports TensorFlow, which the other samplers do without.
        from effnetv2_tf.search.controller import Controller

        super().__init__(decisions, seed)
        self._controller = Controller(self.decisions, settings, seed)
        self._learned = 0

    def propose(
        self, history: Sequence[tuple[Mapping[str, Choice], float]], rng: np.random.Generator
    ) -> dict[str, Choice]:
        size = self._controller.settings.batch_size
        while self._learned + size <= len(history):
            batch = history[self._learned : self._learned + size]
            points = np.array([self._indices(choices) for choices, _ in batch])
            self._controller.learn(points, np.array([reward for _, reward in batch]))
            self._learned += size
        indices = self._controller.sample(rng)
        return {d.name: d.choices[i] for d, i in zip(self.decisions, indices, strict=True)}

    def _indices(self, choices: Mapping[str, Choice]) -> list[int]:
        return [decision.choices.index(choices[decision.name]) for decision in self.decisions]


def random_point(decisions: Sequence[Decision], rng: np.random.Generator) -> dict[str, Choice]:
    """A choice for every decision, all equally likely."""
    return {d.name: d.choices[rng.integers(len(d.choices))] for d in decisions}
