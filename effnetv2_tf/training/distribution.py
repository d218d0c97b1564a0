"""Which devices train, and how."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.training.distributed_cluster import EXAMPLE, Cluster, read_cluster
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.schedule import StageSchedule
from effnetv2_tf.training.strategies import is_tpu

MOST_STEPS_PER_EXECUTION = 100
KINDS = ("auto", "one_device", "mirrored", "multi_worker")

# What an unreachable or unknown TPU was seen to raise, or is documented to.
_TPU_ERRORS = (ValueError, RuntimeError, OSError, ImportError, tf.errors.OpError)


def choose_strategy(
    kind: str = "auto", tpu: str | None = None, devices: Sequence[str] | None = None
) -> tuple[tf.distribute.Strategy, str]:
    """The distribution strategy for a run, and a line that says what was chosen and why.

    To be called before TensorFlow has computed anything: virtual CPUs and the connections
    between workers can only be set up then.

    Args:
      kind: `"auto"` (the TPU if one is named, all GPUs if there are several, else one
        device), `"one_device"`, `"mirrored"` (several devices of this machine) or
        `"multi_worker"` (several machines, named in the environment variable TF_CONFIG).
      tpu: name or address of a TPU, `"local"` for one attached to this machine.
      devices: for `"mirrored"` e.g. `["GPU:0", "GPU:1"]`, None for all GPUs; for
        `"one_device"` a single one. `CPU:1` and above are virtual devices that share the
        processor: they rehearse mirrored training, and do not hasten it.

    Raises:
      UsageError: if the devices, workers or TPU asked for are not to be had.
    """
    if kind not in KINDS:
        raise UsageError(f"--strategy: expected one of {', '.join(KINDS)}, received {kind!r}")
    devices = [device.upper() for device in devices or ()]
    if tpu is not None:
        _refuse_beside("--tpu", kind if kind != "auto" else None, devices)
        return _tpu_strategy(tpu)
    cluster = read_cluster()
    if kind == "multi_worker":
        _refuse_beside("--strategy=multi_worker", None, devices)
        return _multi_worker_strategy(cluster)
    if cluster is not None and cluster.size > 1:
        raise UsageError(
            f"TF_CONFIG names {cluster.size} workers, which --strategy={kind} would leave to train "
            "on their own; expected --strategy=multi_worker, or TF_CONFIG unset"
        )
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "auto":
        kind = "mirrored" if len(gpus) > 1 or len(devices) > 1 else "one_device"
    if kind == "mirrored":
        return _mirrored_strategy(devices)
    return _one_device_strategy(devices, bool(gpus))


def check_batch_sizes(strategy: tf.distribute.Strategy, sizes: Mapping[str, Iterable[int]]) -> None:
    """Refuses global batches that the replicas cannot share out evenly.

    Args:
      strategy: of the run.
      sizes: batch sizes by the recipe key that they come from.

    Raises:
      UsageError: naming the key and the nearest sizes that can be.
    """
    replicas = strategy.num_replicas_in_sync
    for key, values in sizes.items():
        for size in values:
            if size % replicas:
                below = size // replicas * replicas
                near = " or ".join(str(n) for n in (below, below + replicas) if n)
                raise UsageError(
                    f"{key}: batch sizes are over all replicas; expected a multiple of {replicas}, "
                    f"the number of replicas, received {size}; try {near}"
                )


def adapt_to_devices(recipe: Recipe, strategy: tf.distribute.Strategy) -> Recipe:
    """The recipe with what suits the devices where it leaves the choice open.

    On TPUs that is mixed_bfloat16, unless the recipe sets `training.precision`.
    """
    if not is_tpu(strategy) or "precision" in recipe.training.model_fields_set:
        return recipe
    training = recipe.training.model_copy(update={"precision": "mixed_bfloat16"})
    return recipe.model_copy(update={"training": training})


def steps_per_execution(
    recipe: Recipe, schedule: StageSchedule, strategy: tf.distribute.Strategy
) -> int:
    """The steps that the devices make before they ask the host.

    The recipe's, or, on TPUs and unless the recipe sets it, as many as divide the epochs of all
    stages, and at most 100.

    Raises:
      UsageError: if the recipe's do not divide the epochs of all stages.
    """
    training = recipe.training
    common = math.gcd(*(stage.steps_per_epoch for stage in schedule.stages))
    if not is_tpu(strategy) or "steps_per_execution" in training.model_fields_set:
        if common % training.steps_per_execution:
            raise UsageError(
                "training.steps_per_execution: expected a divisor of every stage's steps in an "
                f"epoch, thus of {common}, received {training.steps_per_execution}"
            )
        return training.steps_per_execution
    return max(n for n in range(1, MOST_STEPS_PER_EXECUTION + 1) if common % n == 0)


def _refuse_beside(flag: str, kind: str | None, devices: Sequence[str]) -> None:
    if kind is not None:
        raise UsageError(f"{flag} chooses the strategy itself; leave --strategy={kind} out")
    if devices:
        raise UsageError(f"{flag} takes all devices that there are; leave --devices out")


def _one_device_strategy(
    devices: Sequence[str], has_gpu: bool
) -> tuple[tf.distribute.Strategy, str]:
    if len(devices) > 1:
        raise UsageError(
            f"--devices: expected a single one with --strategy=one_device, received "
            f"{', '.join(devices)}"
        )
    if devices:
        _prepare(devices)
        strategy = tf.distribute.OneDeviceStrategy(devices[0])
        return strategy, f"Training on {devices[0]} (--devices)."
    device = "the GPU" if has_gpu else "the CPU: no GPU was found"
    return tf.distribute.get_strategy(), f"Training on {device}."


def _mirrored_strategy(devices: Sequence[str]) -> tuple[tf.distribute.Strategy, str]:
    _prepare(devices)
    used = list(devices) or [
        device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("GPU")
    ]
    used = used or ["CPU:0"]
    # Collectives between CPUs of one process gain nothing over plain copies, which need no
    # threads of their own; between GPUs None means NCCL.
    on_cpus = all(device.startswith("CPU") for device in used)
    operations = tf.distribute.ReductionToOneDevice() if on_cpus else None
    try:
        strategy = tf.distribute.MirroredStrategy(used, cross_device_ops=operations)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise UsageError(f"--devices: {error}") from error
    why = "--devices" if devices else "all GPUs" if not on_cpus else "no GPU was found"
    count = strategy.num_replicas_in_sync
    noun = "replica" if count == 1 else "replicas"
    return strategy, f"Training on {count} mirrored {noun}: {', '.join(used)} ({why})."


def _prepare(devices: Sequence[str]) -> None:
    """Makes the virtual CPUs among `devices`, and checks that all of them are there."""
    indices = [int(match[1]) for d in devices if (match := re.fullmatch(r"CPU:(\d+)", d))]
    if max(indices, default=0) > 0:
        _divide_cpu(max(indices) + 1)
    found = {d.name.removeprefix("/device:") for d in tf.config.list_logical_devices()}
    for device in devices:
        if device not in found:
            raise UsageError(
                f"--devices: expected some of {', '.join(sorted(found))}, received {device}"
            )


def _divide_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    there = tf.config.get_logical_device_configuration(cpu) or ()
    if len(there) >= count:
        return
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    try:
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError as error:
        raise UsageError(f"--devices: {error}; choose them before any computation") from error


def _multi_worker_strategy(cluster: Cluster | None) -> tuple[tf.distribute.Strategy, str]:
    if cluster is None:
        raise UsageError(
            "--strategy: multi_worker needs the environment variable TF_CONFIG, received none; "
            f"e.g. on the first of two machines TF_CONFIG='{EXAMPLE}'"
        )
    strategy = cluster.connect()
    replicas = strategy.num_replicas_in_sync
    return strategy, (
        f"Training on {replicas} replicas on {cluster.size} workers (TF_CONFIG); this is worker "
        f"{cluster.index}, {cluster.addresses[cluster.index]}"
        + (", which writes the files." if cluster.index == 0 else ".")
    )


def _tpu_strategy(tpu: str) -> tuple[tf.distribute.Strategy, str]:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        if tpu != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except _TPU_ERRORS as error:
        raise UsageError(
            f"--tpu: cannot use TPU {tpu!r}: {error}; expected the name of a running TPU, its "
            "address grpc://host:8470, or local"
        ) from error
    return strategy, (
        f"Training on TPU {tpu} (--tpu): {strategy.num_replicas_in_sync} cores, image sizes are "
        "static, every stage is compiled once."
    )
