"""Validation on several machines, each of which evaluates its share of the data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import tensorflow as tf


class DistributedValidation(keras.callbacks.Callback):  # type: ignore[misc]
    """Evaluates after epochs and adds `val_...` to the logs, as `validation_data` of `fit` does.

    For strategies under which Keras 3's own evaluation fails (several workers) or is not known
    to work (TPUs). The sums behind the metrics are added up over all replicas, so that shares
    of unequal length count for what they are. Put this callback before those that read the
    logs.

    Args:
      make_dataset: from a `tf.distribute.InputContext` to the batches, of a replica's size, of
        that machine's share.
      epochs: after which to evaluate, counted from 1.
      callbacks: the list that `fit` gets; their `on_test_...` methods are called.
    """

    def __init__(
        self,
        make_dataset: Callable[[tf.distribute.InputContext], tf.data.Dataset],
        epochs: Collection[int],
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        super().__init__()
        self._make_dataset = make_dataset
        self._epochs = frozenset(epochs)
        self._callbacks = callbacks
        self._dataset: Any = None
        self._function: Any = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch + 1 not in self._epochs or logs is None:
            return
        logs.update({f"val_{name}": value for name, value in self.evaluate().items()})

    def evaluate(self) -> dict[str, float]:
        """The compiled metrics of the model over the data set."""
        if self._function is None:
            self._dataset = self.model.distribute_strategy.distribute_datasets_from_function(
                self._make_dataset
            )
            self._function = _make_test_function(self.model)
        for callback in self._callbacks:
            callback.on_test_begin()
        self.model.reset_metrics()
        iterator = iter(self._dataset)
        batch = 0
        while self._function(iterator):
            for callback in self._callbacks:
                callback.on_test_batch_end(batch)
            batch += 1
        results = self.model.get_metrics_result()
        metrics = {name: float(value) for name, value in results.items()}
        for callback in self._callbacks:
            callback.on_test_end(metrics)
        return metrics


def _make_test_function(model: keras.Model) -> Callable[[Any], tf.Tensor]:
    """A function that evaluates the next batches; returns whether there were any.

    Whether batches are left is decided in the graph, where the machines agree upon it: one
    that has run out of data gets empty batches until all have.
    """
    strategy = model.distribute_strategy

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def evaluate_next(iterator: Any) -> tf.Tensor:
        batches = iterator.get_next_as_optional()

        def evaluate() -> tf.Tensor:
            strategy.run(model.test_step, args=(batches.get_value(),))
            return tf.constant(True)

        return tf.cond(batches.has_value(), evaluate, lambda: tf.constant(False))

    return evaluate_next
