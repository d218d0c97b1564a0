"""Which devices train, and how."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from effnetv2_tf.errors import UsageError


def choose_strategy(
    kind: str = "auto", tpu: str | None = None, devices: Sequence[str] | None = None
) -> tuple[tf.distribute.Strategy, str]:
    """The distribution strategy for a run, and a line that says what was chosen and why.

    Args:
      kind: `"auto"` (the TPU if one is named, all GPUs if there are several, else one
        device), `"one_device"` or `"mirrored"`; `"multi_worker"` is refused: Keras 3's
        `fit` does not work with it.
      tpu: name or address of a TPU, `"local"` for one attached to this machine.
      devices: for `"mirrored"`, e.g. `["GPU:0", "GPU:1"]`; None for all.

    Raises:
      UsageError: if the devices asked for are not to be had.
    """
    if tpu is not None:
        return _tpu_strategy(tpu), f"Training on TPU {tpu} (--tpu)."
    gpus = tf.config.list_logical_devices("GPU")
    if kind == "auto":
        kind = "mirrored" if len(gpus) > 1 or devices else "one_device"
    if kind == "one_device":
        device = "the GPU" if gpus else "the CPU: no GPU was found"
        return tf.distribute.get_strategy(), f"Training on {device}."
    if kind == "multi_worker":
        raise UsageError(
            "--strategy: multi_worker is not supported yet; expected auto, one_device or mirrored"
        )
    try:
        strategy = tf.distribute.MirroredStrategy(list(devices) if devices else None)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"--devices: {error}") from error
    return strategy, f"Training on {strategy.num_replicas_in_sync} mirrored devices."


def _tpu_strategy(tpu: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        if tpu != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UsageError(f"--tpu: cannot reach TPU {tpu!r}: {error}") from error
    return tf.distribute.TPUStrategy(resolver)
