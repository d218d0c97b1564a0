"""Accuracy and cost of trained networks over test sizes.

A network may be tested at other sizes than it was trained at, and is often best at a larger
one (Touvron et al., arXiv 1906.06423). Masters et al., arXiv 2106.03640, sweep the test size in
steps of 32 pixels and compare networks by the front of speed and accuracy that comes out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models import scaling
from effnetv2_tf.models.flops import count_flops
from effnetv2_tf.models.specs import NetworkSpec
from effnetv2_tf.reporting.pareto import pareto_front
from effnetv2_tf.training import build
from effnetv2_tf.training.evaluation import Evaluation
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.runs import OpenedRun, evaluate_run
from effnetv2_tf.training.schedule import MIN_IMAGE_SIZE

STEPS_BELOW, STEPS_ABOVE = 2, 4
WARM_UP_CALLS = 3


@dataclass(frozen=True)
class SweepPoint:
    """One network at one test size.

    Attributes:
      run: its name.
      image_size: side in pixels.
      training_size: of the last training stage, without fine-tuning at the test size.
      multiply_adds: for one image, see `models.flops`.
      latency_ms: median milliseconds of a batch, see `measure_latencies`.
      top_1: share of the images whose likeliest class is a true one.
      top_5: share with a true class among the five likeliest.
      images: number evaluated.
      best_by_multiply_adds: whether no other point is as accurate with fewer of them.
      best_by_latency: likewise.
    """

    run: str
    image_size: int
    training_size: int
    multiply_adds: int
    latency_ms: float
    top_1: float
    top_5: float
    images: int
    best_by_multiply_adds: bool
    best_by_latency: bool


def training_size(recipe: Recipe) -> int:
    """Side in pixels of the last training stage; fine-tuning at the test size does not count."""
    return recipe.progressive.last_size


def sizes_around(size: int, step: int = 32) -> list[int]:
    """Two steps below a size to four above it, as far as they are sizes of images."""
    candidates = [size + i * step for i in range(-STEPS_BELOW, STEPS_ABOVE + 1)]
    return [candidate for candidate in candidates if candidate >= MIN_IMAGE_SIZE]


def misaligned_sizes(recipe: Recipe, sizes: Sequence[int]) -> list[int]:
    """Sizes that differ from the training size modulo the total stride; see `reduced_sizes`.

    Of a NASNet, about which the reference says nothing, there are none.
    """
    spec = build.model_spec(recipe.model)
    if not isinstance(spec, NetworkSpec):
        return []
    stride, trained = scaling.total_stride(spec), training_size(recipe)
    return [size for size in sizes if (size - trained) % stride]


def sweep(
    runs: Mapping[str, OpenedRun],
    sizes: Mapping[str, Sequence[int]],
    batch_size: int = 1,
    rounds: int = 15,
    on_point: Callable[[str, int, Evaluation], None] = lambda run, size, result: None,
) -> list[SweepPoint]:
    """Evaluates every run at its sizes, then measures all latencies.

    Args:
      runs: by name.
      sizes: of each run, sides in pixels.
      batch_size: for the latency.
      rounds: for the latency.
      on_point: is told of every evaluation.

    Raises:
      UsageError: if the runs were not trained for the same data, or there are no images.
    """
    _check_same_data(runs)
    evaluations: dict[tuple[str, int], Evaluation] = {}
    for name, run in runs.items():
        for size in sizes[name]:
            evaluations[name, size] = evaluate_run(run, size)
            on_point(name, size, evaluations[name, size])
    latencies = measure_latencies(runs, list(evaluations), batch_size, rounds)
    return _points(runs, evaluations, latencies)


def measure_latencies(
    runs: Mapping[str, OpenedRun], keys: Sequence[tuple[str, int]], batch_size: int, rounds: int
) -> dict[tuple[str, int], float]:
    """Median milliseconds of one call, by (run, size).

    Measured is the Keras network in one TensorFlow graph, images in memory, batch norms not
    folded; an export may be faster. After three calls to warm up, rounds go through all
    networks and sizes in turn, so that other work on the machine meets all alike.

    Args:
      runs: by name.
      keys: what to measure.
      batch_size: images in a call.
      rounds: calls whose median is taken.
    """
    functions = {name: _inference(run, batch_size) for name, run in runs.items()}
    generator = np.random.default_rng(0)
    images = {}
    for name, size in keys:
        shape = (batch_size, size, size, runs[name].model.input_shape[-1])
        images[name, size] = tf.constant(generator.integers(0, 256, shape), tf.float32)
        for _ in range(WARM_UP_CALLS):
            functions[name](images[name, size]).numpy()
    times: dict[tuple[str, int], list[float]] = {key: [] for key in keys}
    for _ in range(rounds):
        for key in keys:
            began = time.perf_counter()
            functions[key[0]](images[key]).numpy()
            times[key].append(time.perf_counter() - began)
    return {key: 1e3 * statistics.median(seconds) for key, seconds in times.items()}


def _inference(run: OpenedRun, batch_size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    signature = tf.TensorSpec([batch_size, None, None, run.model.input_shape[-1]])
    return tf.function(lambda images: run.model(images, training=False), [signature])


def _check_same_data(runs: Mapping[str, OpenedRun]) -> None:
    data = {name: run.evaluation.info for name, run in runs.items()}
    first, *others = data
    for name in others:
        ours = (data[first].num_examples, data[first].class_names)
        if (data[name].num_examples, data[name].class_names) != ours:
            raise UsageError(
                f"--model_dir: expected runs on the same data, received {first!r} on "
                f"{data[first].name} and {name!r} on {data[name].name}: their accuracies cannot "
                "be compared"
            )


def _points(
    runs: Mapping[str, OpenedRun],
    evaluations: dict[tuple[str, int], Evaluation],
    latencies: dict[tuple[str, int], float],
) -> list[SweepPoint]:
    costs = {key: count_flops(runs[key[0]].model, key[1]) for key in evaluations}
    fronts = [
        pareto_front([(cost[key], evaluations[key].top_1) for key in evaluations], ("min", "max"))
        for cost in (costs, latencies)
    ]
    return [
        SweepPoint(
            run=key[0],
            image_size=key[1],
            training_size=training_size(runs[key[0]].recipe),
            multiply_adds=costs[key],
            latency_ms=round(latencies[key], 3),
            top_1=result.top_1,
            top_5=result.top_5,
            images=result.images,
            best_by_multiply_adds=index in fronts[0],
            best_by_latency=index in fronts[1],
        )
        for index, (key, result) in enumerate(evaluations.items())
    ]
