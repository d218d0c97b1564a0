"""Which normalisation a network has, in one place for its stem, blocks and head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import suggestion
from effnetv2_tf.models.layers.batch_norm import BatchNorm
from effnetv2_tf.models.layers.group_norm import GroupNorm
from effnetv2_tf.models.layers.proxy_norm import ProxyNorm
from effnetv2_tf.models.specs import Normalization

KNOWN = get_args(Normalization)


@dataclass(frozen=True)
class NormFactory:
    """Makes the norms of a network; fields as `specs.NetworkSpec`'s, which checks them.

    Attributes:
      normalization: `"batch"`, `"group"` or `"layer"`.
      groups: number of groups of `"group"`.
      proxy: whether norms with an activation are proxy-normalised. The others then have no
        beta: that it cannot shift them keeps activations from losing their normalisation.
      momentum: of batch norms, share of the old moving statistics kept at each step.
      epsilon: added to the variance.
      synchronized: whether replicas share the statistics of batch norms.
    """

    normalization: str = "batch"
    groups: int = 4
    proxy: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-3
    synchronized: bool = False

    def __post_init__(self) -> None:
        if self.normalization not in KNOWN:
            raise ValueError(
                f"`normalization` must be one of {KNOWN}. Received: {self.normalization!r}"
                f"{suggestion(str(self.normalization), KNOWN)}."
            )

    def __call__(
        self, name: str, activation: str | None = None, dtype: Any = None
    ) -> keras_compat.Layer:
        """A norm, followed by an activation if one is named."""
        if self.normalization == "batch":
            return BatchNorm(
                momentum=self.momentum,
                epsilon=self.epsilon,
                activation=activation,
                synchronized=self.synchronized,
                dtype=dtype,
                name=name,
            )
        groups = self.groups if self.normalization == "group" else 1
        common = {"groups": groups, "epsilon": self.epsilon, "dtype": dtype, "name": name}
        if self.proxy and activation is not None:
            return ProxyNorm(activation, **common)
        return GroupNorm(activation=activation, center=not self.proxy, **common)
