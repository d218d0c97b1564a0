"""Measures exported networks against keras.applications' own exports, alternating in one run.

    python benchmarks/inference.py --networks=b0,s --output=result.json

Each network is exported once by this package (SavedModel, TFLite, int8 TFLite, ONNX) and once
from keras.applications (`model.export`, `TFLiteConverter.from_keras_model`, tf2onnx), with
random weights: speed does not depend on them. Every artefact is loaded in its own runtime with
two threads; rounds then go through all of them in turn, so that other load on the machine
meets all alike. Reported: median milliseconds at batch 1, images/s at batch 16 (TFLite files
are resized), conversion time, and the ratios that the project's targets speak of.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from effnetv2_tf import programs

_NETWORKS = flags.DEFINE_list("networks", "b0,s", "Of: b0 (224 px), s (384 px).")
_BATCHES = flags.DEFINE_list("batches", "1,16", "Batch sizes.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Rounds at batch 1; a third of them at others.", 3)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the result.")

Predict = Callable[[Any], Any]
_CALLS = 3  # timed in a round
_RATIOS = (  # name, slower, faster: how many times as fast the second is
    ("SavedModel over keras.applications", "keras savedmodel", "savedmodel"),
    ("TFLite over keras.applications", "keras tflite", "tflite"),
    ("ONNX over keras.applications", "keras onnx", "onnx"),
    ("int8 TFLite over float32 TFLite", "tflite", "tflite int8"),
)


def make_ours(key: str, folder: Path, seconds: dict[str, float]) -> dict[str, Path]:
    """Exports this package's network; notes how long each conversion takes."""
    import numpy as np

    from effnetv2_tf import build_network
    from effnetv2_tf.export import export_onnx, export_savedmodel, export_tflite, wrap_model
    from effnetv2_tf.export.images import ImagePreparation, RandomImages
    from effnetv2_tf.models.families import EFFICIENTNETV2_B0, EFFICIENTNETV2_S

    spec = {"b0": EFFICIENTNETV2_B0, "s": EFFICIENTNETV2_S}[key]
    preparation = ImagePreparation(spec.eval_size)
    exportable = wrap_model(build_network(spec), preparation=preparation)
    images: np.ndarray = RandomImages().held_out(preparation, 32).pixels
    makers: dict[str, Callable[[], Path]] = {
        "savedmodel": lambda: export_savedmodel(exportable, folder / "ours")[0],
        "tflite": lambda: export_tflite(exportable, folder / "ours.tflite"),
        "tflite int8": lambda: export_tflite(
            exportable, folder / "int8.tflite", "int8", representative=images
        ),
        "onnx": lambda: export_onnx(exportable, folder / "ours.onnx"),
    }
    return {name: _timed(name, make, seconds) for name, make in makers.items()}


def make_theirs(key: str, folder: Path, seconds: dict[str, float]) -> dict[str, Path]:
    """Exports keras.applications' network as its documentation says."""
    import keras
    import tensorflow as tf
    import tf2onnx

    constructors = {
        "b0": keras.applications.EfficientNetV2B0,
        "s": keras.applications.EfficientNetV2S,
    }
    model = constructors[key](weights=None)
    paths = [folder / name for name in ("keras", "keras.tflite", "keras.onnx")]

    def savedmodel() -> Path:
        model.export(str(paths[0]), verbose=False)
        return paths[0]

    def tflite() -> Path:
        paths[1].write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
        return paths[1]

    def onnx() -> Path:
        signature = [tf.TensorSpec(model.input_shape, tf.float32, name="image")]
        tf2onnx.convert.from_keras(model, signature, opset=18, output_path=str(paths[2]))
        return paths[2]

    makers = {"keras savedmodel": savedmodel, "keras tflite": tflite, "keras onnx": onnx}
    return {name: _timed(name, make, seconds) for name, make in makers.items()}


def _timed(name: str, make: Callable[[], Path], seconds: dict[str, float]) -> Path:
    start = time.perf_counter()
    path = make()
    seconds[name] = round(time.perf_counter() - start, 1)
    print(f"  made {name} in {seconds[name]} s", flush=True)
    return path


def load_all(paths: dict[str, Path]) -> dict[str, Predict]:
    """Loads every artefact in its own runtime; each gets images in its own type."""
    from effnetv2_tf.export.runtimes import Artefact, load

    predictors = {}
    for name, path in paths.items():
        kind = name.removeprefix("keras ").split()[0]
        runner, _ = load(Artefact(kind, "float32", path))
        predictors[name] = lambda images, runner=runner: runner.run(images.astype(runner.dtype))
    return predictors


def measure(predictors: dict[str, Predict], images: Any, rounds: int) -> dict[str, float]:
    """Median seconds of one call for each, in rounds that go through all in turn.

    In a round each makes a few calls in a row and the first does not count: ONNX Runtime's
    threads go on spinning for a while after a call and would slow down whoever comes next.
    """
    times: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(rounds):
        for name, predict in predictors.items():
            predict(images)
            for _ in range(_CALLS):
                start = time.perf_counter()
                predict(images)
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def benchmark(key: str) -> dict[str, Any]:
    """Everything about one network."""
    import numpy as np

    size = {"b0": 224, "s": 384}[key]
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {**make_ours(key, folder, seconds), **make_theirs(key, folder, seconds)}
        predictors = load_all(paths)
    result: dict[str, Any] = {"image_size": size, "conversion_seconds": seconds}
    for batch in map(int, _BATCHES.value):
        images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3))
        rounds = _ROUNDS.value if batch == 1 else max(3, _ROUNDS.value // 3)
        found = measure(predictors, images.astype(np.uint8), rounds)
        result[f"batch_{batch}"] = {
            "milliseconds": {name: round(value * 1e3, 2) for name, value in found.items()},
            "images_per_second": {name: round(batch / value, 2) for name, value in found.items()},
            "ratios": {ratio: round(found[slow] / found[fast], 2) for ratio, slow, fast in _RATIOS},
        }
    result["onnx_conversion_share"] = round(seconds["onnx"] / seconds["keras onnx"], 2)
    return result


def show(key: str, result: dict[str, Any]) -> None:
    """Prints the figures of one network."""
    print(f"V2-{key.upper()} at {result['image_size']} px")
    for batch in (name for name in result if name.startswith("batch_")):
        for name, value in result[batch]["milliseconds"].items():
            speed = result[batch]["images_per_second"][name]
            print(f"  {batch:9s} {name:18s} {value:10.2f} ms {speed:9.2f} images/s")
        for name, ratio in result[batch]["ratios"].items():
            print(f"  {batch:9s} {name}: {ratio:.2f}x")
    print(f"  conversion to ONNX: {result['onnx_conversion_share']:.2f} of keras.applications'")


def main() -> None:
    programs.import_tensorflow()
    import tensorflow as tf

    from effnetv2_tf.export.report import processor

    report: dict[str, Any] = {
        "processor": processor(),
        "system": platform.platform(),
        "tensorflow": tf.__version__,
        "networks": {},
    }
    for key in _NETWORKS.value:
        report["networks"][key] = benchmark(key)
        show(key, report["networks"][key])
        if _OUTPUT.value:
            Path(_OUTPUT.value).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    programs.run(main)
