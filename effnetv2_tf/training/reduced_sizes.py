"""Image sizes for training at reduced resolution: pure functions of the test size.

Masters et al., "Making EfficientNet More Efficient" (arXiv 2106.03640), train at about half
the pixels of the test size and then fine-tune the last layers at the test size.
"""

from __future__ import annotations

import math
from fractions import Fraction

SMALLEST = 8
# About sqrt(1 / 2) of the side, thus half the pixels. With 0.7 the nearest allowed sizes are
# the paper's; so they are with anything from 0.693 to 0.705, but not with sqrt(1 / 2) itself.
SHARE_OF_SIDE = Fraction(7, 10)


def reduced_size(test_size: int, modulo: int = 32) -> int:
    """The side to train at for a side to test at: 224 gives 160, 380 gives 252.

    It is the nearest to 0.7 of the test size among those that leave the same remainder. With
    "same" padding, how much is padded at each stride depends on the size modulo the network's
    total stride; sizes that agree there put the features at the same places.

    Args:
      test_size: side in pixels.
      modulo: the network's total stride, 32 for the EfficientNets.

    Raises:
      ValueError: if there is no such size from 8 pixels up.
    """
    if modulo < 1:
        raise ValueError(f"`modulo` must be at least 1. Received: modulo={modulo}.")
    if not _allowed(test_size, modulo):
        raise ValueError(
            f"`test_size` {test_size} leaves no smaller size of at least {SMALLEST} pixels with "
            f"the same remainder modulo {modulo}; expected at least {SMALLEST + modulo}, or a "
            "smaller `modulo`: the network's total stride."
        )
    return _nearest(test_size * SHARE_OF_SIDE, test_size, modulo)


def check_reduced_size(size: int, test_size: int, modulo: int = 32) -> None:
    """Raises a ValueError unless `size` may be trained at for `test_size`; see `reduced_size`."""
    if size in _allowed(test_size, modulo):
        return
    near = _nearest(size, test_size, modulo) if _allowed(test_size, modulo) else None
    raise ValueError(
        f"expected a training size from {SMALLEST} pixels up and smaller than the test size "
        f"{test_size}, with the same remainder modulo {modulo} ({test_size % modulo}), received "
        f"{size}" + (f"; the nearest is {near}" if near else "; there is none")
    )


def _allowed(test_size: int, modulo: int) -> range:
    """All sizes below the test size that agree with it, largest first."""
    return range(test_size - modulo, SMALLEST - 1, -modulo)


def _nearest(size: int | Fraction, test_size: int, modulo: int) -> int:
    steps = math.floor((test_size - size) / Fraction(modulo) + Fraction(1, 2))
    most = (test_size - SMALLEST) // modulo
    return test_size - min(max(steps, 1), most) * modulo
