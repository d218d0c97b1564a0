"""Letting go of tf.data iterators without waiting for them."""

from __future__ import annotations

import threading
from typing import Any

import tensorflow as tf


def let_go(references: list[Any]) -> None:
    """Empties a list that holds the last references to iterators, in a thread of its own.

    TensorFlow ends an iterator's autotuning before it lets go of it. If the tuning thread wakes up
    a moment too early, it sleeps on until its next turn, for as long as the iterator has been
    used and up to a minute, and whoever let go waits: on a busy machine, every few times.
    """
    threading.Thread(target=references.clear, name="let_go").start()


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same, whose iterators nobody waits for (see `let_go`) and which nothing tunes."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
