"""The optimizers of tensorflow-addons by name, and what to use where it does not work.

Its last release, 0.23, needs TensorFlow 2.15 and Keras 2.15: `pip install 'effnetv2_tf[addons]'`.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from effnetv2_tf.errors import UsageError, suggestion
from effnetv2_tf.keras_compat import tf_variable, variable_paths
from effnetv2_tf.training.coupled_l2 import with_coupled_l2
from effnetv2_tf.training.ema import ExponentialMovingAverage

# Name in tensorflow-addons: what a recipe for the newest Keras says instead. COCOB is left out,
# which takes no learning rate, and MultiOptimizer, which is made of layers.
REPLACEMENTS: Mapping[str, str] = {
    "AdaBelief": "optimizer.name=adamw",
    "ConditionalGradient": "optimizer.name=sgd with optimizer.gradient_clip_norm",
    "LAMB": "optimizer.name=Lamb",
    "LazyAdam": "optimizer.name=Adam",
    "Lookahead": "the inner optimizer with training.ema_decay",
    "MovingAverage": "the inner optimizer with training.ema_decay",
    "NovoGrad": "optimizer.name=Lamb",
    "ProximalAdagrad": "optimizer.name=Adagrad or Ftrl",
    "RectifiedAdam": "optimizer.name=adamw with learning_rate.warmup_epochs",
    "SGDW": "optimizer.name=sgd with optimizer.l2, or SGD with optimizer.weight_decay",
    "SWA": "the inner optimizer with training.ema_decay and ema_every=epoch",
    "Yogi": "optimizer.name=Adam",
}
WRAPPERS = ("Lookahead", "MovingAverage", "SWA")
_OF_THE_INNER: tuple[str, ...] = ("learning_rate", "weight_decay")
_AVERAGE_SLOT = "average"


def addons_optimizer_name(name: str) -> str | None:
    """The name in tensorflow-addons, whatever the case of `name`; None if it has none such."""
    by_lower_case = {known.lower(): known for known in REPLACEMENTS}
    return by_lower_case.get(name.lower())


def addons_optimizer(name: str, options: Mapping[str, Any]) -> Any:
    """An optimizer of tensorflow-addons.

    Args:
      name: a key of `REPLACEMENTS`.
      options: of the constructor. For `WRAPPERS`, `optimizer` names the inner one, alone or
        as a mapping of `name` and its options, and the learning rate and the weight decay are
        the inner one's.

      `l2` is that of `coupled_l2.CoupledL2`.

    Raises:
      UsageError: if tensorflow-addons cannot be imported, or for an unknown inner optimizer.
      TypeError, ValueError: for options that the optimizer does not take.
    """
    classes = _import_optimizers(name)
    optimizer_class = with_coupled_l2(getattr(classes, name))
    own = dict(options)
    if name in WRAPPERS:
        inner = own.pop("optimizer", None)
        shared = {key: own.pop(key) for key in _OF_THE_INNER if key in own}
        own["optimizer"] = _inner_optimizer(classes, name, inner, shared)
    return optimizer_class(**own)


def _import_optimizers(name: str) -> Any:
    try:
        return importlib.import_module("tensorflow_addons").optimizers
    except ImportError as error:
        raise UsageError(
            f"optimizer.name: {name} is an optimizer of tensorflow-addons, which needs "
            f"TensorFlow 2.15; use {REPLACEMENTS[name]}, or install that stack with "
            "pip install 'effnetv2_tf[addons]' under Python 3.10 or 3.11"
        ) from error


def _inner_optimizer(classes: Any, wrapper: str, inner: Any, options: dict[str, Any]) -> Any:
    """The optimizer that a wrapper wraps: addons' or one of Keras's older ones, which it needs."""
    if isinstance(inner, Mapping):
        options = {**options, **inner}
        inner = options.pop("name", None)
    legacy = keras.optimizers.legacy
    names = [name for name in REPLACEMENTS if name not in WRAPPERS]
    names += [name for name in vars(legacy) if isinstance(getattr(legacy, name), type)]
    by_lower_case = {name.lower(): name for name in names}
    if not isinstance(inner, str) or inner.lower() not in by_lower_case:
        hint = suggestion(str(inner), names) or f"; known: {', '.join(sorted(names))}"
        raise UsageError(
            f"optimizer.options.optimizer: expected the name of the optimizer that {wrapper} "
            f"wraps, received {inner!r}{hint}"
        )
    name = by_lower_case[inner.lower()]
    clips = sorted(option for option in options if option.startswith(("clip", "global_clip")))
    if clips:
        raise UsageError(
            f"optimizer.options.optimizer.{clips[0]}: {wrapper} leaves the clipping of the "
            f"optimizer that it wraps out; set optimizer.options.{clips[0]}"
        )
    return getattr(classes if name in REPLACEMENTS else legacy, name)(**options)


class OptimizerAverages(ExponentialMovingAverage):
    """The averages that MovingAverage and SWA of tensorflow-addons keep; validation uses them.

    In place of `ExponentialMovingAverage`, whose methods it has. The optimizer averages the
    trainable weights alone; batch normalisation's statistics stay those of the last step.
    """

    def __init__(self) -> None:
        super().__init__(decay=0.0)

    def build(self, model: keras.Model) -> None:
        """Finds the optimizer's averages, once."""
        if self.averages:
            return
        self.set_model(model)
        self._optimizer = model.optimizer
        self._weights = [tf_variable(weight) for weight in model.trainable_variables]
        self._names = variable_paths(model.trainable_variables)
        self.averages = [model.optimizer.get_slot(w, _AVERAGE_SLOT) for w in self._weights]

    def _follow(self, optimizer: Any) -> None:
        """A new optimizer has averages of its own."""
        if optimizer is not self._optimizer:
            self.averages = []
            self.build(self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Nothing, where the optimizer's averages count; otherwise they follow the weights."""
        if not self.averaging and self._has_begun():
            for average, weight in zip(self.averages, self._weights, strict=True):
                average.assign(weight)

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        if not self._has_begun():
            warnings.warn(
                f"SWA has averaged nothing: it begins after update {self._first_update()} "
                f"(start_averaging), and {int(self._optimizer.iterations)} were made. The weights "
                "are those of the last step.",
                UserWarning,
                stacklevel=2,
            )

    def on_test_begin(self, logs: Any = None) -> None:
        if self._has_begun():
            super().on_test_begin(logs)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """See `ExponentialMovingAverage`; until there are averages, nothing changes."""
        with super().applied() if self._has_begun() else contextlib.nullcontext():
            yield

    def adopt(self) -> None:
        """See `ExponentialMovingAverage`; until there are averages, nothing changes."""
        if self._has_begun():
            super().adopt()

    def _has_begun(self) -> bool:
        """Whether there are averages; what SWA has before are the weights it began with."""
        return int(self._optimizer.iterations) > self._first_update()

    def _first_update(self) -> int:
        is_late = "start_averaging" in self._optimizer._hyper
        return int(self._optimizer._get_hyper("start_averaging")) if is_late else -1

    @property
    def named_variables(self) -> dict[str, Any]:
        """The averages, if any, so that a checkpoint has them under names as well as as slots."""
        return dict(zip(self._names, self.averages, strict=True)) if self._has_begun() else {}


def exclude_from_weight_decay(optimizer: Any, name: str, weights: Sequence[Any]) -> None:
    """Has an optimizer of tensorflow-addons decay none of the given weights.

    Args:
      optimizer: to be changed, before its first step.
      name: a key of `REPLACEMENTS`.
      weights: that are left alone.

    Raises:
      UsageError: if it decays all or nothing.
    """
    inner = getattr(optimizer, "_optimizer", optimizer)
    # A wrapper goes past the step in which SGDW learns what to decay.
    decays_some = hasattr(inner, "exclude_from_weight_decay")
    if not decays_some or (inner is not optimizer and hasattr(inner, "_decay_var_list")):
        raise UsageError(
            f"optimizer.weight_decay: {name} would decay the biases and norms, too; expected LAMB "
            "or SGDW, or optimizer.l2 in its place"
        )
    names = [re.escape(weight.name.partition(":")[0]) for weight in weights]
    inner.exclude_from_weight_decay = [rf"^{name}(/replica_\d+)?(:\d+)?$" for name in names]


def keeps_averages(optimizer: Any) -> bool:
    """Whether an optimizer averages the weights itself, as MovingAverage and SWA do."""
    return hasattr(optimizer, "assign_average_vars")
