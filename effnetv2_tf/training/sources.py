"""From a recipe's data section to its two splits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from effnetv2_tf.data.sources import (
    KINDS,
    DataError,
    Source,
    TooManyBadRecords,
    open_source,
    split_names,
)
from effnetv2_tf.errors import UsageError
from effnetv2_tf.training.recipe import AUTO_SPLIT, Recipe

_HELD_OUT = ("validation", "test")  # what `auto` takes, in this order


@dataclass(frozen=True)
class Sources:
    """The two splits of a recipe."""

    train: Source
    evaluation: Source

    @property
    def by_name(self) -> dict[str, Source]:
        """Both, as reports call them."""
        return {"train": self.train, "evaluation": self.evaluation}


def open_sources(recipe: Recipe) -> Sources:
    """Opens the training and the evaluation split.

    Raises:
      UsageError: if there is no such data, or it disagrees with the recipe.
    """
    train = open_split(recipe, recipe.data.train_split)
    eval_split = evaluation_split(recipe)
    evaluation = open_split(recipe, eval_split, train)
    expected = recipe.data.num_classes
    if expected is not None and train.info.num_classes != expected:
        raise UsageError(
            f"data.num_classes: expected {expected}, but {train.info.name} has "
            f"{train.info.num_classes} classes"
        )
    if evaluation.info.num_classes != train.info.num_classes:
        raise UsageError(
            f"data.eval_split: {eval_split!r} has {evaluation.info.num_classes} "
            f"classes, {recipe.data.train_split!r} has {train.info.num_classes}"
        )
    _check_apart(recipe, eval_split, train, evaluation)
    return Sources(train, evaluation)


def _check_apart(recipe: Recipe, eval_split: str, train: Source, evaluation: Source) -> None:
    """Refuses to evaluate on training files that are called by another split's name."""
    shared = train.own_files & evaluation.own_files
    if shared and eval_split != recipe.data.train_split:
        raise UsageError(
            f"data.options.files: expected other files for {eval_split!r} than for "
            f"{recipe.data.train_split!r}, received {recipe.data.options.get('files')}, where both "
            f"have {min(shared)}; give the folder, or a pattern with {{split}} for the split's name"
        )


def open_split(recipe: Recipe, split: str, train: Source | None = None) -> Source:
    """Opens one split; class names follow the training split's where it is given."""
    if split == AUTO_SPLIT:
        split = evaluation_split(recipe)
    options = _options(recipe, split)
    if train is not None and recipe.data.source == "image_folder":
        options.setdefault("class_names", train.info.class_names)
    with _told_as_usage(lambda error: _other_split(recipe, split, error)):
        return open_source(recipe.data.source, split, **options)


def evaluation_split(recipe: Recipe) -> str:
    """The name of the split that the recipe evaluates on.

    Raises:
      UsageError: if the recipe leaves the choice to the source, and that has none to offer.
    """
    given = recipe.data.eval_split
    return _held_out_split(recipe) if given == AUTO_SPLIT else given


def with_evaluation_split(recipe: Recipe) -> Recipe:
    """The same recipe with the evaluation split's name in place of `auto`.

    So the saved recipe says what was evaluated on, whatever is added to the data later.
    """
    data = recipe.data.model_copy(update={"eval_split": evaluation_split(recipe)})
    return recipe.model_copy(update={"data": data})


def _held_out_split(recipe: Recipe) -> str:
    with _told_as_usage():
        names = split_names(recipe.data.source, **recipe.data.options)
    for name in _HELD_OUT:
        if name in names:
            return name
    raise UsageError(
        f"data.eval_split: expected a source with one of the splits {', '.join(_HELD_OUT)}, "
        f"received {recipe.data.source} with {', '.join(names)}; set data.eval_split to the split "
        "to evaluate on"
    )


def _options(recipe: Recipe, split: str) -> dict[str, Any]:
    options = dict(recipe.data.options)
    if split != recipe.data.train_split:
        # It spares counting the many training records. Of other splits it would be wrong.
        options.pop("num_examples", None)
    kind = KINDS.get(recipe.data.source)
    if kind is not None and "max_bad_share" in inspect.signature(kind).parameters:
        options.setdefault("max_bad_share", recipe.data.max_bad_share)
    return options


@contextmanager
def _told_as_usage(hint: Callable[[DataError], str] = lambda error: "") -> Iterator[None]:
    """What a source says is wrong becomes a UsageError that names the recipe's key."""
    try:
        yield
    except DataError as error:
        raise UsageError(f"data: {error}{hint(error)}") from error
    except (TooManyBadRecords, ImportError, OSError) as error:
        raise UsageError(f"data: {error}") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"data.options: {error}") from error


def _other_split(recipe: Recipe, split: str, error: DataError) -> str:
    """Which split to evaluate on instead, if it is that which is unknown."""
    unknown = error.problem == "unknown split" and split == recipe.data.eval_split
    if not unknown or error.suggestion is not None:
        return ""
    return f"; set data.eval_split={_held_out_split(recipe)}"
