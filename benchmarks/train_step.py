"""Training steps per second, against keras.applications, timm and the machine itself.

    python benchmarks/train_step.py --models=B0,S --torch_python=PATH --output=result.json

Each contestant runs in a process of its own and all take turns: this package, with its compiled
operations (`python -m effnetv2_tf.kernels`) and without; Keras's own networks, with oneDNN where
TensorFlow's own settings have it, and with it on, as in this package's programs; timm (PyTorch on
the CPU, channels last, training mode, RMSprop with momentum), eager and with torch.compile; and
matrix products of 2048 to 4096 rows in TensorFlow, which say what the machine can do. The same
synthetic batch is used again and again, without XLA.

A step is counted as three forward passes of two operations for each multiply-add
(`effnetv2_tf.count_flops`): forward, gradients of activations, gradients of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from _measure import (
    TENSORFLOWS_OWN_SETTINGS,
    Comparison,
    Rounds,
    Target,
    Workers,
    check_names,
    define_flags,
    finish,
    run,
    torch_versions,
)
from _worker import Environment, Worker
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.kernels.compiler import SWITCH

_OURS = "effnetv2_tf"
_NOT_COMPILED = "effnetv2_tf, not compiled"
_KERAS = "keras.applications"
_KERAS_ONEDNN = "keras.applications, oneDNN on"
_EAGER = "timm, eager"
_COMPILED = "timm, torch.compile"
_MACHINE = "the machine's matrix products"
_PEERS: dict[str, tuple[str, Target | None]] = {
    "keras": (_KERAS, Target("at least", 2.0)),
    "keras_onednn": (_KERAS_ONEDNN, Target("at least", 2.0)),
    "timm": (_EAGER, Target("at least", 1.4)),
    "timm_compile": (_COMPILED, Target("at least", 1.2)),
    "machine": (_MACHINE, Target("at least", 0.45)),
    "not_compiled": (_NOT_COMPILED, None),
}
_GEMM_SIDES = [2048, 3072, 4096]
_OPERATIONS = 3 * 2  # of a training step, for each multiply-add of the forward pass

define_flags(rounds=7, torch=True)
_MODELS = flags.DEFINE_list("models", "B0,S", "Of EfficientNetV2: B0, S.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "Side in pixels.", 32)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images in a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 6, "Steps in one measurement.", 1)
_CHOSEN = flags.DEFINE_multi_enum("peer", list(_PEERS), list(_PEERS), "Against whom.")


def measure(model: str) -> list[Comparison]:
    """All peers chosen, for one network."""
    rounds = Rounds()
    with Workers() as workers:
        for name, prepare in contestants(workers, model).items():
            rounds.enter(name, prepare)
        rounds.run(flags.FLAGS.rounds)
    what = f"V2-{model} training, {_IMAGE_SIZE.value} px, batch {_BATCH_SIZE.value}"
    return [compare(rounds, what, model, *_PEERS[name]) for name in _CHOSEN.value]


def compare(rounds: Rounds, what: str, model: str, peer: str, target: Target | None) -> Comparison:
    """One line; the machine's counts operations in place of images."""
    if peer != _MACHINE:
        return rounds.compare(_OURS, peer, what=what, unit="images/s", target=target)
    gigaflops = operations_per_image(model) / 1e9
    share = rounds.compare(_OURS, peer, what=what, unit="GFLOP/s", target=target)
    note = f"{gigaflops:.3g} GFLOP for each image"
    return replace(share, ours=[rate * gigaflops for rate in share.ours], note=note)


def contestants(workers: Workers, model: str) -> dict[str, Callable[[], Callable[[], float]]]:
    """How each contestant is made ready, ours first."""
    shape = {"image_size": _IMAGE_SIZE.value, "batch_size": _BATCH_SIZE.value}

    def keras(library: str, environment: Environment = None) -> Callable[[], float]:
        worker = workers.start("_keras_worker.py", environment=environment)
        worker.ask("first_step", library=library, model=model, **shape)
        return images_per_second(worker)

    def timm(compiled: bool) -> Callable[[], float]:
        worker = workers.start_torch()
        worker.ask("first_step", model=model, compiled=compiled, **shape)
        return images_per_second(worker)

    def gemm() -> Callable[[], float]:
        worker = workers.start("_keras_worker.py")
        worker.ask("gemm", sides=_GEMM_SIDES)
        return lambda: worker.ask("gemm", sides=_GEMM_SIDES) / 1e9

    peers = {
        "keras": lambda: keras(_KERAS, TENSORFLOWS_OWN_SETTINGS),
        "keras_onednn": lambda: keras(_KERAS),
        "timm": lambda: timm(compiled=False),
        "timm_compile": lambda: timm(compiled=True),
        "machine": gemm,
        "not_compiled": lambda: keras(_OURS, {SWITCH: "0"}),
    }
    chosen = {_PEERS[name][0]: peers[name] for name in _CHOSEN.value}
    return {_OURS: lambda: keras(_OURS), **chosen}


def images_per_second(worker: Worker) -> Callable[[], float]:
    """What a worker does in each round, after two steps that do not count."""
    worker.ask("steps", count=2)
    images = _BATCH_SIZE.value * _STEPS.value
    return lambda: images / worker.ask("steps", count=_STEPS.value)


def operations_per_image(model: str) -> int:
    """Floating-point operations of a training step, for each image."""
    programs.import_tensorflow()
    from effnetv2_tf.models import families
    from effnetv2_tf.models.flops import count_flops

    spec = getattr(families, f"EFFICIENTNETV2_{model}")
    return _OPERATIONS * count_flops(spec, _IMAGE_SIZE.value)


def main() -> None:
    check_names(_MODELS, ("B0", "S"))
    comparisons = [comparison for model in _MODELS.value for comparison in measure(model)]
    finish(comparisons, versions=torch_versions())


if __name__ == "__main__":
    run(main)
