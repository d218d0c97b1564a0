"""Regularised evolution as an Optuna sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from effnetv2_tf.search.decisions import Choice, Decision
from effnetv2_tf.search.samplers import PointSampler, random_point


class EvolutionSampler(PointSampler):
    """Regularised evolution (Real et al., arXiv 1802.01548): tournaments, and death by age.

    The population is the latest finished trials. The best of a random sample of it is the
    parent; one of its decisions is taken anew.

    Args:
      decisions: of the space.
      seed: of the random numbers.
      population: trials that are alive; as many are drawn at random first.
      sample: size of a tournament.

    Raises:
      ValueError: unless 1 <= sample <= population.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        seed: int = 0,
        *,
        population: int = 20,
        sample: int = 5,
    ) -> None:
        super().__init__(decisions, seed)
        if not 1 <= sample <= population:
            raise ValueError(
                f"EvolutionSampler: `sample` must lie in 1 .. {population} (`population`). "
                f"Received: {sample}."
            )
        self._population = population
        self._sample = sample
        # A decision with a single choice cannot be taken anew.
        self._open = [decision for decision in self.decisions if len(decision.choices) > 1]

    def propose(
        self, history: Sequence[tuple[Mapping[str, Choice], float]], rng: np.random.Generator
    ) -> dict[str, Choice]:
        if len(history) < self._population or not self._open:
            return random_point(self.decisions, rng)
        alive = history[-self._population :]
        entrants = rng.choice(len(alive), size=self._sample, replace=False)
        parent, _ = max((alive[index] for index in entrants), key=lambda member: member[1])
        decision = self._open[rng.integers(len(self._open))]
        others = [choice for choice in decision.choices if choice != parent[decision.name]]
        return {**parent, decision.name: others[rng.integers(len(others))]}
