"""Names of networks as people type them."""

from __future__ import annotations

import re

from effnetv2_tf.errors import UsageError, suggestion
from effnetv2_tf.models.families import SPECS
from effnetv2_tf.models.nasnet_specs import NASNETS, NASNetSpec
from effnetv2_tf.models.specs import NetworkSpec

_FAMILY = "efficientnet"
# Other spellings of the family, at the start of what is left of a name without punctuation.
_PREFIX = re.compile(r"(tf)?(efficientnet|effnet)?(v1(?=[bl]\d))?")


def find_spec(name: str) -> NetworkSpec:
    """The row of the families' tables that a name means, typed with or without the family.

    `efficientnetv2-s`, `EfficientNetV2S`, `efficientnetv2_s`, `v2-s`; `efficientnet-lite0`,
    `Lite0`; `efficientnet-b0`, `v1-b0`, `b0`. Letters' case, `-`, `_` and spaces do not matter.

    Raises:
      UsageError: for a name that means no network, with the nearest that does.
    """
    by_short_name = {_short(known): spec for known, spec in SPECS.items()}
    spec = by_short_name.get(_short(name))
    if spec is None:
        typed = name.strip().lower()
        readable = [row.removeprefix(_FAMILY).lstrip("-") for row in SPECS]
        known = [*SPECS, *NASNETS]
        hint = suggestion(typed, [*known, *readable]) or f"; known: {', '.join(known)}"
        raise UsageError(f"unknown network {name!r}{hint}")
    return spec


def find_nasnet(name: str) -> NASNetSpec | None:
    """The row of NASNet's family that a name means, typed as `find_spec`'s; None if none."""
    by_short_name = {_short(known): spec for known, spec in NASNETS.items()}
    return by_short_name.get(_short(name))


def _short(name: str) -> str:
    """Lower case, no punctuation, no family: `EfficientNetV2-S` and `v2_s` become `v2s`."""
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return _PREFIX.sub("", bare, count=1)
