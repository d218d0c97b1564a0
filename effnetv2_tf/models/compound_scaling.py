"""Compound scaling: one number that makes a network deeper, wider and its images larger.

EfficientNet (Tan & Le, arXiv 1905.11946), section 3.3, and the non-uniform rule of
EfficientNetV2 (Tan & Le, arXiv 2104.00298), section 3.3: pure functions of specs. How far the
published networks follow the rule: `published_scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product

from effnetv2_tf.models.scaling import scaled_stage
from effnetv2_tf.models.specs import NetworkSpec

# The greatest common divisor of the published sizes (240, 260, 300, 380, 456, 528, 600).
SIZE_MULTIPLE = 4
_LARGEST_PHI = 20.0  # a million times the multiply-adds
_MOST_POINTS = 1_000_000
# Takes the noise of floating-point powers away: 1.1**2 is 1.2100000000000002.
_DECIMALS = 10


@dataclass(frozen=True, order=True)
class Coefficients:
    """How much of everything one unit of phi adds; the defaults are EfficientNet's.

    Attributes:
      alpha: multiplies depth, at least 1.
      beta: multiplies width, at least 1.
      gamma: multiplies the image size, at least 1.
    """

    alpha: float = 1.2
    beta: float = 1.1
    gamma: float = 1.15

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_coefficient(field.name, getattr(self, field.name))

    @property
    def product(self) -> float:
        """`alpha * beta^2 * gamma^2`: about how many times the multiply-adds one phi costs."""
        return round(self.alpha * self.beta**2 * self.gamma**2, _DECIMALS)

    def factors(self, phi: float) -> tuple[float, float, float]:
        """Factors of depth, width and image size: `(alpha^phi, beta^phi, gamma^phi)`."""
        if not -_LARGEST_PHI <= phi <= _LARGEST_PHI:
            raise ValueError(
                f"`phi` must lie in [-{_LARGEST_PHI:g}, {_LARGEST_PHI:g}]. Received: phi={phi}."
            )
        return self.alpha**phi, self.beta**phi, self.gamma**phi


def compound_scale(
    spec: NetworkSpec,
    phi: float,
    alpha: float = 1.2,
    beta: float = 1.1,
    gamma: float = 1.15,
    *,
    size_multiple: int = SIZE_MULTIPLE,
    decimals: int | None = None,
    name: str | None = None,
) -> NetworkSpec:
    """Scales a network by EfficientNet's rule (arXiv 1905.11946, equation 3).

    Depth is multiplied by alpha^phi, width by beta^phi, both image sizes by gamma^phi. With
    alpha * beta^2 * gamma^2 ~ 2, multiply-adds grow about as 2^phi. What becomes of a stage's
    filters and repeats is `scaling`'s to round; parts that the spec excepts from scaling
    (`scale_stem`, `scale_head`, `scale_depth`) stay excepted.

    The rule says nothing about regularisation: `dropout_rate` and `drop_path_rate` stay, while
    the published networks raise the dropout rate from 0.2 to 0.5 by hand.

    Args:
      spec: the network at phi = 0.
      phi: how much to scale; negative makes the network smaller.
      alpha: of depth, at least 1.
      beta: of width, at least 1.
      gamma: of the image sizes, at least 1.
      size_multiple: image sizes are rounded to the nearest multiple, see `scale_size`; 4 by
        default, as the published sizes.
      decimals: of the resulting `width` and `depth`; 1 as published, None for unrounded.
      name: of the result; None for the spec's with phi behind it.

    Raises:
      ValueError: naming the argument that cannot be.
    """
    _check_spec(spec)
    depth, width, size = Coefficients(alpha, beta, gamma).factors(phi)
    decimals = _DECIMALS if decimals is None else decimals
    return replace(
        spec,
        name=name or f"{spec.name}-phi{phi:g}",
        depth=round(spec.depth * depth, decimals),
        width=round(spec.width * width, decimals),
        train_size=scale_size(spec.train_size, size, size_multiple),
        eval_size=scale_size(spec.eval_size, size, size_multiple),
    )


def nonuniform_scale(
    spec: NetworkSpec,
    phi: float,
    alpha: float = 1.2,
    beta: float = 1.1,
    gamma: float = 1.15,
    *,
    max_size: int = 480,
    late_stages: Sequence[int] = (5, 6),
    size_multiple: int = SIZE_MULTIPLE,
    name: str | None = None,
) -> NetworkSpec:
    """Scales a network by EfficientNetV2's rule (arXiv 2104.00298, section 3.3).

    The paper: "similar" to compound scaling, but the inference size is limited to 480, and
    layers are gradually added to later stages, such as 5 and 6 of its table 4, as a heuristic.
    It leaves open, and this function takes:

    - alpha, beta, gamma and phi: EfficientNet's coefficients, phi is the caller's;
    - how many layers are added: the late stages get alpha^phi times theirs, rounded up, as
      compound scaling would give them;
    - the other stages' layers: none are added;
    - the width: of all stages, beta^phi, as in compound scaling;
    - the training size: grows as the evaluation size does after the limit, so that their
      ratio stays (V2-S at the limit: 376 px; the published M trains at 384 and tests at 480).

    V2-M and V2-L themselves come from no closed rule: from S to M, the six stages' layers
    grow 1.5, 1.25, 1.25, 1.17, 1.56 and 1.2 times, the filters 1 to 1.25 times, and both have a
    seventh stage; XL is evaluated at 512 px, past the limit.

    Args:
      spec: the network at phi = 0.
      phi: how much to scale.
      alpha: of the late stages' depth, at least 1.
      beta: of width, at least 1.
      gamma: of the image sizes, at least 1.
      max_size: limit of the evaluation size in pixels.
      late_stages: numbers of the stages to deepen, from 1, as in table 4 (its stage 0 is the
        stem).
      size_multiple: as in `compound_scale`; the limit itself is not rounded.
      name: as in `compound_scale`.

    Returns:
      A spec with `depth` 1, whose stages hold the final numbers of layers.

    Raises:
      ValueError: naming the argument that cannot be.
    """
    _check_spec(spec)
    depth, width, size = Coefficients(alpha, beta, gamma).factors(phi)
    _check_late_stages(late_stages, len(spec.stages))
    if max_size < spec.eval_size:
        raise ValueError(
            f"`max_size` must be at least the network's own evaluation size "
            f"({spec.eval_size}). Received: max_size={max_size}."
        )
    deeper = replace(spec, depth=round(spec.depth * depth, _DECIMALS))
    stages = tuple(
        replace(stage, repeats=scaled_stage(deeper if i in late_stages else spec, stage)[1])
        for i, stage in enumerate(spec.stages, start=1)
    )
    eval_size = min(max_size, scale_size(spec.eval_size, size, size_multiple))
    return replace(
        spec,
        name=name or f"{spec.name}-phi{phi:g}",
        stages=stages,
        depth=1.0,
        width=round(spec.width * width, _DECIMALS),
        train_size=scale_size(spec.train_size, eval_size / spec.eval_size, size_multiple),
        eval_size=eval_size,
    )


def scale_size(size: int, factor: float, multiple: int = SIZE_MULTIPLE) -> int:
    """`size * factor` in pixels, rounded to the nearest multiple.

    Rounding never turns the direction: scaling up gives at least `size`, scaling down at most
    `size`, and a factor of 1 leaves it alone, multiple or not.
    """
    if multiple < 1:
        raise ValueError(f"`size_multiple` must be at least 1. Received: {multiple}.")
    rounded = max(multiple, int(size * factor / multiple + 0.5) * multiple)
    return max(size, rounded) if factor >= 1 else min(size, rounded)


def scaling_grid(
    *,
    step: float = 0.1,
    target: float = 2.0,
    tolerance: float = 0.1,
    alphas: Sequence[float] | None = None,
    betas: Sequence[float] | None = None,
    gammas: Sequence[float] | None = None,
) -> tuple[Coefficients, ...]:
    """The candidates of a grid search under `alpha * beta^2 * gamma^2 ~ target`.

    Args:
      step: of the values 1, 1 + step, 1 + 2 step ...; EfficientNet's own coefficients
        (1.2, 1.1, 1.15) lie on the grid of step 0.05.
      target: of the product: how many times the multiply-adds phi = 1 may cost.
      tolerance: by how much the product may miss it (EfficientNet's is 1.92).
      alphas: values to try instead of the grid's, likewise `betas`, `gammas`.
      betas: see `alphas`.
      gammas: see `alphas`.

    Returns:
      In the order of alpha, beta, gamma.

    Raises:
      ValueError: for a value that cannot be, or if no candidate is left: with the nearest.
    """
    if not 0 < step <= 1:
        raise ValueError(f"`step` must lie in (0, 1]. Received: step={step}.")
    if not 1 <= target < math.inf:
        raise ValueError(f"`target` must be a finite number of at least 1. Received: {target}.")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"`tolerance` must be a finite number >= 0. Received: {tolerance}.")
    most = target + tolerance
    axes = []
    for name, given, limit in (
        ("alpha", alphas, most),
        ("beta", betas, math.sqrt(most)),
        ("gamma", gammas, math.sqrt(most)),
    ):
        values = _axis(step, limit) if given is None else sorted(set(given))
        if not values:
            raise ValueError(f"`{name}s` must hold at least one number. Received: none.")
        for value in values:
            _check_coefficient(name, value)
        axes.append(values)
    if math.prod(map(len, axes)) > _MOST_POINTS:
        raise ValueError(
            f"the grid has more than {_MOST_POINTS:,} points; choose a `step` over {step:g}."
        )
    missed = {(a, b, g): abs(a * b * b * g * g - target) for a, b, g in product(*axes)}
    kept = tuple(Coefficients(*c) for c, miss in missed.items() if miss <= tolerance + 1e-9)
    if not kept:
        nearest = Coefficients(*min(missed, key=missed.__getitem__))
        raise ValueError(_why_empty(nearest, target, tolerance))
    return kept


def _check_spec(spec: NetworkSpec) -> None:
    if not isinstance(spec, NetworkSpec):
        raise TypeError(
            "`spec`: expected the NetworkSpec of an EfficientNet. Received: "
            f"{type(spec).__name__}, which this rule does not scale."
        )


def _check_coefficient(name: str, value: float) -> None:
    if not 1 <= value < math.inf:
        raise ValueError(
            f"`{name}` must be a finite number of at least 1 (arXiv 1905.11946, equation 3). "
            f"Received: {name}={value}."
        )


def _axis(step: float, most: float) -> list[float]:
    """1, 1 + step ... up to the first that is no less than `most`."""
    steps = min((most - 1) / step, _MOST_POINTS)  # beyond that the grid is refused
    return [round(1 + i * step, _DECIMALS) for i in range(math.ceil(steps - 1e-9) + 1)]


def _why_empty(nearest: Coefficients, target: float, tolerance: float) -> str:
    enough = math.ceil(abs(nearest.product - target) * 1000) / 1000
    return (
        f"no candidate has alpha * beta^2 * gamma^2 within `tolerance` {tolerance:g} of `target` "
        f"{target:g}: the nearest product is {nearest.product:.4g} (alpha {nearest.alpha:g}, beta "
        f"{nearest.beta:g}, gamma {nearest.gamma:g}); a tolerance of {enough:g} would take it, "
        "a smaller step or other values may come nearer"
    )


def _check_late_stages(late_stages: Sequence[int], count: int) -> None:
    if not late_stages or any(i not in range(1, count + 1) for i in late_stages):
        raise ValueError(
            f"`late_stages` must hold numbers from 1 to {count}, the network's stages. "
            f"Received: {tuple(late_stages)}."
        )
