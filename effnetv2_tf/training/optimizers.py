"""Keras optimizers whose update of a variable is one operation, RMSProp's of all variables.

Keras spells an update out in about ten operations a variable, which dominates the graph of
a network with hundreds of them. The classes here are Keras's own (arguments, slots, saving)
with that one method replaced; they give the same numbers. Where TensorFlow has no such
operation (sparse gradients, centred RMSProp, AMSGrad) they do what Keras does.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.keras_compat import optimizer_slot, tf_variable
from effnetv2_tf.kernels import operations
from effnetv2_tf.training.coupled_l2 import CoupledL2


def _check_shares_kept(**shares: float) -> None:
    """Of a running mean: with 1 nothing new would enter it, beyond that it grows without end."""
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"`{name}` must lie in [0, 1). Received: {name}={share}.")


class _SharedConstants:
    """Tensors of the graph being built that the updates of all variables use."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, tf.DType], tf.Tensor] = {}

    def get(self, name: str, value: Any, dtype: tf.DType) -> tf.Tensor:
        if (name, dtype) not in self._tensors:
            self._tensors[name, dtype] = tf.cast(value, dtype)
        return self._tensors[name, dtype]


class _OneOpUpdate(CoupledL2):
    """Chooses between the one-operation update and Keras's; scales learning rates by depth.

    Args:
      learning_rate_factors: factors of the learning rate by the beginning of a variable's
        path, see `transfer.learning_rates_by_depth`; 1 for all others.
    """

    def __init__(
        self,
        *args: Any,
        learning_rate_factors: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.learning_rate_factors = dict(learning_rate_factors or {})

    def build(self, variables: list) -> None:
        super().build(variables)  # type: ignore[misc]
        paths = [keras_compat.variable_path(variable) for variable in variables]
        for prefix in self.learning_rate_factors:
            if not any(path.startswith(prefix) for path in paths):
                warnings.warn(
                    f"{type(self).__name__}: no variable begins with {prefix!r}, a key of "
                    f"`learning_rate_factors`; the first is {next(iter(paths), None)!r}.",
                    UserWarning,
                    stacklevel=2,
                )

    def apply_gradients(self, grads_and_vars: Any, **kwargs: Any) -> Any:
        self._constants: _SharedConstants | None = _SharedConstants()
        try:
            return super().apply_gradients(grads_and_vars, **kwargs)
        finally:
            self._constants = None

    def _distributed_tf_update_step(
        self, distribution: Any, grads_and_vars: Any, learning_rate: Any
    ) -> None:
        if tf.distribute.has_strategy():
            super()._distributed_tf_update_step(distribution, grads_and_vars, learning_rate)  # type: ignore[misc]
            return
        # Keras goes through the strategy for each variable, a noticeable part of tracing.
        for gradient, variable in self._update_at_once(grads_and_vars, learning_rate):
            self.update_step(gradient, variable, learning_rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any = None) -> None:
        factor = self._learning_rate_factor(variable)
        if isinstance(gradient, tf.IndexedSlices) or not self._has_one_op():
            self._keras_update(gradient, variable, learning_rate, factor)
            return
        target = tf_variable(variable)
        rate = self._rate(learning_rate, factor, target.dtype)
        self._update(target, tf.cast(gradient, target.dtype), rate)

    def _rate(self, learning_rate: Any, factor: float, dtype: tf.DType) -> tf.Tensor:
        if learning_rate is None:
            learning_rate = self.learning_rate  # type: ignore[attr-defined]
        rate = self._constant("learning_rate", learning_rate, dtype)
        if factor == 1.0:
            return rate
        return self._constant(f"learning_rate * {factor}", rate * factor, dtype)

    def _update_at_once(self, grads_and_vars: Any, learning_rate: Any) -> Any:
        """Updates what one operation can update together; returns the pairs that are left."""
        return grads_and_vars

    def _keras_update(
        self, gradient: Any, variable: Any, learning_rate: Any, factor: float
    ) -> None:
        if keras_compat.UPDATE_STEP_TAKES_RATE:
            super().update_step(gradient, variable, learning_rate * factor)  # type: ignore[misc]
        elif factor == 1.0:
            super().update_step(gradient, variable)  # type: ignore[misc]
        else:
            raise ValueError(
                f"{type(self).__name__}: `learning_rate_factors` need the one-operation update "
                "with Keras 2 (momentum above 0, not centered, no amsgrad, dense gradients)."
            )

    def _learning_rate_factor(self, variable: Any) -> float:
        if not self.learning_rate_factors:
            return 1.0
        path = keras_compat.variable_path(variable)
        matches = [prefix for prefix in self.learning_rate_factors if path.startswith(prefix)]
        return self.learning_rate_factors[max(matches, key=len)] if matches else 1.0

    def get_config(self) -> dict:
        return {**super().get_config(), "learning_rate_factors": self.learning_rate_factors}

    def _constant(self, name: str, value: Any, dtype: tf.DType) -> tf.Tensor:
        """`value` as a tensor, made once for all variables of an update."""
        constants = getattr(self, "_constants", None) or _SharedConstants()
        return constants.get(name, value, dtype)

    def _has_one_op(self) -> bool:
        return True

    def _update(self, variable: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        raise NotImplementedError

    def _slot(self, slots: list, variable: tf.Variable) -> tf.Tensor:
        return tf_variable(optimizer_slot(self, slots, variable)).handle


@keras_compat.register_serializable("effnetv2_tf")
class RMSProp(_OneOpUpdate, keras.optimizers.RMSprop):  # type: ignore[misc]
    """RMSProp with epsilon inside the root, as the EfficientNet reference.

    ms = rho ms + (1 - rho) g^2; mom = momentum mom + rate g / sqrt(ms + epsilon); w -= mom.

    Args: those of `keras.optimizers.RMSprop`; `l2`, see `CoupledL2`;
      `learning_rate_factors`, by variable, see `transfer.learning_rates_by_depth`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "rmsprop")
        _check_shares_kept(rho=rho, momentum=momentum)
        super().__init__(
            learning_rate=learning_rate, rho=rho, momentum=momentum, epsilon=epsilon, **kwargs
        )

    def _has_one_op(self) -> bool:
        return self.momentum > 0 and not self.centered

    def _update_at_once(self, grads_and_vars: Any, learning_rate: Any) -> Any:
        compiled = operations.rms_prop_for(tf.float32) if self._has_one_op() else None
        if compiled is None:
            return grads_and_vars
        # By the factor of the learning rate, then by variable, each of which can change only once.
        groups: dict[float, dict[int, tuple[tf.Tensor, tf.Variable]]] = {}
        left = []
        for gradient, variable in grads_and_vars:
            target = tf_variable(variable)
            group = groups.setdefault(self._learning_rate_factor(variable), {})
            is_sparse = isinstance(gradient, tf.IndexedSlices)
            if is_sparse or target.dtype != tf.float32 or id(target) in group:
                left.append((gradient, variable))
            else:
                group[id(target)] = tf.cast(gradient, tf.float32), target
        for factor, pairs in groups.items():
            if not pairs:
                continue
            gradients, variables = zip(*pairs.values(), strict=True)
            compiled(
                variables=[variable.handle for variable in variables],
                mean_squares=[self._slot(self._velocities, v) for v in variables],
                momenta=[self._slot(self._momentums, v) for v in variables],
                gradients=gradients,
                rate=self._rate(learning_rate, factor, tf.float32),
                rho=self.rho,
                momentum=self.momentum,
                epsilon=self.epsilon,
            )
        return left

    def _update(self, variable: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._slot(self._velocities, variable),
            mom=self._slot(self._momentums, variable),
            lr=rate,
            rho=self._constant("rho", self.rho, variable.dtype),
            momentum=self._constant("momentum", self.momentum, variable.dtype),
            epsilon=self._constant("epsilon", self.epsilon, variable.dtype),
            grad=gradient,
        )


@keras_compat.register_serializable("effnetv2_tf")
class SGD(_OneOpUpdate, keras.optimizers.SGD):  # type: ignore[misc]
    """Stochastic gradient descent with momentum.

    Args: those of `keras.optimizers.SGD`; `l2` and `learning_rate_factors` as in `RMSProp`.
    """

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.9, **kwargs: Any) -> None:
        kwargs.setdefault("name", "sgd")
        _check_shares_kept(momentum=momentum)
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)

    def _has_one_op(self) -> bool:
        return self.momentum > 0

    def _update(self, variable: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self._slot(self.momentums, variable),
            lr=rate,
            grad=gradient,
            momentum=self._constant("momentum", self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )


@keras_compat.register_serializable("effnetv2_tf")
class AdamW(_OneOpUpdate, keras.optimizers.AdamW):  # type: ignore[misc]
    """Adam with decoupled weight decay.

    Args: those of `keras.optimizers.AdamW`; `l2` and `learning_rate_factors` as in `RMSProp`.
      Weight decay is not scaled by the factors.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "adamw")
        _check_shares_kept(beta_1=beta_1, beta_2=beta_2)
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            beta_1=beta_1,
            beta_2=beta_2,
            **kwargs,
        )

    def _has_one_op(self) -> bool:
        return not self.amsgrad

    def _update(self, variable: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        dtype = variable.dtype
        beta_1 = self._constant("beta_1", self.beta_1, dtype)
        beta_2 = self._constant("beta_2", self.beta_2, dtype)
        step = self._constant("step", tf.convert_to_tensor(self.iterations) + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._slot(self._momentums, variable),
            v=self._slot(self._velocities, variable),
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=self._constant("epsilon", self.epsilon, variable.dtype),
            grad=gradient,
        )
