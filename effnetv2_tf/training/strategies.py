"""Questions about a `tf.distribute.Strategy`."""

from __future__ import annotations

import tensorflow as tf


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy's replicas are TPU cores."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_distributed(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy has several replicas, or TPU cores."""
    return is_tpu(strategy) or strategy.num_replicas_in_sync > 1


def worker_addresses(strategy: tf.distribute.Strategy) -> tuple[str, ...]:
    """`host:port` of a multi-worker strategy's processes, the chief first; else empty."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return ()
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return (*jobs.get("chief", ()), *jobs.get("worker", ()))
