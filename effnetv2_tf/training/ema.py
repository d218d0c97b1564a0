"""Exponential moving average of weights and batch-norm statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf.keras_compat import tf_variable


class ExponentialMovingAverage(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps an average of all of a model's weights; validation in `fit` uses the average.

    average = d average + (1 - d) weight after every step, with d = min(decay, (1 + t) /
    (10 + t)) at step t, as `tf.train.ExponentialMovingAverage` and the EfficientNet
    reference. Unlike Keras's `use_ema` it averages the moving statistics of batch
    normalisation too. The raw weights stay in the model; `applied()` swaps the averages in
    for a while.

    Args:
      decay: d; the papers' 0.9999 suits runs of 100,000 steps and more.
      warmup: whether early steps use the smaller d above.
    """

    def __init__(self, decay: float = 0.9999, warmup: bool = True) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(
                f"ExponentialMovingAverage: `decay` must lie in [0, 1). Received: decay={decay}."
            )
        self.decay = decay
        self.warmup = warmup
        self.averages: list[tf.Variable] = []
        self._applied = False

    def build(self, model: keras.Model) -> None:
        """Creates the averages as copies of the weights, once."""
        if self.averages:
            return
        self.set_model(model)
        self._weights = [tf_variable(weight) for weight in model.weights]
        # Every replica averages its own copy of the weights, which are alike, and so need not
        # tell the others.
        own_copy: dict[str, Any] = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        with model.distribute_strategy.scope():
            self.averages = [tf.Variable(w, name="ema", **own_copy) for w in self._weights]
            step = tf.cast(tf_variable(model.optimizer.iterations), tf.int64)
            self._last_step = tf.Variable(step, **own_copy)

    def on_train_begin(self, logs: Any = None) -> None:
        self.build(self.model)
        self.restore_raw()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._update()

    def on_test_begin(self, logs: Any = None) -> None:
        if self.averages and not self._applied:
            self._swap()

    def on_test_end(self, logs: Any = None) -> None:
        if self._applied:
            self._swap()

    def restore_raw(self) -> None:
        """Puts the raw weights back into the model, if an interrupted validation left averages."""
        if self._applied:
            self._swap()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the model has the averages for weights."""
        if self._applied:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @property
    def variables(self) -> list[tf.Variable]:
        """What a checkpoint needs to go on averaging."""
        return [self._last_step, *self.averages]

    @tf.function
    def _update(self) -> None:
        self.model.distribute_strategy.run(self._update_replica)

    def _update_replica(self) -> None:
        # Derived from the step counter: right with several steps per execution, and a call
        # after which no step was made changes nothing.
        step = tf.cast(tf_variable(self.model.optimizer.iterations), tf.int64)
        made = tf.cast(step - self._last_step, tf.float32)
        decay = tf.constant(self.decay)
        if self.warmup:
            t = tf.cast(step, tf.float32)
            decay = tf.minimum(decay, (1.0 + t) / (10.0 + t))
        share = 1.0 - decay**made
        for average, weight in zip(self.averages, self._weights, strict=True):
            difference = tf.cast(weight, average.dtype) - average
            average.assign_add(difference * tf.cast(share, average.dtype))
        self._last_step.assign(step)

    def _swap(self) -> None:
        self._exchange()
        self._applied = not self._applied

    @tf.function
    def _exchange(self) -> None:
        pairs = list(zip(self._weights, self.averages, strict=True))
        values = [(tf.identity(weight), tf.identity(average)) for weight, average in pairs]
        with tf.control_dependencies([value for pair in values for value in pair]):
            for (weight, average), (raw, averaged) in zip(pairs, values, strict=True):
                weight.assign(averaged)
                average.assign(raw)
