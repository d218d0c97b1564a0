"""What searchers see of a space: decisions, each with a name and its choices."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from effnetv2_tf.errors import suggestion
from effnetv2_tf.training.recipe import Recipe

Choice = str | int
Point = TypeVar("Point")


@dataclass(frozen=True)
class Decision:
    """One thing to be decided.

    Attributes:
      name: e.g. `stage2.kernel_size`.
      choices: what it can be, in a fixed order.
    """

    name: str
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError(
                f"Decision: `choices` of {self.name!r} is empty: no network could be made. "
                "Give at least one choice."
            )
        if len(set(self.choices)) != len(self.choices):
            raise ValueError(
                f"Decision: `choices` of {self.name!r} must differ. Received: {self.choices}."
            )


class Space(abc.ABC, Generic[Point]):
    """A set of networks, each a frozen dataclass (`Point`), spelled as a list of decisions."""

    @property
    @abc.abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """In the order in which a controller takes them."""

    @abc.abstractmethod
    def decode(self, choices: Mapping[str, Choice]) -> Point:
        """The point of a choice for every decision, by name.

        Raises:
          ValueError: if a decision is missing, unknown, or chosen as it cannot be.
        """

    @abc.abstractmethod
    def encode(self, point: Point) -> dict[str, Choice]:
        """The choice for every decision that makes `point`; the inverse of `decode`.

        Raises:
          ValueError: if the point lies outside the space.
        """

    @abc.abstractmethod
    def recipe(self, point: Point, recipe: Recipe) -> Recipe:
        """`recipe` for the network of `point`."""

    @abc.abstractmethod
    def backbone_point(self) -> Point | None:
        """The point that is the backbone unchanged; None if the space does not have it."""

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(len(decision.choices) for decision in self.decisions)

    def check(self, choices: Mapping[str, Choice]) -> None:
        """Raises a ValueError unless `choices` has a valid choice for exactly every decision."""
        names = [decision.name for decision in self.decisions]
        for name in choices:
            if name not in names:
                raise ValueError(
                    f"{type(self).__name__}: unknown decision {name!r}{suggestion(name, names)}"
                )
        for decision in self.decisions:
            if decision.name not in choices:
                raise ValueError(f"{type(self).__name__}: no choice for {decision.name!r}")
            if choices[decision.name] not in decision.choices:
                raise ValueError(
                    f"{type(self).__name__}: {decision.name!r} must be one of "
                    f"{decision.choices}. Received: {choices[decision.name]!r}."
                )


def check_not_empty(decisions: tuple[Decision, ...], name: str) -> None:
    """Raises a ValueError if there is nothing to decide."""
    if not decisions:
        raise ValueError(f"{name}: the space is empty: expected at least one decision.")
