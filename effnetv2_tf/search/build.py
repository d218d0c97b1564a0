"""From a search configuration to the objects of a search: space, reward, sampler, pruner."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.flops import stage_table
from effnetv2_tf.models.nasnet_specs import NASNETS, NASNetSpec
from effnetv2_tf.models.stage_costs import StageRow, spec_stages, totals
from effnetv2_tf.search.cell_space import CellSpace
from effnetv2_tf.search.config import SearchConfig
from effnetv2_tf.search.decisions import Space
from effnetv2_tf.search.evolution import EvolutionSampler
from effnetv2_tf.search.rewards import FlopsAware, MultiObjective, Reward, TrainingAware
from effnetv2_tf.search.samplers import ControllerSampler, RandomSampler, SeededByTrial
from effnetv2_tf.search.spaces import FusingSpace, StageSpace
from effnetv2_tf.search.trials import SAME_AS
from effnetv2_tf.training import build
from effnetv2_tf.training.recipe import Recipe


def build_space(config: SearchConfig, proxy: Recipe) -> Space:
    """The configuration's space over the recipe's network.

    Raises:
      UsageError: if it cannot be searched.
    """
    section = config.space
    if section.kind == "cells":
        spec = build.model_spec(proxy.model)
        if not isinstance(spec, NASNetSpec):
            raise UsageError(
                f"space.kind: 'cells' expects the recipe's model.name to be one of "
                f"{', '.join(NASNETS)}, received {proxy.model.name!r}"
            )
        return CellSpace(section.blocks_per_cell, section.operations, spec.genotype)
    backbone = build.network_spec(proxy.model)
    try:
        if section.kind == "fusing":
            return FusingSpace(backbone, section.fused_stages)
        return StageSpace(
            backbone,
            layers=section.layers,
            blocks=section.blocks,
            kernel_sizes=section.kernel_sizes,
            expansions=section.expansions,
            se_ratio=section.se_ratio,
        )
    except ValueError as error:
        raise UsageError(f"space: {error}") from error


def build_reward(config: SearchConfig, proxy: Recipe, num_classes: int, channels: int) -> Reward:
    """The configuration's reward, with the recipe's network as what others are compared to."""
    section = config.reward
    if section.kind == "multi_objective":
        return MultiObjective()
    parameters, multiply_adds = totals(network_rows(proxy, num_classes, channels))
    if section.kind == "flops":
        return FlopsAware(section.target_multiply_adds or multiply_adds, section.exponent)
    return TrainingAware(parameters, section.step_time_exponent, section.parameters_exponent)


def network_rows(recipe: Recipe, classes: int, channels: int) -> tuple[StageRow, ...]:
    """The rows of a recipe's network, see `flops.stage_table`, without an auxiliary head."""
    size = build.evaluation_size(recipe)
    if recipe.model.name not in NASNETS:
        spec = build.network_spec(recipe.model)
        return spec_stages(spec, size, classes=classes, channels=channels)
    model = recipe.model.model_copy(update={"weights": None, "auxiliary_head": None})
    recipe = recipe.model_copy(update={"model": model})
    return stage_table(build.build_model(recipe, classes, channels), size)


def build_sampler(config: SearchConfig, space: Space) -> optuna.samplers.BaseSampler:
    """The configuration's sampler, for the points of `space`."""
    section, seed = config.sampler, config.seed
    if section.kind == "random":
        return RandomSampler(space.decisions, seed)
    if section.kind == "evolution":
        return EvolutionSampler(
            space.decisions, seed, population=section.population, sample=section.sample
        )
    if section.kind == "controller":
        from effnetv2_tf.search.controller import ControllerSettings

        names = ControllerSettings.__dataclass_fields__
        settings = ControllerSettings(**{name: getattr(section, name) for name in names})
        return ControllerSampler(space.decisions, seed, settings)
    if section.kind == "tpe":
        return SeededByTrial(lambda number: optuna.samplers.TPESampler(seed=number), seed)
    return SeededByTrial(
        lambda number: optuna.samplers.NSGAIISampler(
            population_size=section.population, seed=number
        ),
        seed,
    )


def build_pruner(config: SearchConfig) -> optuna.pruners.BasePruner:
    """The rule that ends hopeless trials; none if the configuration has none."""
    section = config.trials.pruning
    if section is None:
        return optuna.pruners.NopPruner()
    return MedianOfTrained(section.startup_trials, section.warmup_epochs)


class MedianOfTrained(optuna.pruners.BasePruner):
    """Optuna's median pruner; trials of a network that was known do not count as started.

    Args:
      startup_trials: see `config.PruningSection`.
      warmup_epochs: likewise.
    """

    def __init__(self, startup_trials: int, warmup_epochs: int) -> None:
        self._startup_trials = startup_trials
        self._median = optuna.pruners.MedianPruner(0, warmup_epochs)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        trained = sum(SAME_AS not in other.user_attrs for other in finished)
        return trained >= self._startup_trials and self._median.prune(study, trial)
