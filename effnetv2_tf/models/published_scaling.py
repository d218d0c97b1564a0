"""How far the published EfficientNets follow the rule they were made by.

The paper (arXiv 1905.11946) gives alpha, beta and gamma and names B1 to B7 results of
"different phi", without saying which. Width, depth and size of each are the reference
implementation's, in steps of 0.1, 0.1 and 4 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from effnetv2_tf.models import families
from effnetv2_tf.models.compound_scaling import SIZE_MULTIPLE, Coefficients
from effnetv2_tf.models.specs import NetworkSpec

_COEFFICIENT_STEP = 0.1
_PUBLISHED = (
    families.EFFICIENTNET_B1,
    families.EFFICIENTNET_B2,
    families.EFFICIENTNET_B3,
    families.EFFICIENTNET_B4,
    families.EFFICIENTNET_B5,
    families.EFFICIENTNET_B6,
    families.EFFICIENTNET_B7,
)


@dataclass(frozen=True)
class Quantity:
    """One published number beside the formula's.

    Attributes:
      formula: what the rule gives, unrounded.
      published: in the reference implementation.
      step: in which it is published.
      phi: at which the rule would give the published number.
    """

    formula: float
    published: float
    step: float
    phi: float

    @property
    def rounded(self) -> float:
        """The formula's number, rounded to the nearest step."""
        return round(math.floor(self.formula / self.step + 0.5) * self.step, 6)

    @property
    def difference(self) -> float:
        """Published minus formula, unrounded."""
        return self.published - self.formula

    @property
    def follows(self) -> bool:
        """Whether rounding the formula's number gives the published one."""
        return math.isclose(self.rounded, self.published)


@dataclass(frozen=True)
class PublishedScaling:
    """One published network beside the rule.

    Attributes:
      variant: e.g. `"b3"`.
      phi: at which the rule gives the published image size, the finest-grained number.
      depth: the depth coefficient.
      width: the width coefficient.
      size: the image size in pixels; as `phi` comes from it, it differs by nothing.
    """

    variant: str
    phi: float
    depth: Quantity
    width: Quantity
    size: Quantity

    @property
    def set_by_hand(self) -> tuple[str, ...]:
        """Which of depth, width and size rounding alone does not explain."""
        names = ("depth", "width", "size")
        return tuple(name for name in names if not getattr(self, name).follows)


def published_scaling(
    alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15
) -> tuple[PublishedScaling, ...]:
    """B1 to B7: what the rule gives, what was published, and the phi that each number implies.

    With the published coefficients, one phi for each network explains size and width of all
    seven and the depth of B1 and B2. The depths of B3 to B7 were set lower by hand: B7 has
    3.1, where the rule has 3.6. (V2-B1 to B3 have the widths, depths and evaluation sizes of
    B1 to B3.)
    """
    coefficients = Coefficients(alpha, beta, gamma)
    if min(alpha, beta, gamma) <= 1:
        raise ValueError(
            "`alpha`, `beta` and `gamma` must be over 1 here: a factor of 1 implies no phi. "
            f"Received: alpha={alpha}, beta={beta}, gamma={gamma}."
        )
    return tuple(_compare(spec, families.EFFICIENTNET_B0, coefficients) for spec in _PUBLISHED)


def _compare(spec: NetworkSpec, base: NetworkSpec, c: Coefficients) -> PublishedScaling:
    size_factor = spec.eval_size / base.eval_size
    phi = math.log(size_factor, c.gamma)
    depth, width, size = c.factors(phi)
    return PublishedScaling(
        variant=spec.name.rsplit("-", 1)[-1],
        phi=phi,
        depth=Quantity(depth, spec.depth, _COEFFICIENT_STEP, math.log(spec.depth, c.alpha)),
        width=Quantity(width, spec.width, _COEFFICIENT_STEP, math.log(spec.width, c.beta)),
        size=Quantity(base.eval_size * size, spec.eval_size, SIZE_MULTIPLE, phi),
    )


def comparison_table(rows: Sequence[PublishedScaling]) -> str:
    """The comparison as text; behind each network, what was set by hand."""
    lines = [
        f"{'':4} {'phi implied by':^20} {'width':^19} {'depth':^19} {'size, px':>14}",
        f"{'':4} {'size':>6} {'width':>6} {'depth':>6} "
        + f"{'rule':>6} {'publ.':>5} {'diff':>6} " * 2
        + f"{'rule':>7} {'publ.':>6} {'diff':>6}",
    ]
    for row in rows:
        line = f"{row.variant:4} {row.phi:6.2f} {row.width.phi:6.2f} {row.depth.phi:6.2f} "
        for quantity in (row.width, row.depth):
            line += f"{quantity.formula:6.3f} {quantity.published:5.1f} "
            line += f"{quantity.difference:+6.3f} "
        size = row.size
        line += f"{size.formula:7.1f} {size.published:6.0f} {round(size.difference, 6) + 0.0:+6.1f}"
        by_hand = row.set_by_hand
        lines.append(line + (f"  {', '.join(by_hand)} by hand" if by_hand else ""))
    return "\n".join(lines)
