"""Worker: training steps of this package's networks and of keras.applications'.

Libraries are `effnetv2_tf` or `keras.applications`. Each side is used as its documentation
says: its own constructor and optimizer, `compile`, `fit`.
"""

from __future__ import annotations

import resource
import time
from typing import Any

from _worker import serve

import effnetv2_tf
from effnetv2_tf import programs

_CLASSES = 1000
_state: dict[str, Any] = {}


def first_step(
    library: str, model: str, image_size: int, batch_size: int, recompute: bool | str = False
) -> None:
    """Imports, builds and makes one training step in `fit`; see `set_recompute` for the last."""
    find_constructor(library, model)
    _state["after_import"] = peak_megabytes()
    _state["model"] = build(library, model, image_size)
    if recompute:
        effnetv2_tf.set_recompute(_state["model"], recompute)
    dataset = batches(library, image_size, batch_size)
    _state["model"].fit(dataset, epochs=1, steps_per_epoch=1, verbose=0)
    _state["iterator"] = iter(dataset)


def steps(count: int) -> float:
    """Makes further steps; returns their seconds."""
    function, iterator = _state["model"].train_function, _state["iterator"]
    began = time.perf_counter()
    for _ in range(count):
        function(iterator)
    return time.perf_counter() - began


def memory() -> dict[str, float]:
    """Peak resident memory in MB, and what it was when everything was imported."""
    return {"after_import": _state["after_import"], "peak": peak_megabytes()}


def import_and_build(library: str, model: str) -> dict[str, float]:
    """Seconds of importing the library, TensorFlow included, and of building a network."""
    began = time.perf_counter()
    constructor = find_constructor(library, model)
    imported = time.perf_counter()
    constructor(weights=None)
    return {"import": imported - began, "build": time.perf_counter() - imported}


def gemm(sides: list[int]) -> float:
    """The best rate of square float32 matrix products among the sides, in FLOP/s."""
    programs.import_tensorflow()
    import tensorflow as tf

    rates = []
    for side in sides:
        if side not in _state:
            _state[side] = tf.random.stateless_uniform([2, side, side], [0, side])
            tf.linalg.matmul(_state[side][0], _state[side][1]).numpy()
        a, b = _state[side][0], _state[side][1]
        began = time.perf_counter()
        tf.linalg.matmul(a, b).numpy()
        rates.append(2 * side**3 / (time.perf_counter() - began))
    return max(rates)


def find_constructor(library: str, model: str) -> Any:
    """Imports the library; returns the constructor of a V2 network."""
    if library == "effnetv2_tf":
        return getattr(effnetv2_tf, f"EfficientNetV2{model}")
    import keras

    return getattr(keras.applications, f"EfficientNetV2{model}")


def build(library: str, model: str, image_size: int) -> Any:
    """A compiled network; keras.applications' classifier refuses variable image sizes."""
    import keras

    ours = library == "effnetv2_tf"
    shape = (None, None, 3) if ours else (image_size, image_size, 3)
    network = find_constructor(library, model)(
        weights=None, input_shape=shape, classes=_CLASSES, classifier_activation="softmax"
    )
    optimizer = effnetv2_tf.RMSProp if ours else keras.optimizers.RMSprop
    network.compile(
        optimizer(0.01, rho=0.9, momentum=0.9, epsilon=1e-3),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    return network


def batches(library: str, image_size: int, batch_size: int) -> Any:
    """One synthetic batch for ever; for ours without static sides, as in training."""
    import tensorflow as tf

    shape = (batch_size, image_size, image_size, 3)
    images = tf.random.stateless_uniform(shape, [0, 1], maxval=255.0)
    labels = tf.random.stateless_uniform(shape[:1], [0, 2], maxval=_CLASSES, dtype=tf.int32)
    dataset = tf.data.Dataset.from_tensors((images, labels)).repeat()
    if library != "effnetv2_tf":
        return dataset
    from effnetv2_tf.training.progressive import forget_sides

    return dataset.map(forget_sides)


def peak_megabytes() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    serve(
        {
            "first_step": first_step,
            "steps": steps,
            "memory": memory,
            "import_and_build": import_and_build,
            "gemm": gemm,
        }
    )
