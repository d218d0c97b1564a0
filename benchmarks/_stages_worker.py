"""Worker: a run of several stages of growing image size, and what the switches cost."""

from __future__ import annotations

import statistics
import time
from typing import Any

from _keras_worker import batches, build
from _worker import serve

from effnetv2_tf import programs

_CLASSES = 1000


def run_stages(
    library: str, model: str, image_sizes: list[int], batch_size: int, steps: int
) -> list[float]:
    """Trains one stage after the other; returns the extra seconds of each switch.

    Libraries are `effnetv2_tf`, `keras.applications`, and that with data whose sides are forgotten
    as ours are: `keras.applications, sides unknown`.

    Extra is the time from the last step of a stage to the end of the first step of the next,
    less the median of that stage's other steps.
    """
    programs.import_tensorflow()
    clock = _make_clock()
    if library == "effnetv2_tf":
        _train_ours(model, image_sizes, batch_size, steps, clock)
    else:
        data = "effnetv2_tf" if library.endswith("sides unknown") else library
        _train_theirs(model, image_sizes, batch_size, steps, clock, data)
    ends = clock.ends
    extra = []
    for start in range(steps, steps * len(image_sizes), steps):
        spent = [ends[i] - ends[i - 1] for i in range(start, start + steps)]
        extra.append(spent[0] - statistics.median(spent[1:]))
    return extra


def _train_ours(
    model: str, image_sizes: list[int], batch_size: int, steps: int, clock: Any
) -> None:
    """One `fit` with the progressive callback."""
    from effnetv2_tf import ProgressiveLearning, StageSchedule

    network = build("effnetv2_tf", model, image_sizes[0])
    schedule = StageSchedule.progressive(
        epochs=len(image_sizes),
        num_stages=len(image_sizes),
        num_examples=steps * batch_size,
        batch_size=batch_size,
        image_size=(image_sizes[0], image_sizes[-1]),
        image_sizes=image_sizes,
    )
    progressive = ProgressiveLearning(
        schedule, lambda stage: batches("effnetv2_tf", stage.image_size, stage.batch_size)
    )
    network.fit(
        progressive.fit_dataset(),
        epochs=schedule.epochs,
        callbacks=[progressive, clock],
        verbose=0,
    )


def _train_theirs(
    model: str, image_sizes: list[int], batch_size: int, steps: int, clock: Any, data: str
) -> None:
    """One `fit` for each stage, with the batches of library `data`.

    The network goes on from stage to stage, so it must take any size, which keras.applications
    does without its classifier only: pooling, dropout and a dense layer take that place.
    """
    import keras

    backbone = getattr(keras.applications, f"EfficientNetV2{model}")(
        include_top=False, weights=None, input_shape=(None, None, 3), pooling="avg"
    )
    x = keras.layers.Dropout(0.2)(backbone.output)
    outputs = keras.layers.Dense(_CLASSES, activation="softmax")(x)
    network = keras.Model(backbone.input, outputs)
    network.compile(
        keras.optimizers.RMSprop(0.01, rho=0.9, momentum=0.9, epsilon=1e-3),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    for size in image_sizes:
        dataset = batches(data, size, batch_size)
        network.fit(dataset, epochs=1, steps_per_epoch=steps, callbacks=[clock], verbose=0)


def _make_clock() -> Any:
    import keras

    class Clock(keras.callbacks.Callback):
        """Notes when steps end."""

        def __init__(self) -> None:
            super().__init__()
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())

    return Clock()


if __name__ == "__main__":
    programs.prepare_environment()
    serve({"run_stages": run_stages})
