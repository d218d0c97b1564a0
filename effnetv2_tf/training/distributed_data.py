"""Datasets for the replicas of a distribution strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from effnetv2_tf.training.strategies import is_distributed, is_tpu, worker_addresses

MakeDataset = Callable[[Any], tf.data.Dataset]


def num_input_pipelines(strategy: tf.distribute.Strategy) -> int:
    """How many machines feed the replicas of a strategy."""
    if is_tpu(strategy):
        return int(strategy.extended.num_hosts)
    return max(1, len(worker_addresses(strategy)))


def distribute(strategy: tf.distribute.Strategy, make_dataset: MakeDataset, shares: bool) -> Any:
    """What a strategy's train function iterates over.

    On one machine every batch is made whole and divided among the replicas, so that it does
    not depend on their number. Several machines make their shares themselves, if
    `make_dataset` can; otherwise TensorFlow has each of them make everything and drop what is
    not its own.

    Args:
      strategy: of the model.
      make_dataset: from an input context to batches: of the global size if that is None, else
        of a replica's size, from the share of this machine.
      shares: whether `make_dataset` heeds the input context.
    """
    if shares and num_input_pipelines(strategy) > 1:
        return strategy.distribute_datasets_from_function(make_dataset)
    dataset = make_dataset(None)
    if not is_distributed(strategy):
        return dataset
    # TensorFlow would by itself deal out files, and several machines together skip more steps
    # than one did.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return strategy.experimental_distribute_dataset(dataset.with_options(options))
