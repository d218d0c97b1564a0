"""L2 regularisation in the gradients, for any Keras optimizer."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.keras_compat import tf_variable
from effnetv2_tf.models.layers.proxy_norm import PROXY_BETA, PROXY_GAMMA

_NO_KERNELS = ("bias", "beta", "gamma")  # also of rank 2, as in keras.layers.MultiHeadAttention


class CoupledL2:
    """Adds `l2 * weight` to the gradients of kernels before the optimizer sees them.

    That is L2 regularisation of `l2 / 2 * sum(weight**2)` as the EfficientNet reference
    has it (inside RMSProp's averages), without the loss showing it. Kernels are the
    variables of rank 2 and more; biases and normalisation parameters (`bias`, `beta`, `gamma`)
    are left alone, but for the two of a proxy (arXiv 2106.03743), see `layers.ProxyNorm`.

    Args:
      l2: coefficient; the papers' "weight decay 1e-5".
    """

    def __init__(self, *args: Any, l2: float = 0.0, **kwargs: Any) -> None:
        if l2 < 0:
            raise ValueError(f"{type(self).__name__}: `l2` must be >= 0. Received: l2={l2}.")
        super().__init__(*args, **kwargs)
        self.l2 = float(l2)
        self._summed = _SummedGradients()

    def apply_gradients(self, grads_and_vars: Any, **kwargs: Any) -> Any:
        pairs = list(grads_and_vars)
        if self.l2 and not keras_compat.OPTIMIZERS_APPLY:
            summed = kwargs.get("skip_gradients_aggregation", False) or not kwargs.get(
                "experimental_aggregate_gradients", True
            )
            l2 = self.l2 if summed else self.l2 / _replicas()
            pairs = [(_add_l2(g, v, l2), v) for g, v in pairs]
        return super().apply_gradients(pairs, **kwargs)  # type: ignore[misc]

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Keras 3's entry; its loss scaling calls this one directly."""
        if self.l2:
            variables = trainable_variables
            if variables is None:
                variables = self._trainable_variables  # type: ignore[attr-defined]
            l2 = self.l2 / _replicas()
            grads = [_add_l2(g, v, l2) for g, v in zip(grads, variables, strict=True)]
        return super().apply(grads, trainable_variables)  # type: ignore[misc]

    def _clip_gradients(self, grads: Any) -> Any:
        """Clips the gradients of the global batch.

        Keras 3 clips each replica's gradients and adds them up afterwards, so that a norm
        allowed in all depends on the number of replicas; Keras 2 adds them up first, as here.
        """
        clips = self.clipnorm or self.global_clipnorm or self.clipvalue  # type: ignore[attr-defined]
        if not (clips and keras_compat.OPTIMIZERS_CLIP_FIRST and _replicas() > 1):
            return super()._clip_gradients(grads)  # type: ignore[misc]
        summed = super()._all_reduce_sum_gradients([(g, None) for g in grads])  # type: ignore[misc]
        clipped = super()._clip_gradients([gradient for gradient, _ in summed])  # type: ignore[misc]
        self._summed.add(clipped)
        return clipped

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        grads_and_vars = list(grads_and_vars)
        if self._summed.take([gradient for gradient, _ in grads_and_vars]):
            return grads_and_vars
        if not tf.distribute.has_strategy():  # a sum of one would be an operation for each
            return grads_and_vars
        return super()._all_reduce_sum_gradients(grads_and_vars)  # type: ignore[misc]

    def get_config(self) -> dict:
        return {**super().get_config(), "l2": self.l2}  # type: ignore[misc]


class _SummedGradients:
    """Gradients that are sums over the replicas already.

    They are known by themselves: the replicas' threads take turns at one optimizer, at any of
    Keras's steps between.
    """

    def __init__(self) -> None:
        self._gradients: dict[int, Any] = {}

    def add(self, gradients: list) -> None:
        """Notes the gradients of a replica."""
        self._gradients |= {id(gradient): gradient for gradient in gradients}

    def take(self, gradients: list) -> bool:
        """Whether these were noted; they are forgotten then."""
        found = [self._gradients.pop(id(gradient), None) for gradient in gradients]
        return bool(found) and all(gradient is not None for gradient in found)


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def _add_l2(gradient: Any, variable: Any, l2: float) -> Any:
    """Where the replicas' gradients are added up afterwards, `l2` is one replica's share."""
    if gradient is None or not is_decayed(variable):
        return gradient
    return gradient + l2 * tf.cast(tf_variable(variable), gradient.dtype)


def is_kernel(variable: Any) -> bool:
    """Whether a variable is a kernel: of rank 2 and more, and neither a bias nor of a norm."""
    name = keras_compat.variable_path(variable).rpartition("/")[2]
    return len(variable.shape) >= 2 and name not in _NO_KERNELS


def is_decayed(variable: Any) -> bool:
    """Whether L2 and weight decay act on a variable: on kernels and the proxies' parameters."""
    name = keras_compat.variable_path(variable).rpartition("/")[2]
    return is_kernel(variable) or name in (PROXY_GAMMA, PROXY_BETA)


def keras_optimizers() -> list[type]:
    """Keras's own optimizers, without those that need another one to be of use."""
    return [
        value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
    ]


@functools.cache
def with_coupled_l2(optimizer_class: type) -> type:
    """A Keras optimizer class that also takes `l2`, see `CoupledL2`."""
    new_class = type(f"{optimizer_class.__name__}WithL2", (CoupledL2, optimizer_class), {})
    return keras_compat.register_serializable("effnetv2_tf")(new_class)


for _optimizer in keras_optimizers():  # registers them, so that saved models with one load
    with_coupled_l2(_optimizer)
