"""The training step on several replicas, for `fit` to call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.training.strategies import is_tpu

Logs = dict[str, tf.Tensor]


def make_train_function(model: keras.Model) -> Callable[[Any], Logs]:
    """A function that makes `steps_per_execution` training steps on all replicas.

    It stands in for Keras's own, which with several workers fails on Keras 3 (it takes the
    mean of scalar logs over their first axis, keras issue 20585), and here is the same graph
    for every strategy and both versions of Keras: `strategy.run` and the mean of what it
    returns, in one `tf.function`, so that the devices communicate within the graph.

    Args:
      model: compiled, made under its strategy.

    Returns:
      A function from an iterator over the strategy's data to the mean of the replicas' logs; one
      that Python runs line by line if the model was compiled with `run_eagerly`.

    Raises:
      ValueError: if `jit_compile` is asked for on CPUs, whose replicas XLA cannot connect.
    """
    strategy = model.distribute_strategy
    steps = keras_compat.steps_per_execution(model)
    replica_step = _replica_step(model)

    @tf.autograph.experimental.do_not_convert
    def one_step(iterator: Any) -> Logs:
        logs = strategy.run(replica_step, args=(next(iterator),))
        return {name: _mean(strategy, value) for name, value in logs.items()}

    @tf.autograph.experimental.do_not_convert
    def all_steps(iterator: Any) -> Logs:
        logs = one_step(iterator)
        if steps > 1:
            _, logs = tf.while_loop(
                lambda made, _: made < steps,
                lambda made, _: (made + 1, one_step(iterator)),
                (tf.constant(1), logs),
                parallel_iterations=1,
            )
        return logs

    return all_steps if model.run_eagerly else tf.function(all_steps, reduce_retracing=True)


def _replica_step(model: keras.Model) -> Callable[[Any], Logs]:
    strategy = model.distribute_strategy
    if is_tpu(strategy) or not model.jit_compile:
        return model.train_step  # on TPUs everything is compiled
    devices = strategy.extended.worker_devices
    if any("GPU" not in device for device in devices):
        raise ValueError(
            f"`jit_compile` works with several replicas on GPUs only. Received: {list(devices)}."
        )
    return tf.function(model.train_step, jit_compile=True)


def _mean(strategy: tf.distribute.Strategy, value: Any) -> tf.Tensor:
    return strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None)
