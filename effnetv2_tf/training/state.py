"""Everything that a run needs to go on as if it had never stopped, as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.keras_compat import tf_variable, variable_path
from effnetv2_tf.training.ema import ExponentialMovingAverage


class TrainingState:
    """The variables of a run by name: weights, optimizer, averages, random streams, metrics.

    Args:
      model: compiled, its optimizer built and nothing frozen since.
      ema: built, or None.
    """

    def __init__(self, model: keras.Model, ema: ExponentialMovingAverage | None = None) -> None:
        self._model = model
        self._trained = list(model.trainable_variables)  # freezing shortens the model's list
        self._ema = ema

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of the values, to be written to a checkpoint."""
        return {name: variable.numpy() for name, variable in self._variables().items()}

    def metric_arrays(self) -> dict[str, np.ndarray]:
        """Copies of the metrics' sums alone."""
        named = self._variables().items()
        return {name: v.numpy() for name, v in named if name.startswith("metric/")}

    def restore(self, arrays: Mapping[str, np.ndarray], origin: Any) -> None:
        """Assigns the values of a checkpoint to every variable but the metrics'.

        Raises:
          UsageError: naming the first variable that is missing or has another shape.
        """
        variables = {k: v for k, v in self._variables().items() if not k.startswith("metric/")}
        check_matches(variables, arrays, origin)
        for name, variable in variables.items():
            variable.assign(arrays[name])

    def restore_metrics(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Assigns the sums of an epoch that was interrupted; called after Keras reset them."""
        for name, variable in self._variables().items():
            if name.startswith("metric/") and name in arrays:
                variable.assign(arrays[name])

    def _variables(self) -> dict[str, tf.Variable]:
        model = self._model
        random = enumerate(keras_compat.random_state_variables(model))
        groups: dict[str, Mapping[str, Any]] = {
            "optimizer": keras_compat.named_optimizer_variables(model.optimizer, self._trained),
            "ema": self._ema.named_variables if self._ema else {},
            "random": {f"{index:04d}": variable for index, variable in random},
            "metric": keras_compat.named_metric_variables(model),
        }
        named = weights_by_name(model)
        for group, variables in groups.items():
            named |= {f"{group}/{name}": tf_variable(v) for name, v in variables.items()}
        return named


def weights_by_name(model: keras.Model) -> dict[str, tf.Variable]:
    """A model's weights under the names they have in checkpoints."""
    named = {f"model/{variable_path(w)}": tf_variable(w) for w in model.weights}
    if len(named) != len(model.weights):
        raise ValueError(f"Model {model.name!r}: several weights have the same name.")
    return named


def averaged_weights(arrays: Mapping[str, np.ndarray], model: keras.Model) -> dict[str, np.ndarray]:
    """A checkpoint's weights for inference: the averages if it has them, else the raw ones."""
    values = {}
    for name in weights_by_name(model):
        average = name.replace("model/", "ema/", 1)
        if average in arrays or name in arrays:
            values[name] = arrays[average if average in arrays else name]
    return values


def load_for_inference(
    model: keras.Model, arrays: Mapping[str, np.ndarray], origin: Any, raw: bool = False
) -> None:
    """Puts a checkpoint's averaged (or raw) weights into a model.

    Raises:
      UsageError: naming the first weight that is missing or has another shape.
    """
    values = dict(arrays) if raw else averaged_weights(arrays, model)
    variables = weights_by_name(model)
    check_matches(variables, values, origin)
    for name, variable in variables.items():
        variable.assign(values[name])


def check_matches(
    variables: Mapping[str, tf.Variable], arrays: Mapping[str, np.ndarray], origin: Any
) -> None:
    """Raises a UsageError that names the first variable `arrays` cannot fill."""
    for name, variable in variables.items():
        why = "the recipe describes another network"
        if name.startswith("optimizer/"):
            why = "the run had another optimizer, or this one under the other version of Keras"
        if name not in arrays:
            raise UsageError(f"{origin}: {name} is missing; {why}")
        if tuple(variable.shape) != arrays[name].shape:
            raise UsageError(
                f"{origin}: {name} has shape {arrays[name].shape}, expected "
                f"{tuple(variable.shape)}; {why}"
            )
