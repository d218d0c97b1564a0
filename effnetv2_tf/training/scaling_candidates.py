"""The candidates of a search for compound scaling's coefficients: scaled recipes, and results.

The search itself: `scaling_search`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models import scaling
from effnetv2_tf.models.compound_scaling import Coefficients, compound_scale, scale_size
from effnetv2_tf.models.stage_costs import spec_stages, totals
from effnetv2_tf.training import build
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import parse_recipe


@dataclass(frozen=True)
class Candidate:
    """Coefficients, and the recipe with the network and the image sizes they scale to."""

    coefficients: Coefficients
    recipe: Recipe

    @property
    def name(self) -> str:
        """Of the candidate's folder."""
        return "_".join(f"{k}{v:.10g}" for k, v in asdict(self.coefficients).items())


@dataclass(frozen=True)
class Result:
    """What is known of a candidate: a row of results.csv.

    Attributes:
      candidate: name of its folder.
      alpha: coefficient of depth.
      beta: coefficient of width.
      gamma: coefficient of the image size.
      product: `alpha * beta^2 * gamma^2`.
      depth: of the scaled network.
      width: of the scaled network.
      image_size: at evaluation, in pixels.
      parameters: of the scaled network.
      multiply_adds: for one image of `image_size`.
      status: `"waiting"`, `"finished"` or `"failed"`.
      accuracy: top-1 on the recipe's evaluation split.
      train_seconds: of training alone.
      reason: why it failed, or which candidate is the same network.
    """

    candidate: str
    alpha: float
    beta: float
    gamma: float
    product: float
    depth: float
    width: float
    image_size: int
    parameters: int
    multiply_adds: int
    status: Literal["waiting", "finished", "failed"] = "waiting"
    accuracy: float | None = None
    train_seconds: float | None = None
    reason: str = ""


def make_candidates(
    recipe: Recipe, grid: Sequence[Coefficients], phi: float = 1.0
) -> tuple[Candidate, ...]:
    """The recipe scaled by each of the coefficients.

    Raises:
      UsageError: if the recipe names weights, which fit one network alone, trains at a reduced
        resolution, or `phi` is not positive.
    """
    if not 0 < phi <= 20:
        raise UsageError(f"--phi: expected a number over 0 and at most 20, received {phi:g}")
    if recipe.model.weights is not None:
        raise UsageError(
            f"model.weights: expected none, received {recipe.model.weights!r}: candidates differ "
            "in width and depth, so no weights fit them all; --set model.weights=null"
        )
    if recipe.reduced_resolution is not None:
        raise UsageError(
            "reduced_resolution: expected none, received one: sizes that are scaled do not keep "
            "the remainder that it asks for; --set reduced_resolution=null, and set "
            "progressive.image_size"
        )
    return tuple(Candidate(c, scaled_recipe(recipe, c, phi)) for c in grid)


def scaled_recipe(recipe: Recipe, coefficients: Coefficients, phi: float) -> Recipe:
    """The recipe for the scaled network, with every image size multiplied by gamma^phi.

    Sizes are rounded to `progressive.size_multiple`, never below the recipe's own.
    """
    spec = compound_scale(build.network_spec(recipe.model), phi, **asdict(coefficients))
    factor = coefficients.gamma**phi
    multiple = recipe.progressive.size_multiple

    def scaled(size: int) -> int:
        return scale_size(size, factor, multiple)

    values = (f"{name} {value:g}" for name, value in asdict(coefficients).items())
    tree = recipe.model_dump()
    tree["name"] = f"{recipe.name}, {', '.join(values)}"
    tree["model"] |= {"width": spec.width, "depth": spec.depth}
    for key in ("image_size", "image_sizes"):
        if tree["progressive"][key] is not None:
            tree["progressive"][key] = tuple(map(scaled, tree["progressive"][key]))
    if recipe.data.eval_size is not None:
        tree["data"]["eval_size"] = scaled(recipe.data.eval_size)
    return parse_recipe(tree, tree["name"])


def waiting_result(candidate: Candidate, classes: int, channels: int) -> Result:
    """What is known before training, counted from the spec."""
    spec = build.network_spec(candidate.recipe.model)
    image_size = build.evaluation_size(candidate.recipe)
    rows = spec_stages(spec, image_size, classes=classes, channels=channels)
    parameters, multiply_adds = totals(rows)
    return Result(
        candidate=candidate.name,
        **asdict(candidate.coefficients),
        product=candidate.coefficients.product,
        depth=spec.depth,
        width=spec.width,
        image_size=image_size,
        parameters=parameters,
        multiply_adds=multiply_adds,
    )


def first_of_each_network(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """For every candidate's name the first that is the same network at the same sizes.

    Where widths, layers and sizes are rounded to the same numbers, training twice would tell
    nothing.
    """
    first: dict[tuple, Candidate] = {}
    return {c.name: first.setdefault(_what_is_trained(c.recipe), c) for c in candidates}


def results_in_order(
    candidates: Sequence[Candidate], results: Mapping[str, Result]
) -> Iterator[Result]:
    """The results in the candidates' order; candidates of an equal network have its result."""
    first_of = first_of_each_network(candidates)
    for candidate in candidates:
        first = first_of[candidate.name]
        result = results.get(first.name)
        if result is None:
            continue
        if result.candidate != candidate.name:
            spec = build.network_spec(candidate.recipe.model)
            result = replace(
                result,
                candidate=candidate.name,
                **asdict(candidate.coefficients),
                product=candidate.coefficients.product,
                depth=spec.depth,
                width=spec.width,
                reason=f"same network as {result.candidate}"
                + (f": {result.reason}" if result.reason else ""),
            )
        yield result


def _what_is_trained(recipe: Recipe) -> tuple:
    spec = build.network_spec(recipe.model)
    return (
        scaling.scaled_stem_filters(spec),
        scaling.scaled_head_filters(spec),
        tuple(scaling.scaled_stage(spec, stage) for stage in spec.stages),
        recipe.progressive.given_sizes,
        build.evaluation_size(recipe),
    )
