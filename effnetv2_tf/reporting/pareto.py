"""Pareto fronts: what cannot be bettered in one respect without a loss in another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Direction = Literal["min", "max"]


def pareto_front(
    points: Sequence[Sequence[float]], directions: Sequence[Direction]
) -> tuple[int, ...]:
    """Indices of the points that no other point dominates, in ascending order.

    A point dominates another if it is as good in every objective and better in one. Equal
    points do not dominate each other: all of them are in the front, or none.

    Args:
      points: a row of numbers for each, one number for every objective.
      directions: of each objective, whether `"min"` or `"max"` is better.

    Raises:
      ValueError: if a row has another length, a number is not a number, or a direction is
        unknown.
    """
    signs = [_sign(direction) for direction in directions]
    losses = [_losses(index, point, signs) for index, point in enumerate(points)]
    return tuple(
        index
        for index, point in enumerate(losses)
        if not any(_dominates(other, point) for other in losses)
    )


def _sign(direction: str) -> float:
    if direction not in ("min", "max"):
        raise ValueError(f"`directions` must be 'min' or 'max'. Received: {direction!r}.")
    return 1.0 if direction == "min" else -1.0


def _losses(index: int, point: Sequence[float], signs: Sequence[float]) -> list[float]:
    if len(point) != len(signs):
        raise ValueError(
            f"`points` must hold {len(signs)} numbers each, one for every direction. Received: "
            f"points[{index}]={list(point)}."
        )
    if any(math.isnan(value) for value in point):
        raise ValueError(
            f"`points` must hold numbers that can be compared. Received: points[{index}]="
            f"{list(point)}; leave such points out."
        )
    return [sign * value for sign, value in zip(signs, point, strict=True)]


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    as_good = all(a <= b for a, b in zip(first, second, strict=True))
    return as_good and any(a < b for a, b in zip(first, second, strict=True))
