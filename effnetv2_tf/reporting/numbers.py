"""Numbers as people read them."""

from __future__ import annotations

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def short_count(count: float) -> str:
    """Three digits and a unit: 407,186,304 becomes `407 M`, 8,373,000,000 `8.37 G`."""
    for factor, unit in _UNITS:
        value = count / factor
        if value >= 0.9995:
            decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{decimals}f} {unit}"
    return f"{count:.0f}"


def short_duration(seconds: float) -> str:
    """Seconds up to 100 of them, minutes up to 100, then hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
