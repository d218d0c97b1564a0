"""Loading an artefact where it will run: the runtime's own loader, nothing of Keras."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from effnetv2_tf import kernels
from effnetv2_tf.errors import UsageError

THREADS = 2


class Runner(Protocol):
    """A loaded artefact.

    Attributes:
      dtype: of the images it takes.
      batch_size: that it takes, None for any.
      image_size: side in pixels that it takes, None for any.
    """

    dtype: np.dtype
    batch_size: int | None
    image_size: int | None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Images (batch, height, width, channels) to float32 outputs."""


@dataclass(frozen=True)
class Artefact:
    """An exported file or folder.

    Attributes:
      format: of `requests.FORMATS`.
      precision: e.g. `"float32"`.
      path: of the file, or of the folder.
    """

    format: str
    precision: str
    path: Path

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.format} {self.precision}"

    @property
    def is_int8(self) -> bool:
        """Whether activations have 8 bits, so that agreement decides on it."""
        return self.precision == "int8"


def load(artefact: Artefact) -> tuple[Runner, float]:
    """Loads an artefact; returns it with the seconds that this took."""
    loaders: dict[str, Callable[[Path], Runner]] = {
        "savedmodel": SavedModelRunner,
        "compiled": _load_compiled,
        "tflite": TFLiteRunner,
        "onnx": OnnxRunner,
    }
    start = time.perf_counter()
    runner = loaders[artefact.format](artefact.path)
    return runner, time.perf_counter() - start


class SavedModelRunner:
    """A SavedModel behind the session loader with tag `serve`, as TensorFlow Serving has it.

    Args:
      path: of the version folder.
    """

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=THREADS, inter_op_parallelism_threads=THREADS
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            meta = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(path))
        self.signatures = dict(meta.signature_def)
        (self._input,) = self.signatures["serving_default"].inputs.values()
        (self._output,) = self.signatures["serving_default"].outputs.values()
        sides = [dim.size if dim.size > 0 else None for dim in self._input.tensor_shape.dim]
        self.batch_size, self.image_size = sides[0], sides[1]
        self.dtype = np.dtype(tf.dtypes.as_dtype(self._input.dtype).as_numpy_dtype)
        self._call = self._session.make_callable(self._output.name, [self._input.name])

    def run(self, images: np.ndarray) -> np.ndarray:
        return self._call(images)

    def run_signature(self, name: str, value: Any) -> dict[str, np.ndarray]:
        """Any signature with one input; returns all its outputs."""
        signature = self.signatures[name]
        (info,) = signature.inputs.values()
        outputs = {key: output.name for key, output in signature.outputs.items()}
        return self._session.run(outputs, {info.name: value})


def _load_compiled(path: Path) -> SavedModelRunner:
    kernels.load()
    return SavedModelRunner(path)


class TFLiteRunner:
    """A TFLite file in LiteRT's interpreter with its default delegate, XNNPACK.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=THREADS)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        signature = self._input["shape_signature"]
        self.batch_size = int(signature[0]) if signature[0] > 0 else None
        self.image_size = int(signature[1]) if signature[1] > 0 else None
        self.dtype = np.dtype(self._input["dtype"])
        self._shape = tuple(self._input["shape"])

    def run(self, images: np.ndarray) -> np.ndarray:
        if images.shape != self._shape:
            self._interpreter.resize_tensor_input(self._input["index"], images.shape, strict=True)
            self._interpreter.allocate_tensors()
            self._shape = images.shape
        self._interpreter.set_tensor(self._input["index"], images)
        self._interpreter.invoke()
        outputs = self._interpreter.get_tensor(self._output["index"])
        if outputs.dtype == np.float32:
            return outputs
        scale, zero = self._output["quantization"]
        return (outputs.astype(np.float32) - zero) * scale


class OnnxRunner:
    """An ONNX file in onnxruntime on the CPU.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        (self._input,) = self._session.get_inputs()
        sides = [side if isinstance(side, int) else None for side in self._input.shape]
        self.batch_size, self.image_size = sides[0], sides[1]
        self.dtype = np.dtype(np.uint8 if "uint8" in self._input.type else np.float32)

    def run(self, images: np.ndarray) -> np.ndarray:
        (outputs,) = self._session.run(None, {self._input.name: images})
        return outputs


def require_runtimes(formats: list[str]) -> None:
    """Checks, before any work, that what was exported can be run here.

    Raises:
      UsageError: naming the package that is missing.
    """
    from importlib.util import find_spec

    modules = {"tflite": "ai_edge_litert", "onnx": "onnxruntime", "web": "onnxruntime"}
    for name, module in modules.items():
        if name in formats and find_spec(module) is None:
            raise UsageError(
                f"--formats={name}: needs {module} to check the file in its own runtime; "
                "pip install 'effnetv2_tf[export]'"
            )
