"""Proof that an artefact computes what the Keras network computes, in its own runtime."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_tf.export.deploy_graph import PROBABILITIES
from effnetv2_tf.export.files import folder_size
from effnetv2_tf.export.images import Images
from effnetv2_tf.export.loading import Exportable, predict
from effnetv2_tf.export.runtimes import Artefact, Runner, SavedModelRunner, load
from effnetv2_tf.export.savedmodel import BYTES_SIGNATURE

PASSED, FAILED, REFUSED, FORCED = "passed", "failed", "refused", "forced"
UNVERIFIED = "unverified"
BATCH_SIZES = (16, 1)
_OTHER_SIZE = 32  # pixels that the second image size has more than the first
_FEW = 16  # images for the second batch size and the second image size
_LATENCY_SECONDS = 2.0
_LATENCY_RUNS = 30
_EXPLAINED_VARIANCE = 0.9  # least share, of outputs that may be values
ADVICE = (
    "try --tflite=int16x8 or dynamic, more representative images (--calibration_images), or a "
    "network without squeeze-excite and with relu6; --force keeps the file"
)


@dataclass(frozen=True)
class Tolerance:
    """What an artefact must reach.

    Attributes:
      difference: largest allowed difference of an output, over the largest output (or 1).
      agreement: smallest allowed `Comparison.agreement`.
    """

    difference: float
    agreement: float


_TOLERANCES = {
    "float32": Tolerance(1e-3, 0.999),
    "float16": Tolerance(0.1, 0.99),
    "dynamic": Tolerance(0.5, 0.98),
    "int16x8": Tolerance(0.5, 0.98),
    "int8": Tolerance(1.0, 0.98),
}


@dataclass(frozen=True)
class Comparison:
    """One run of held-out images through an artefact, against the Keras network.

    Attributes:
      batch_size: of the run.
      image_size: side in pixels.
      images: how many.
      max_difference: largest absolute difference of an output.
      top_1_agreement: share of images with the same top-1 class; None without classes that
        exclude each other.
      decision_agreement: where each output is a decision of its own (several labels, or yes or
        no), share of equal decisions over all images and outputs. Else None.
      explained_variance: where outputs may be values rather than scores, the share of their
        variance over the images that the artefact's have too. Else None.
      cosine_similarity: without classes, of an image's outputs as one vector; the mean over the
        images. None with classes.
      accuracy: share of images classified rightly, None where labels are unknown.
      keras_accuracy: the same of the Keras network.
    """

    batch_size: int
    image_size: int
    images: int
    max_difference: float
    top_1_agreement: float | None
    decision_agreement: float | None = None
    explained_variance: float | None = None
    cosine_similarity: float | None = None
    accuracy: float | None = None
    keras_accuracy: float | None = None

    @property
    def judged_by(self) -> str:
        """The name of `agreement`."""
        return min(self._agreements)[1]

    @property
    def agreement(self) -> float:
        """What decides on the artefact: the lowest, where there are several."""
        return min(self._agreements)[0]

    @property
    def _agreements(self) -> list[tuple[float, str]]:
        measures = (
            (self.top_1_agreement, "top-1 agreement"),
            (self.decision_agreement, "agreement of decisions"),
            (self.cosine_similarity, "cosine similarity"),
        )
        return [(value, name) for value, name in measures if value is not None]

    def agreement_text(self, value: float) -> str:
        """An agreement as reports show it."""
        return f"{value:.2%}" if self.cosine_similarity is None else f"{value:.5f}"


@dataclass(frozen=True)
class Verdict:
    """What was found about an artefact.

    Attributes:
      artefact: which.
      status: `"passed"`, `"failed"`, `"refused"` (int8 below the threshold), `"forced"`, or
        `"unverified"` (a web page whose network passed, but which no browser has opened).
      problem: why not passed.
      megabytes: of the file or folder, in 10^6 bytes.
      load_seconds: until the runtime is ready.
      latency_ms: median for one image of the evaluation size, alone or in a batch of the fixed
        size.
      comparisons: at several batch and image sizes; the first is on all images.
    """

    artefact: Artefact
    status: str = PASSED
    problem: str | None = None
    megabytes: float = 0.0
    load_seconds: float | None = None
    latency_ms: float | None = None
    comparisons: tuple[Comparison, ...] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether the artefact may be used."""
        return self.status in (PASSED, FORCED, UNVERIFIED)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the report."""
        values = asdict(self)
        artefact = values.pop("artefact")
        return {**artefact, "path": str(artefact["path"]), **values}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Images to check on and what the Keras network says of them, computed once.

    Attributes:
      images: at the size of the check.
      expected: the network's outputs in float32.
      has_classes: whether outputs are one number for each class.
      has_own_values: see `DeployGraph`.
      boundary: between yes and no, where each output is a decision of its own; else None.
    """

    images: Images
    expected: np.ndarray
    has_classes: bool
    has_own_values: bool = False
    boundary: float | None = None

    @property
    def has_top_1(self) -> bool:
        """Whether one class is right: of several labels, the likeliest may change by nothing."""
        several = self.boundary is not None and self.images.labels is None
        return self.has_classes and self.expected.shape[-1] > 1 and not several

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.images.pixels.shape[1]


def held_out(exportable: Exportable, count: int, image_size: int | None = None) -> list[HeldOut]:
    """Images at the evaluation size (or a fixed one) and a few at another size."""
    first = image_size or exportable.preparation.image_size
    boundary = None
    if exportable.graph.has_decisions:
        boundary = 0.5 if exportable.graph.output_name == PROBABILITIES else 0.0
    sets = []
    for size, number in ((first, count), (first + _OTHER_SIZE, _FEW)):
        if size != first and (image_size is not None or exportable.graph.image_shape[0]):
            continue
        images = exportable.images.held_out(exportable.preparation.at_size(size), number)
        expected = predict(exportable, images.pixels)
        graph = exportable.graph
        sets.append(HeldOut(images, expected, graph.has_classes, graph.has_own_values, boundary))
    return sets


def doubts(data: HeldOut) -> list[str]:
    """Why agreement on these images may say little."""
    if not data.has_top_1 or len(data.images) < 2:
        return []
    if data.expected.shape[-1] < 2 or len(set(data.expected.argmax(-1))) > 1:
        return []
    return [
        f"all {len(data.images)} images of {data.images.origin} are of one class to the network: "
        "agreement on them says little; --images=FOLDER checks on others"
    ]


def verify(
    artefact: Artefact,
    exportable: Exportable,
    sets: list[HeldOut],
    *,
    preprocessing: bool = True,
    int8_threshold: float = 0.98,
) -> Verdict:
    """Loads an artefact in its own runtime and compares it with the Keras network.

    Args:
      artefact: what to check.
      exportable: what it was made from.
      sets: see `held_out`.
      preprocessing: whether the artefact normalises pixels itself.
      int8_threshold: smallest `Comparison.agreement` of int8 that is not refused.

    Returns:
      The verdict; a runtime's refusal is a verdict too, not an exception.
    """
    verdict = Verdict(artefact, megabytes=round(folder_size(artefact.path) / 1e6, 3))
    try:
        runner, seconds = load(artefact)
        feed = _Feed(runner, exportable, preprocessing)
        comparisons = tuple(_compare_all(feed, sets))
        latency = _median_latency_ms(feed, sets[0].images.pixels)
        problem = _bytes_problem(runner, exportable, sets[0])
    except Exception as error:  # whatever a runtime throws, the file is not usable
        text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return replace(verdict, status=FAILED, problem=f"does not run: {text}")
    verdict = replace(
        verdict, load_seconds=round(seconds, 3), latency_ms=latency, comparisons=comparisons
    )
    if problem:
        return replace(verdict, status=FAILED, problem=problem)
    return _judge(verdict, sets, int8_threshold)


def _judge(verdict: Verdict, sets: list[HeldOut], int8_threshold: float) -> Verdict:
    tolerance = _TOLERANCES[verdict.artefact.precision]
    largest = max(1.0, *(float(np.abs(data.expected).max()) for data in sets))
    for found in verdict.comparisons:
        where = f"at batch {found.batch_size}, {found.image_size} px"
        if not found.max_difference <= tolerance.difference * largest:  # also NaN
            problem = f"outputs differ by {found.max_difference:.3g} {where}"
            return replace(verdict, status=FAILED, problem=problem)
    first = verdict.comparisons[0]  # the others have too few images for a share
    is_int8 = verdict.artefact.is_int8
    least = int8_threshold if is_int8 else tolerance.agreement
    explained = first.explained_variance
    if first.agreement < least:
        problem = (
            f"{first.judged_by} {first.agreement_text(first.agreement)} on {first.images} images, "
            f"expected at least {first.agreement_text(least)}"
        )
    elif explained is not None and not explained >= _EXPLAINED_VARIANCE:
        problem = (
            f"outputs vary over {first.images} images as Keras's do to {explained:.2%}, expected "
            f"at least {_EXPLAINED_VARIANCE:.0%}"
        )
    else:
        return verdict
    if is_int8:
        return replace(verdict, status=REFUSED, problem=f"{problem}: {ADVICE}")
    return replace(verdict, status=FAILED, problem=problem)


class _Feed:
    """Gives pixels to an artefact as its input wants them."""

    def __init__(self, runner: Runner, exportable: Exportable, preprocessing: bool) -> None:
        self.runner = runner
        self._outside = None if preprocessing else exportable.graph.normalization

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        if self._outside is not None:
            return self.runner.run(self._outside(pixels).numpy())
        return self.runner.run(pixels.astype(self.runner.dtype))

    def batched(self, pixels: np.ndarray, batch_size: int) -> np.ndarray:
        """Outputs of many images; what does not fill a batch of a fixed size is padded."""
        parts = []
        for start in range(0, len(pixels), batch_size):
            batch = pixels[start : start + batch_size]
            missing = batch_size - len(batch) if self.runner.batch_size else 0
            padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
            parts.append(self(padded)[: len(batch)])
        return np.concatenate(parts)


def _compare_all(feed: _Feed, sets: list[HeldOut]) -> list[Comparison]:
    fixed = feed.runner.batch_size
    batch_sizes = BATCH_SIZES if fixed is None else (fixed,)
    first, *others = sets
    comparisons = [_compare(feed, first, len(first.images), batch_sizes[0])]
    comparisons += [_compare(feed, first, _FEW, size) for size in batch_sizes[1:]]
    if feed.runner.image_size is None:
        comparisons += [_compare(feed, data, _FEW, batch_sizes[0]) for data in others]
    return comparisons


def _compare(feed: _Feed, data: HeldOut, count: int, batch_size: int) -> Comparison:
    expected = data.expected[:count]
    outputs = feed.batched(data.images.pixels[:count], batch_size)
    if outputs.shape != expected.shape:
        raise ValueError(f"expected outputs of shape {expected.shape}, received {outputs.shape}")
    decisions = agreement = explained = similarity = accuracy = keras_accuracy = None
    if not data.has_classes:
        similarity = _mean_cosine(outputs, expected)
    if data.has_own_values:
        explained = _explained_variance(outputs, expected)
    if data.boundary is not None:
        decisions = float(((outputs > data.boundary) == (expected > data.boundary)).mean())
    if data.has_top_1:
        ours, theirs = outputs.argmax(-1), expected.argmax(-1)
        agreement = float((ours == theirs).mean())
        if data.images.labels is not None:
            labels = data.images.labels[:count]
            accuracy = float((ours == labels).mean())
            keras_accuracy = float((theirs == labels).mean())
    return Comparison(
        batch_size=batch_size,
        image_size=data.size,
        images=len(expected),
        max_difference=float(np.abs(outputs - expected).max()),
        top_1_agreement=agreement,
        decision_agreement=decisions,
        explained_variance=explained,
        cosine_similarity=similarity,
        accuracy=accuracy,
        keras_accuracy=keras_accuracy,
    )


def _mean_cosine(outputs: np.ndarray, expected: np.ndarray) -> float:
    """Of the vectors of each image; 1 where both are zero."""
    ours, theirs = (x.reshape(len(x), -1).astype(np.float64) for x in (outputs, expected))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    products = np.sum(ours * theirs, axis=1)
    equal = np.all(ours == theirs, axis=1).astype(np.float64)
    return float(np.mean(np.divide(products, lengths, out=equal, where=lengths > 0)))


def _explained_variance(outputs: np.ndarray, expected: np.ndarray) -> float | None:
    """1 for equal outputs, 0 for those no better than each output's mean; None without variance."""
    variance = np.var(expected.astype(np.float64), axis=0).sum()
    error = np.mean(np.square(outputs.astype(np.float64) - expected), axis=0).sum()
    return float(1 - error / variance) if variance > 0 else None


def _median_latency_ms(feed: _Feed, pixels: np.ndarray) -> float:
    batch = pixels[: feed.runner.batch_size or 1]
    batch = np.resize(batch, (feed.runner.batch_size or 1, *batch.shape[1:]))
    feed(batch)  # the first run allocates
    times: list[float] = []
    while len(times) < _LATENCY_RUNS and sum(times) < _LATENCY_SECONDS:
        start = time.perf_counter()
        feed(batch)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e3 / len(batch), 3)


def _bytes_problem(runner: Runner, exportable: Exportable, data: HeldOut) -> str | None:
    """Whether the signature for encoded files does as evaluation does; None if all is well."""
    if not isinstance(runner, SavedModelRunner) or BYTES_SIGNATURE not in runner.signatures:
        return None
    count = runner.batch_size or 2
    pixels = np.resize(data.images.pixels[:count], (count, *data.images.pixels.shape[1:]))
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    outputs = runner.run_signature(BYTES_SIGNATURE, np.array(files, object))
    preparation = exportable.preparation.at_size(data.size)
    prepared = np.stack([preparation.prepare(tf.constant(file)).numpy() for file in files])
    difference = np.abs(outputs[exportable.graph.output_name] - predict(exportable, prepared)).max()
    named = [exportable.labels[index].encode() for index in outputs["classes"][:, 0]]
    if not difference <= _TOLERANCES["float32"].difference:
        return f"signature {BYTES_SIGNATURE}: probabilities differ by {difference:.3g}"
    if named != list(outputs["labels"][:, 0]):
        return f"signature {BYTES_SIGNATURE}: labels do not name the classes"
    return None
