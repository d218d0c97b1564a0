"""Which layer of a quantised TFLite file brings the error in.

    python -m effnetv2_tf.export.layer_errors --model_dir=runs/mine \
        --reference=model_float32.tflite --quantized=model_int8.refused.tflite

Both files come from one graph and keep its tensor names, so intermediate tensors can be
compared one by one: the error of each, relative to the tensor's spread, in order of
computation. Look for the first jump, not for the largest number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of the run.", required=True)
_REFERENCE = flags.DEFINE_string("reference", None, "The float32 file.", required=True)
_QUANTIZED = flags.DEFINE_string("quantized", None, "The file to look into.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "Folder of images; default: the recipe's.")
_COUNT = flags.DEFINE_integer("count", 32, "Images to run.", 1)


@dataclass(frozen=True)
class LayerError:
    """The error of one tensor.

    Attributes:
      name: of the tensor, which is that of the operation.
      relative: root mean square of the error over the tensor's standard deviation.
      scale: quantisation step of the tensor, 0 if it is not quantised.
    """

    name: str
    relative: float
    scale: float


def layer_errors(reference: Path, quantized: Path, images: np.ndarray) -> list[LayerError]:
    """Compares the tensors that both files have, in order of computation.

    Args:
      reference: a float32 file.
      quantized: of the same network.
      images: uint8 (count, size, size, channels), at the files' default size.

    Raises:
      UsageError: if the files have no tensor in common.
    """
    first, second = _open(reference), _open(quantized)
    exact = {detail["name"]: detail for detail in first.get_tensor_details()}
    pairs = [
        (exact[detail["name"]], detail)
        for detail in second.get_tensor_details()
        if _is_activation(detail) and _same_shape(exact.get(detail["name"]), detail)
    ]
    if not pairs:
        raise UsageError(f"{reference} and {quantized}: expected the same network, nothing agrees")
    squares, spreads = np.zeros(len(pairs)), np.zeros(len(pairs))
    for image in images:
        for interpreter in (first, second):
            _run(interpreter, image)
        for index, (ours, theirs) in enumerate(pairs):
            expected = first.get_tensor(ours["index"]).astype(np.float32)
            received = _dequantized(second, theirs)
            squares[index] += np.mean((expected - received) ** 2)
            spreads[index] += np.var(expected)
    relative = np.sqrt(squares / np.maximum(spreads, 1e-20))
    return [
        LayerError(theirs["name"], float(error), float(theirs["quantization"][0]))
        for (_, theirs), error in zip(pairs, relative, strict=True)
    ]


def _open(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if not path.is_file():
        raise UsageError(f"expected a .tflite file, {path} does not exist")
    try:
        interpreter = Interpreter(
            str(path),
            experimental_preserve_all_tensors=True,
            # A delegate computes whole runs of layers and keeps what lies between to itself.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{path}: expected a .tflite file: {error}") from error
    return interpreter


def image_side(path: Path) -> int:
    """The side in pixels of a file's default input.

    Raises:
      UsageError: if it is no such file.
    """
    (detail,) = _open(path).get_input_details()
    return int(detail["shape"][1])


def _run(interpreter: Any, image: np.ndarray) -> None:
    (detail,) = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], image[None].astype(detail["dtype"]))
    interpreter.invoke()


def _is_activation(detail: dict[str, Any]) -> bool:
    """Whether the batch comes first and, unlike in weights, no axis has a scale of its own."""
    batched = len(detail["shape"]) in (2, 4) and detail["shape"][0] == 1
    return batched and len(detail["quantization_parameters"]["scales"]) < 2


def _same_shape(first: dict[str, Any] | None, second: dict[str, Any]) -> bool:
    return first is not None and tuple(first["shape"]) == tuple(second["shape"])


def _dequantized(interpreter: Any, detail: dict[str, Any]) -> np.ndarray:
    values = interpreter.get_tensor(detail["index"]).astype(np.float32)
    scale, zero = detail["quantization"]
    return (values - zero) * scale if scale else values


def main() -> None:
    programs.import_tensorflow()
    from effnetv2_tf.export import loading

    exportable = loading.load_model_dir(
        _MODEL_DIR.value, images=loading.image_supply(_IMAGES.value)
    )
    reference, quantized = Path(_REFERENCE.value), Path(_QUANTIZED.value)
    side = image_side(reference)
    if image_side(quantized) != side:
        raise UsageError(
            f"--quantized: expected a file for images of {side} px, as {reference} is, received "
            f"one for {image_side(quantized)} px"
        )
    images = exportable.images.held_out(exportable.preparation.at_size(side), _COUNT.value).pixels
    errors = layer_errors(reference, quantized, images)
    print(f"{'error / spread':>14s}  {'step':>10s}  tensor")
    for error in errors:
        print(f"{error.relative:14.4f}  {error.scale:10.3g}  {error.name}")


if __name__ == "__main__":
    programs.run(main)
