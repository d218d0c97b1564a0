"""Exponential moving average of weights and batch-norm statistics."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf.keras_compat import (
    tf_variable,
    updates_counted,
    variable_path,
    variable_paths,
)


class ExponentialMovingAverage(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps an average of all of a model's weights; validation in `fit` uses the average.

    average = d average + (1 - d) weight after every update, with d = min(decay, (1 + t) /
    (10 + t)) at update t, as `tf.train.ExponentialMovingAverage` and the EfficientNet
    reference. Unlike Keras's `use_ema` it averages the moving statistics of batch
    normalisation too. The raw weights stay in the model; `applied()` swaps the averages in
    for a while.

    With `every="epoch"` it averages the weights at the ends of epochs, before they are
    evaluated, and begins with those of epoch 0; t then is the number of the epoch, from 1.
    Masters et al. (arXiv 2106.03640) do so with d = 0.97 throughout (`warmup=False`).

    While `averaging` is False the averages are the last weights themselves. A model that is
    compiled again goes on with its averages; t counts the new optimizer's updates. With
    `steps_per_execution` k only every k-th weights are seen, and count as k times the same. Of a
    model that its first batch builds, the averages begin with the weights after that batch.

    Other callbacks know the raw weights alone, unless `swap_on_epoch` shows them the averages:
    `ModelCheckpoint` and `EarlyStopping` want that, `BackupAndRestore` the raw weights. The
    averages begin anew with what it brings back (a warning says so); to keep them, save
    `named_variables` beside the model.

    Args:
      decay: d; the papers' 0.9999 suits runs of 100,000 steps and more.
      warmup: whether early updates use the smaller d above.
      every: `"step"` or `"epoch"`.
      swap_on_epoch: whether the model has the averages for weights at the end of an epoch, for the
        callbacks listed after this one, and after `fit`, as with Keras's `SwapEMAWeights`.
        `named_variables` are the raw weights then. A further `fit` goes on with the raw weights;
        if others were restored or loaded meanwhile, with those.
    """

    def __init__(
        self,
        decay: float = 0.9999,
        warmup: bool = True,
        every: Literal["step", "epoch"] = "step",
        swap_on_epoch: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(
                f"ExponentialMovingAverage: `decay` must lie in [0, 1). Received: decay={decay}."
            )
        if every not in ("step", "epoch"):
            raise ValueError(
                "ExponentialMovingAverage: `every` must be 'step' or 'epoch'. Received: "
                f"every={every!r}."
            )
        self.decay = decay
        self.warmup = warmup
        self.every = every
        self.swap_on_epoch = swap_on_epoch
        self.averaging = True
        self._epoch: int | None = None  # within `fit`
        self._begins = False  # with the first epoch of this `fit`
        self.averages: list[tf.Variable] = []
        self._applied = False
        self._applied_for_test = False
        self._shown: np.ndarray | None = None  # a fingerprint of what `fit` left in the model

    def build(self, model: keras.Model) -> None:
        """Creates the averages as copies of the weights, once.

        Raises:
          ValueError: if they are those of another model, it is not built or not compiled, or
            weights are in half precision.
        """
        if self.averages:
            self._check_same(model)
            return
        if not model.built:
            raise ValueError(
                "ExponentialMovingAverage: expected a model that has its weights. Received: "
                f"{model.name!r}, not built; call it on a batch first, or leave `build` to `fit`."
            )
        _check_precision(model)
        if getattr(model, "optimizer", None) is None:
            raise ValueError(
                "ExponentialMovingAverage: expected a compiled model: the updates that its "
                f"optimizer makes are counted. Received: {model.name!r}, not compiled."
            )
        self.set_model(model)
        self._optimizer = model.optimizer
        self._weights = [tf_variable(weight) for weight in model.weights]
        self._names = variable_paths(model.weights)
        # Every replica averages its own copy of the weights, which are alike, and so need not
        # tell the others.
        own_copy: dict[str, Any] = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        with model.distribute_strategy.scope():
            self.averages = [tf.Variable(w, name="ema", **own_copy) for w in self._weights]
            self._last_step = tf.Variable(self._step(), **own_copy)
        self._update = tf.function(self._update_replicas, autograph=False)

    def _check_same(self, model: keras.Model) -> None:
        if {id(tf_variable(w)) for w in model.weights} != {id(w) for w in self._weights}:
            raise ValueError(
                "ExponentialMovingAverage: expected the model whose weights it averages, received "
                f"another one, {model.name!r}. Make a new callback for each model."
            )

    def on_train_begin(self, logs: Any = None) -> None:
        self._begins, self._epoch = not self.averages, None
        if not self.model.built:
            return  # until its first batch
        self.build(self.model)
        self._follow(self.model.optimizer)
        if self._applied and self._shown is not None and np.any(self._shown != self._fingerprint()):
            # Other weights have taken the averages' place: those of another epoch, or loaded ones.
            self._applied, self._begins = False, True
        self.restore_raw()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.restore_raw()
        self._epoch = epoch
        if self._begins and self.averages:
            self._begins = False  # only now have all callbacks restored what they restore
            self._begin()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self.averages:
            self.build(self.model)
            self._begins = False
        if self.every == "step":
            self._update(tf.constant(self.decay if self.averaging else 0.0))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._end_epoch()
        if self.swap_on_epoch and not self._applied:
            self._swap()

    def on_train_end(self, logs: Any = None) -> None:
        self._epoch = None
        self._shown = self._fingerprint() if self._applied else None

    @tf.function(autograph=False)
    def _sums(self) -> tf.Tensor:
        return tf.stack([tf.reduce_sum(tf.cast(weight, tf.float64)) for weight in self._weights])

    def _fingerprint(self) -> np.ndarray:
        """What tells whether the model's weights were changed."""
        return self._sums().numpy()

    def on_test_begin(self, logs: Any = None) -> None:
        if self.averages and not self._applied:
            self._end_epoch()  # its evaluation comes before `on_epoch_end`
            self._swap()
            self._applied_for_test = True

    def on_test_end(self, logs: Any = None) -> None:
        if self._applied_for_test:
            self.restore_raw()

    def restore_raw(self) -> None:
        """Puts the raw weights back into the model, if it has the averages."""
        if self._applied:
            self._swap()
        self._applied_for_test, self._shown = False, None

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the model has the averages for weights."""
        self._check_built()
        if self._applied:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def adopt(self) -> None:
        """Makes the averages the model's weights; the raw ones are given up."""
        self._check_built()
        self.restore_raw()
        self._adopt()

    def _check_built(self) -> None:
        if not self.averages:
            raise RuntimeError(
                "ExponentialMovingAverage: there are no averages yet. Call `fit` with this "
                "callback, or `build(model)`, first."
            )

    @property
    def named_variables(self) -> dict[str, tf.Variable]:
        """What a checkpoint needs to go on averaging: the averages under their weights' names."""
        averages = dict(zip(self._names, self.averages, strict=True))
        return {"last_step": self._last_step, **averages}

    def _end_epoch(self) -> None:
        """Averages the weights of an epoch; done twice, or without a step made, it is nothing."""
        if self.every != "epoch" or self._epoch is None:
            return
        decay = self.decay if self.averaging and self._epoch > 0 else 0.0
        if self.warmup:
            decay = min(decay, (2.0 + self._epoch) / (11.0 + self._epoch))
        self._update(tf.constant(decay))

    def _follow(self, optimizer: Any) -> None:
        """Counts the steps of this optimizer from now on, if it is a new one."""
        if optimizer is not self._optimizer:
            self._optimizer = optimizer
            self._last_step.assign(self._step())
            # A trace keeps the old counter.
            self._update = tf.function(self._update_replicas, autograph=False)

    def _begin(self) -> None:
        """Begins with the weights as they are."""
        updates = int(self._step())
        if updates:
            warnings.warn(
                f"ExponentialMovingAverage: the optimizer has made {updates} updates before; the "
                "averages begin with the weights as they are now.",
                UserWarning,
                stacklevel=2,
            )
        self._last_step.assign(updates)
        for average, weight in zip(self.averages, self._weights, strict=True):
            average.assign(tf.identity(weight))

    def _step(self) -> tf.Tensor:
        return updates_counted(self._optimizer)

    def _update_replicas(self, decay: tf.Tensor) -> None:
        self.model.distribute_strategy.run(self._update_replica, args=(decay,))

    def _update_replica(self, decay: tf.Tensor) -> None:
        # Derived from the optimizer's counter, so that a call after which no update was made, as
        # where gradients are accumulated, changes nothing.
        step = self._step()
        made = tf.cast(tf.maximum(step - self._last_step, 0), tf.float32)
        if self.every == "epoch":
            made = tf.minimum(made, 1.0)
        elif self.warmup:
            t = tf.cast(step, tf.float32)
            decay = tf.minimum(decay, (1.0 + t) / (10.0 + t))
        share = 1.0 - decay**made
        for average, weight in zip(self.averages, self._weights, strict=True):
            if average.dtype.is_floating:
                difference = tf.cast(weight, average.dtype) - average
                average.assign_add(difference * tf.cast(share, average.dtype))
            else:  # a counter, or a switch
                average.assign(tf.identity(weight))
        self._last_step.assign(step)

    def _swap(self) -> None:
        self._exchange()
        self._applied = not self._applied

    @tf.function(autograph=False)
    def _adopt(self) -> None:
        for weight, average in zip(self._weights, self.averages, strict=True):
            weight.assign(tf.cast(average, weight.dtype))

    @tf.function(autograph=False)
    def _exchange(self) -> None:
        pairs = list(zip(self._weights, self.averages, strict=True))
        values = [(tf.identity(weight), tf.identity(average)) for weight, average in pairs]
        with tf.control_dependencies([value for pair in values for value in pair]):
            for (weight, average), (raw, averaged) in zip(pairs, values, strict=True):
                weight.assign(averaged)
                average.assign(raw)


def _check_precision(model: keras.Model) -> None:
    for weight in model.weights:
        dtype = tf_variable(weight).dtype
        if dtype in (tf.float16, tf.bfloat16):
            raise ValueError(
                "ExponentialMovingAverage: expected weights in float32, in which small changes are "
                f"not rounded away. Received: {variable_path(weight)} in {dtype.name}. Mixed "
                "precision ('mixed_bfloat16') keeps them in float32."
            )
