"""From the tensors of a weights file to the variables of a model, checked before any is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.specs import Preprocessing
from effnetv2_tf.weights import adjustments
from effnetv2_tf.weights.report import Action, TensorRow, WeightReport
from effnetv2_tf.weights.variants import matching_row

NO_CLASSIFIER = "the model has no classifier (include_top=False)"


@dataclass(frozen=True)
class Origin:
    """Where one variable's value comes from.

    Attributes:
      name: the tensor's in the source.
      transform: from the tensor to the variable's layout; None for none.
      change: what the transform does, for the report: `"OIHW to HWIO"`.
    """

    name: str
    transform: Callable[[np.ndarray], np.ndarray] | None = None
    change: str = ""


# Path of the model's variable (`stage1_block1/expand/kernel`) to its origin, for all variables
# that a network with a classifier has, in the network's order.
Origins = dict[str, Origin]


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a source as they were read.

    Attributes:
      source: what wrote it: `"timm"`, `"keras.applications"`, `"google/automl"`.
      path: of the file, or what stands for it.
      tensors: values by name: arrays, or what has a `.shape` and reads itself when numpy makes
        an array of it.
      left_out: names of tensors that hold no weights of a network, with the reason:
        optimizer slots, counters.
      preprocessing: what the weights were trained with; None if not known.
      padding: `"same"` or `"symmetric"`, of the strided convolutions; None if not known.
      batch_norm_epsilon: added to the variances; None if not known.
      takes_normalized: whether the network was given images that were normalised before.
      notes: what else must be known.
    """

    source: str
    path: str
    tensors: Mapping[str, Any]
    left_out: Mapping[str, str] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    padding: str | None = None
    batch_norm_epsilon: float | None = None
    takes_normalized: bool = False
    notes: tuple[str, ...] = ()


class _Mismatch(NamedTuple):
    """A variable that its tensor does not fit; `found` is None where there is no tensor."""

    path: str
    tensor: str
    found: tuple[int, ...] | None
    expected: tuple[int, ...]


def variables_by_path(model: keras.Model) -> dict[str, Any]:
    """The model's weights by their paths, the same under every Keras."""
    return {keras_compat.variable_path(variable): variable for variable in model.weights}


def load_tensors(model: keras.Model, origins: Origins, file: WeightFile) -> WeightReport:
    """Gives every variable of `model` its value, or changes nothing.

    Every variable gets a tensor of its shape and every tensor is used or is in the report
    with the reason. The file's preprocessing and epsilon are set on the model, see
    `adjustments`.

    Raises:
      UsageError: if a variable gets no value, a tensor has another shape or no use, or
        the padding differs. It names the first such tensor, both shapes, and what to pass
        instead.
    """
    variables = variables_by_path(model)
    _check_origins(model, origins, variables)
    adjustments.check_padding(model, file.padding, _title(file))
    values, rows = _matched_values(model, origins, file, variables)
    rows += _rows_left_out(model, origins, file, variables)
    for path, value in values.items():
        variables[path].assign(value)
    notes = [*file.notes, *_notes_on_values(values)]
    if file.takes_normalized:
        notes += adjustments.note_on_normalized_images(model)
    notes += adjustments.adjust(model, file.preprocessing, file.batch_norm_epsilon)
    return WeightReport(
        file.source,
        file.path,
        tuple(rows),
        tuple(notes),
        file.preprocessing,
        file.batch_norm_epsilon,
    )


def _notes_on_values(values: dict[str, np.ndarray]) -> list[str]:
    broken = [path for path, value in values.items() if not np.isfinite(value).all()]
    if not broken:
        return []
    return [f"{len(broken)} tensors hold NaN or infinite numbers, the first is {broken[0]!r}."]


def _check_origins(model: keras.Model, origins: Origins, variables: dict[str, Any]) -> None:
    unknown = [path for path in variables if path not in origins]
    surplus = [p for p in origins if p not in variables and not _is_classifier(p)]
    if unknown or surplus:
        what = f"has {unknown[0]!r}" if unknown else f"has no {surplus[0]!r}"
        raise UsageError(
            f"`spec` does not describe model {model.name!r}, which {what}. "
            "Pass the NetworkSpec that the model was built from."
        )


def _matched_values(
    model: keras.Model, origins: Origins, file: WeightFile, variables: dict[str, Any]
) -> tuple[dict[str, np.ndarray], list[TensorRow]]:
    values: dict[str, np.ndarray] = {}
    rows: list[TensorRow] = []
    mismatches: list[_Mismatch] = []
    for path, origin in origins.items():
        if path not in variables:
            continue
        variable = variables[path]
        expected = tuple(variable.shape)
        if origin.name not in file.tensors:
            mismatches.append(_Mismatch(path, origin.name, None, expected))
            continue
        tensor = np.asarray(file.tensors[origin.name])
        value = _transformed(tensor, origin)
        if value.shape != expected:
            mismatches.append(_Mismatch(path, origin.name, value.shape, expected))
            continue
        changes = [origin.change] if origin.transform is not None else []
        if tensor.dtype != np.float32:
            changes.append(f"{tensor.dtype} to float32")
        values[path] = np.asarray(value, np.float32)
        action: Action = "reshaped" if changes else "loaded"
        rows.append(TensorRow(path, origin.name, tensor.shape, action, ", ".join(changes)))
    if mismatches:
        raise UsageError(_mismatch_message(model, file, mismatches))
    return values, rows


def _transformed(tensor: np.ndarray, origin: Origin) -> np.ndarray:
    """The tensor in our layout; as it is where it has too few axes to be turned."""
    if origin.transform is None:
        return tensor
    try:
        return origin.transform(tensor)
    except (ValueError, IndexError):  # the shapes will not agree, and the message says so
        return tensor


def _rows_left_out(
    model: keras.Model, origins: Origins, file: WeightFile, variables: dict[str, Any]
) -> list[TensorRow]:
    used = {origin.name for path, origin in origins.items() if path in variables}
    reasons = {o.name: NO_CLASSIFIER for path, o in origins.items() if path not in variables}
    reasons |= file.left_out
    rows = []
    for name in file.tensors:
        if name in used:
            continue
        shape = tuple(np.shape(file.tensors[name]))
        if name not in reasons:
            raise UsageError(
                f"{_title(file)} does not fit model {model.name!r}: the model has no variable "
                f"for tensor {name!r} of shape {shape}. {_variant_advice(model, file)}"
            )
        rows.append(TensorRow("", name, shape, "left out", reasons[name]))
    return rows


def _mismatch_message(model: keras.Model, file: WeightFile, mismatches: list[_Mismatch]) -> str:
    first = mismatches[0]
    found = "is not in it" if first.found is None else f"has shape {first.found}"
    return (
        f"{_title(file)} does not fit model {model.name!r}: tensor {first.tensor!r} {found}, "
        f"but variable {first.path!r} has shape {first.expected} ({len(mismatches)} such "
        f"tensors). {_advice(model, file, mismatches)}"
    )


def _advice(model: keras.Model, file: WeightFile, mismatches: list[_Mismatch]) -> str:
    """What to pass instead: classes, channels, or another network."""
    advice = []
    for mismatch in mismatches:
        if mismatch.path == "stem/kernel" and _differ_in_channels_only(mismatch):
            advice.append(f"input_shape=(None, None, {mismatch.found[2]})")  # type: ignore[index]
        elif not _is_classifier(mismatch.path):
            return _variant_advice(model, file)
        elif mismatch.path == "classifier/bias":
            classes = f"classes={mismatch.found[0]} or " if mismatch.found else ""
            advice.append(f"{classes}include_top=False")
    return f"Pass {' and '.join(advice)}." if advice else _variant_advice(model, file)


def _differ_in_channels_only(mismatch: _Mismatch) -> bool:
    found, expected = mismatch.found, mismatch.expected
    return found is not None and found[:2] == expected[:2] and found[3:] == expected[3:]


def _variant_advice(model: keras.Model, file: WeightFile) -> str:
    """Which row of the families the file is of."""
    names = [name for name in file.tensors if name not in file.left_out]
    row = matching_row(tuple(np.shape(file.tensors[name])) for name in names)
    if row is None:
        return "Its tensors are those of no network in effnetv2_tf.models.families.SPECS."
    if row is matching_row(tuple(variable.shape) for variable in model.weights):
        return f"It is a file of {row.name!r}, like the model, with tensors missing or too many."
    return f"Its tensors are those of {row.name!r}: build that network instead."


def _is_classifier(path: str) -> bool:
    return path.startswith("classifier/")


def _title(file: WeightFile) -> str:
    return f"Weights file {file.path!r} ({file.source})"
