"""Latency of exported networks, against keras.applications' own exports and timm's ONNX.

    python benchmarks/inference.py --networks=b0,s --torch_python=PATH --output=result.json
    python benchmarks/inference.py --networks=s --batches=1 --artefacts=savedmodel,tflite,onnx,...

Each network is exported once by this package (SavedModel, "compiled": the same with the compiled
operations, TFLite, int8 TFLite, ONNX), once from keras.applications (`model.export`,
`TFLiteConverter.from_keras_model`, tf2onnx) and once from timm (`torch.onnx.export`), with random
weights. Biases and the norms' means are random too: fresh networks have zeros there, which
TensorFlow removes, and with them it no longer recognises the convolutions that it would compute
together with their activation. Every artefact is loaded in its own runtime with two threads; rounds
then go through all of them in turn, so that other load on the machine meets all alike. The best
artefact is the fastest of this package's in float32.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import (
    Comparison,
    Rounds,
    Target,
    Workers,
    check_names,
    define_flags,
    finish,
    run,
    show,
    torch_versions,
)
from _worker import NotInstalled
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError

Turn = Callable[[], float]
Prepare = Callable[[], Turn]
_CALLS = 3  # timed in a round
_IMAGE_SIZES = {"b0": 224, "s": 384}
_TIMM = "timm onnx"
_BEST_OF = ("savedmodel", "compiled", "tflite", "onnx")  # float32
_ARTEFACTS = (*_BEST_OF, "tflite int8", "keras savedmodel", "keras tflite", "keras onnx", _TIMM)
_ZEROS = ("beta", "bias", "moving_mean")  # of a fresh network
_LINES = (  # ours, peer, target, which the project set for V2-S at batch 1
    ("savedmodel", "keras savedmodel", Target("at most", 0.5)),
    ("compiled", "keras savedmodel", Target("at most", 0.5)),
    ("tflite", "keras tflite", None),
    ("onnx", "keras onnx", None),
    ("tflite int8", "tflite", None),
    ("best", _TIMM, Target("at most", 1 / 1.15)),
)

define_flags(rounds=15, torch=True)
_NETWORKS = flags.DEFINE_list("networks", "b0,s", "Of: b0 (224 px), s (384 px).")
_BATCHES = flags.DEFINE_list("batches", "1,16", "Batch sizes; past 1, a third of the rounds.")
_CHOSEN = flags.DEFINE_list("artefacts", list(_ARTEFACTS), "Of: " + ", ".join(_ARTEFACTS))


class Artefacts:
    """The files of one network, made when they are asked for.

    Args:
      key: the network.
      folder: for the files.
      workers: for PyTorch.
    """

    def __init__(self, key: str, folder: Path, workers: Workers) -> None:
        self.seconds: dict[str, float] = {}
        self._key = key
        self._folder = folder
        self._workers = workers
        self._ours: Any = None
        self._theirs: Any = None

    def load(self, name: str) -> Callable[[Any], Any]:
        """Exports an artefact and loads it; the result takes uint8 images, channels last."""
        from effnetv2_tf.export.runtimes import Artefact, load

        began = time.perf_counter()
        path = self._make(name)
        self.seconds[name] = round(time.perf_counter() - began, 1)
        if name == _TIMM:
            return _load_timm(path)
        kind = name.removeprefix("keras ").split()[0]
        runner, _ = load(Artefact(kind, "float32", path))
        return lambda images: runner.run(images.astype(runner.dtype))

    def _make(self, name: str) -> Path:
        path = self._folder / name.replace(" ", ".")
        if name == _TIMM:
            torch = self._workers.start_torch()
            size = _IMAGE_SIZES[self._key]
            torch.ask("export_onnx", model=self._key.upper(), image_size=size, path=str(path))
            torch.close()
            return path
        return (self._make_theirs if name.startswith("keras") else self._make_ours)(name, path)

    def _make_ours(self, name: str, path: Path) -> Path:
        from effnetv2_tf.export import export_onnx, export_savedmodel, export_tflite, wrap_model
        from effnetv2_tf.export.images import ImagePreparation, RandomImages
        from effnetv2_tf.models import families
        from effnetv2_tf.models.network import build_network

        spec = getattr(families, f"EFFICIENTNETV2_{self._key.upper()}")
        preparation = ImagePreparation(spec.eval_size)
        if self._ours is None:
            self._ours = wrap_model(with_biases(build_network(spec)), preparation=preparation)
        if name in ("savedmodel", "compiled"):
            return export_savedmodel(self._ours, path, compiled=name == "compiled")[0]
        if name == "onnx":
            return export_onnx(self._ours, path)
        if name == "tflite":
            return export_tflite(self._ours, path)
        images = RandomImages().held_out(preparation, 32).pixels
        return export_tflite(self._ours, path, "int8", representative=images)

    def _make_theirs(self, name: str, path: Path) -> Path:
        """As keras.applications' documentation says."""
        import keras
        import tensorflow as tf
        import tf2onnx

        constructor = getattr(keras.applications, f"EfficientNetV2{self._key.upper()}")
        self._theirs = model = self._theirs or with_biases(constructor(weights=None))
        if name == "keras savedmodel":
            model.export(str(path), verbose=False)
        elif name == "keras tflite":
            path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
        else:
            signature = [tf.TensorSpec(model.input_shape, tf.float32, name="image")]
            tf2onnx.convert.from_keras(model, signature, opset=18, output_path=str(path))
        return path


def with_biases(model: Any) -> Any:
    """A fresh Keras model with biases and means of norms that are not zero, as after training."""
    import numpy as np

    from effnetv2_tf import keras_compat

    random = np.random.default_rng(0)
    for variable in model.weights:
        if keras_compat.variable_path(variable).rpartition("/")[2] in _ZEROS:
            variable.assign(random.normal(0, 0.1, variable.shape))
    return model


def _load_timm(path: Path) -> Callable[[Any], Any]:
    """For a file that takes normalised images, channels first; making them is not timed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NotInstalled(str(error)) from error
    from effnetv2_tf.export.runtimes import THREADS

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})


def make_turn(predict: Callable[[Any], Any], images: Any) -> Turn:
    """A round's part: a few calls, of which the first does not count; milliseconds of one.

    The first call meets threads of other runtimes that are still spinning.
    """

    def turn() -> float:
        predict(images)
        times = []
        for _ in range(_CALLS):
            start = time.perf_counter()
            predict(images)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e3

    return turn


def benchmark(key: str) -> tuple[list[Comparison], dict[str, Any]]:
    """Everything about one network."""
    import numpy as np

    size = _IMAGE_SIZES[key]
    comparisons: list[Comparison] = []
    details: dict[str, Any] = {"image_size": size}
    with tempfile.TemporaryDirectory() as name, Workers() as workers:
        artefacts = Artefacts(key, Path(name), workers)
        loaded: dict[str, Callable[[Any], Any]] = {}
        for batch in map(int, _BATCHES.value):
            images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
            rounds = Rounds()
            for artefact in _CHOSEN.value:
                if artefact == _TIMM and batch != 1:
                    continue  # exported for one image
                rounds.enter(artefact, _preparer(artefacts, loaded, artefact, images))
            rounds.run(flags.FLAGS.rounds if batch == 1 else max(3, flags.FLAGS.rounds // 3))
            comparisons += compare(
                rounds, f"V2-{key.upper()}, {size} px, batch {batch}", key, batch
            )
            details[f"batch_{batch}_milliseconds"] = rounds.values
            for artefact, values in rounds.values.items():
                print(f"V2-{key.upper()} batch {batch:2d} {artefact:18s} {show(values)} ms")
    return comparisons, {**details, "conversion_seconds": artefacts.seconds}


def _preparer(
    artefacts: Artefacts, loaded: dict[str, Callable[[Any], Any]], name: str, images: Any
) -> Prepare:
    def prepare() -> Turn:
        if name not in loaded:
            loaded[name] = artefacts.load(name)
        if name == _TIMM:
            normalised = images.transpose(0, 3, 1, 2).astype("float32") / 255 - 0.5
            return make_turn(loaded[name], normalised)
        return make_turn(loaded[name], images)

    return prepare


def compare(rounds: Rounds, shape: str, key: str, batch: int) -> list[Comparison]:
    """The lines whose two sides were chosen; the targets are those of V2-S at batch 1."""
    known = [name for name in _BEST_OF if name in rounds.values]
    best = min(known, key=lambda name: statistics.median(rounds.values[name]), default="")
    comparisons = []
    for ours, peer, target in _LINES:
        name = best if ours == "best" else ours
        if name not in _CHOSEN.value or peer not in _CHOSEN.value or (peer == _TIMM and batch > 1):
            continue
        artefact = f"the best float32 artefact ({name})" if ours == "best" else name
        comparisons.append(
            rounds.compare(
                name,
                peer,
                what=f"latency of {artefact}, {shape}",
                unit="ms",
                target=target if (key, batch) == ("s", 1) else None,
            )
        )
    return comparisons


def main() -> None:
    check_names(_NETWORKS, _IMAGE_SIZES)
    check_names(_CHOSEN, _ARTEFACTS)
    for text in _BATCHES.value:
        if not text.strip().isdecimal() or int(text) < 1:
            raise UsageError(f"--batches: expected whole numbers from 1 up, received {text!r}")
    programs.import_tensorflow()
    comparisons: list[Comparison] = []
    networks = {}
    for key in _NETWORKS.value:
        lines, networks[key] = benchmark(key)
        comparisons += lines
    finish(comparisons, versions=torch_versions(), networks=networks)


if __name__ == "__main__":
    run(main)
