"""Search configurations: the typed form of `configs/search_*.yaml`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.genotypes import OPERATIONS, Operation
from effnetv2_tf.models.specs import BlockKind
from effnetv2_tf.search import rewards, step_time
from effnetv2_tf.search.spaces import PAPER_BLOCKS, PAPER_EXPANSIONS, PAPER_KERNELS
from effnetv2_tf.training.recipe import (
    NonNegative,
    Positive,
    PositiveInt,
    Rate,
    Recipe,
    Section,
)
from effnetv2_tf.training.recipe_files import (
    apply_override,
    find_file,
    load_recipe,
    parse_section,
    read_tree,
)

_OF_RECIPES = ("overrides", "proxy")  # whose keys are those of a recipe, with dots
_PROXY_MODEL_KEYS = ("model.dropout_rate", "model.drop_path_rate")
SINGLE_OBJECTIVE_SAMPLERS = ("evolution", "controller")


_KEYS_OF_SPACES = {
    "stages": ("layers", "blocks", "kernel_sizes", "expansions", "se_ratio"),
    "fusing": ("fused_stages",),
    "cells": ("blocks_per_cell", "operations"),
}
_KEYS_OF_REWARDS = {
    "training_aware": ("step_time_exponent", "parameters_exponent"),
    "flops": ("exponent", "target_multiply_adds"),
    "multi_objective": (),
}
NotPositive = Annotated[float, Field(le=0)]


def _refuse_idle_keys(section: Section, kind: str, keys: Mapping[str, Sequence[str]]) -> None:
    """Raises a ValueError for a key that was given and is of another kind."""
    for key in sorted(section.model_fields_set - {"kind", *keys[kind]}):
        owners = " or ".join(repr(name) for name, theirs in keys.items() if key in theirs)
        raise ValueError(f"{key}: expected with kind {owners} alone, received it with {kind!r}")


class SpaceSection(Section):
    """What can be chosen; see `spaces.StageSpace`, `spaces.FusingSpace`, `cell_space.CellSpace`.

    `layers` to `se_ratio` are of `stages`, `fused_stages` of `fusing`, the rest of `cells`. The
    recipe's network is the backbone; for `cells` it is a NASNet.
    """

    kind: Literal["stages", "fusing", "cells"]
    layers: tuple[PositiveInt, ...] | None = None
    blocks: tuple[BlockKind, ...] = PAPER_BLOCKS
    kernel_sizes: tuple[PositiveInt, ...] = PAPER_KERNELS
    expansions: tuple[PositiveInt, ...] = PAPER_EXPANSIONS
    se_ratio: Annotated[float, Field(ge=0, le=1)] = 0.25
    fused_stages: tuple[Annotated[int, Field(ge=0)], ...] = (0, 3, 5, 7)
    blocks_per_cell: PositiveInt = 5
    operations: tuple[Operation, ...] = OPERATIONS

    @model_validator(mode="after")
    def _no_keys_of_others(self) -> SpaceSection:
        _refuse_idle_keys(self, self.kind, _KEYS_OF_SPACES)
        return self

    @field_validator("layers", "blocks", "kernel_sizes", "expansions", "fused_stages", "operations")
    @classmethod
    def _not_empty(cls, value: tuple | None) -> tuple | None:
        if value is not None and not value:
            raise ValueError("expected at least one choice, received none: the space is empty")
        if value is not None and len(set(value)) < len(value):
            raise ValueError(f"expected choices that differ, received {list(value)}")
        return value


class RewardSection(Section):
    """See `rewards`.

    The exponents of `training_aware` and that of `flops` are at most 0: costs lower a reward.
    `target_multiply_adds` is for the size at which the proxy is evaluated, as are those of the
    trials; None stands for the backbone's.
    """

    kind: Literal["training_aware", "flops", "multi_objective"] = "training_aware"
    step_time_exponent: NotPositive = rewards.STEP_TIME_EXPONENT
    parameters_exponent: NotPositive = rewards.PARAMETERS_EXPONENT
    exponent: NotPositive = rewards.MULTIPLY_ADDS_EXPONENT
    target_multiply_adds: Positive | None = None

    @model_validator(mode="after")
    def _no_keys_of_others(self) -> RewardSection:
        _refuse_idle_keys(self, self.kind, _KEYS_OF_REWARDS)
        return self


class StepTimeSection(Section):
    """See `step_time.Timing`."""

    warmup_steps: PositiveInt = 3
    steps: PositiveInt = 4
    rounds: Annotated[int, Field(ge=2)] = 5
    tolerance: Positive = 0.05
    most_rounds: Annotated[int, Field(ge=2)] = 20
    clock: step_time.Clock = "wall"

    @model_validator(mode="after")
    def _rounds_enough(self) -> StepTimeSection:
        if self.most_rounds < self.rounds:
            raise ValueError(
                f"most_rounds: expected at least rounds ({self.rounds}), received "
                f"{self.most_rounds}"
            )
        return self


class SamplerSection(Section):
    """Who proposes. `population` and `sample` are evolution's (the first NSGA-II's too).

    The rest is the controller's, see `controller.ControllerSettings`.
    """

    kind: Literal["random", "evolution", "controller", "tpe", "nsga2"] = "random"
    population: Annotated[int, Field(ge=2)] = 20
    sample: PositiveInt = 5
    units: PositiveInt = 64
    embedding: PositiveInt = 16
    learning_rate: Positive = 0.02
    batch_size: PositiveInt = 10
    epochs: PositiveInt = 5
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    entropy: NonNegative = 0.2
    baseline_decay: Rate = 0.95

    @model_validator(mode="after")
    def _a_sample_of_the_population(self) -> SamplerSection:
        if self.sample > self.population:
            raise ValueError(
                f"sample: expected at most population ({self.population}), received {self.sample}"
            )
        return self


class PruningSection(Section):
    """Ends a trial whose reward is under the median of the finished ones' at the same epoch.

    Not before `startup_trials` have been trained to their end and the trial has made
    `warmup_epochs`, and not after its last epoch.
    """

    startup_trials: PositiveInt = 5
    warmup_epochs: PositiveInt = 1


class TrialsSection(Section):
    """How many networks are tried, and what each may use; None for no limit.

    `inherit_weights` begins a trial with the tensors that fit of the nearest finished one; later
    trials then have in effect been trained for longer, so rewards tend to grow with the number.
    """

    number: PositiveInt
    start_with_backbone: bool = True
    time_limit_minutes: Positive | None = None
    memory_limit_gib: Positive | None = None
    pruning: PruningSection | None = None
    inherit_weights: bool = False


class SearchConfig(Section):
    """One search.

    `recipe` is the file of the recipe that the winner is for; its network is the backbone.
    `overrides` sets keys of it (`model.stem_stride: 1`), `proxy` sets keys for the short
    training of the trials alone, where the network stays the same but for its drop rates.
    """

    name: str
    seed: Annotated[int, Field(ge=0)] = 0
    recipe: str
    overrides: dict[str, Any] = Field(default_factory=dict)
    proxy: dict[str, Any] = Field(default_factory=dict)
    space: SpaceSection
    reward: RewardSection = Field(default_factory=RewardSection)
    step_time: StepTimeSection = Field(default_factory=StepTimeSection)
    sampler: SamplerSection = Field(default_factory=SamplerSection)
    trials: TrialsSection

    @field_validator("proxy")
    @classmethod
    def _keeps_the_network(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key.split(".")[0] == "model" and key not in _PROXY_MODEL_KEYS:
                raise ValueError(
                    f"{key}: expected no key of the network, which would not be the winner's; "
                    "set it in overrides"
                )
        return value

    @model_validator(mode="after")
    def _objectives_fit(self) -> SearchConfig:
        if self.reward.kind != "multi_objective":
            return self
        if self.sampler.kind in SINGLE_OBJECTIVE_SAMPLERS:
            raise ValueError(
                "sampler.kind: expected 'random', 'tpe' or 'nsga2' with reward.kind "
                f"'multi_objective', received {self.sampler.kind!r}, which needs one reward"
            )
        if self.trials.pruning is not None:
            raise ValueError(
                "trials.pruning: expected none with reward.kind 'multi_objective': no one of the "
                "objectives tells which trial is hopeless"
            )
        return self

    @property
    def needs_step_time(self) -> bool:
        """Whether the reward is made of the training step's time."""
        return self.reward.kind in ("training_aware", "multi_objective")


@dataclass(frozen=True)
class SearchJob:
    """A search, as it is handed to its workers.

    Attributes:
      config: of the search.
      study: its name in the storage.
      storage: URL.
      output: folder of the runs, the table and the pictures.
      budget: trials in all, those of earlier sessions and other workers included.
    """

    config: SearchConfig
    study: str
    storage: str
    output: Path
    budget: int


def load_search(path: str | Path, overrides: Sequence[str] = ()) -> SearchConfig:
    """Reads a search configuration; as `recipe_files.load_recipe` reads a recipe."""
    found = find_file(Path(path))
    tree = read_tree(found)
    for override in overrides:
        apply_override(tree, override, flat=_OF_RECIPES)
    return parse_section(SearchConfig, tree, str(found))


def load_recipes(config: SearchConfig) -> tuple[Recipe, Recipe]:
    """The recipe that the winner is for, and the proxy that the trials are trained by.

    Raises:
      UsageError: if there is no such recipe, one names weights, which fit one network alone, or
        trials could not be ended early as they should be.
    """
    overrides, proxy_overrides = (
        [f"{key}={json.dumps(value)}" for key, value in values.items()]
        for values in (config.overrides, config.proxy)
    )
    recipe = load_recipe(config.recipe, overrides)
    proxy = load_recipe(config.recipe, overrides + proxy_overrides)
    if proxy.model.weights is not None:
        raise UsageError(
            f"recipe: {config.recipe}: model.weights: expected none, received "
            f"{proxy.model.weights!r}: the networks of a search differ, so no weights fit them all"
        )
    every, epochs = proxy.training.evaluate_every_epochs, proxy.training.epochs
    if config.trials.pruning is not None and every >= epochs:
        raise UsageError(
            f"proxy: training.evaluate_every_epochs: expected less than training.epochs ({epochs}) "
            f"with trials.pruning, received {every}: no trial would be looked at before its end"
        )
    return recipe, proxy
