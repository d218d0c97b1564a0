"""Exports a trained network: `python -m effnetv2_tf.export --model_dir=... --formats=...`.

Every artefact is run in its own runtime before the command returns; see export_report.json.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.export import requests
from effnetv2_tf.files import read_lines

if TYPE_CHECKING:
    from effnetv2_tf.export.exporter import ExportOptions
    from effnetv2_tf.export.loading import Exportable
    from effnetv2_tf.export.report import Report

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of a training run.")
_KERAS_FILE = flags.DEFINE_string("keras_file", None, "A .keras file, instead of --model_dir.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Target; default: <model_dir>/export.")
_FORMATS = flags.DEFINE_list(
    "formats", list(requests.DEFAULT_FORMATS), f"What to write: {', '.join(requests.FORMATS)}."
)
_TFLITE = flags.DEFINE_list(
    "tflite", "float32,float16,dynamic", "TFLite files: float32, float16, dynamic, int8, int16x8."
)
_ONNX = flags.DEFINE_list("onnx", "float32", "ONNX files: float32, int8.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "last", programs.CHECKPOINT_HELP)
_RAW = flags.DEFINE_bool("raw_weights", False, "The weights as trained, not their averages.")
_VERSION = flags.DEFINE_integer(
    "version", None, "Number of the SavedModel's folder; default: the next.", 1
)
_OPSET = flags.DEFINE_integer("opset", 18, "ONNX opset.")
_INPUT_DTYPE = flags.DEFINE_string("input_dtype", "float32", "float32 or uint8 images.")
_PREPROCESSING = flags.DEFINE_bool("preprocessing", True, "Normalise pixels inside the graph.")
_FIXED_BATCH = flags.DEFINE_integer("fixed_batch_size", None, "Batch size, if not any.", 1)
_FIXED_SIZE = flags.DEFINE_integer("fixed_image_size", None, "Image side, if not any.", 8)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Image side in pixels at which a .keras file is used.", 8
)
_CROP = flags.DEFINE_enum(
    "crop", None, ["center", "none"], "Crop, for a .keras file; the network's own by default."
)
_INTERPOLATION = flags.DEFINE_enum(
    "interpolation", None, ["bilinear", "bicubic"], "Of resizing, for a .keras file; likewise."
)
_LABELS = flags.DEFINE_string("labels", None, "Class names of a .keras file, one a line.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of images to calibrate and check with.")
_CALIBRATION = flags.DEFINE_integer("calibration_images", 300, "For int8 and int16x8.", 1)
_CHECK_IMAGES = flags.DEFINE_integer("check_images", 500, "Held-out images to compare on.", 1)
_THRESHOLD = flags.DEFINE_float("int8_threshold", 0.98, "Top-1 agreement that int8 needs.", 0, 1)
_FORCE = flags.DEFINE_bool("force", False, "Keep an int8 file below the threshold.")
_ONNXRUNTIME_WEB = flags.DEFINE_string(
    "onnxruntime_web", None, "Folder of that npm package, for web; default: fetched by npm."
)


def main() -> None:
    _check_request()
    programs.import_tensorflow()
    from effnetv2_tf.export.exporter import export
    from effnetv2_tf.training.interruptions import on_sigterm

    exportable, output_dir = _load()
    with on_sigterm(_stop):  # what is half made goes, and so does a browser
        report = export(exportable, output_dir, _FORMATS.value, _options())
    show(report, output_dir)
    if not report.ok:
        bad = [verdict.artefact.name for verdict in report.verdicts if not verdict.ok]
        raise TrainingFailure(f"{', '.join(bad)}: not fit for use; see {output_dir}")


def _stop(*_: Any) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def show(report: Report, output_dir: Path) -> None:
    """Prints the table, the notes, and where things are."""
    from effnetv2_tf.export.report import PICTURE_FILE, REPORT_FILE

    print(f"\n{report.metadata['name']} from {report.metadata['origin']}")
    print(f"Checked against Keras on {report.checked_on}\n")
    print(report.table())
    for verdict in report.verdicts:
        if verdict.problem:
            print(f"{verdict.artefact.name}: {verdict.status}: {verdict.problem}")
    for note in report.notes:
        print(f"Note: {note}")
    print("Artefacts:")
    for verdict in report.verdicts:
        if verdict.artefact.path.exists():
            print(f"  {verdict.artefact.path}{'' if verdict.ok else f' ({verdict.status})'}")
    reports = [output_dir / name for name in (REPORT_FILE, PICTURE_FILE)]
    print(f"  {', '.join(str(path) for path in reports if path.exists())}: the report")


def _check_request() -> None:
    """What can be told without TensorFlow, whose import takes seconds."""
    programs.check_not_empty(_OUTPUT_DIR, "the folder to export to")
    if (_MODEL_DIR.value is None) == (_KERAS_FILE.value is None):
        raise UsageError("expected either --model_dir or --keras_file")
    if _MODEL_DIR.value is not None:
        requests.check_run_folder(Path(_MODEL_DIR.value))
    else:
        requests.check_keras_file(Path(_KERAS_FILE.value or ""))
        if _OUTPUT_DIR.value is None:
            raise UsageError("--output_dir: expected with --keras_file, received none")
    requests.check_formats(_FORMATS.value)
    _check_no_flag_is_idle()


def _check_no_flag_is_idle() -> None:
    """Raises a UsageError for a flag that was given and would change nothing."""
    source, other = _MODEL_DIR.name, _KERAS_FILE.name
    idle: tuple[flags.FlagHolder, ...] = (_LABELS, _IMAGE_SIZE, _CROP, _INTERPOLATION)
    if _MODEL_DIR.value is None:
        source, other, idle = other, source, (_CHECKPOINT, _RAW)
    for flag in idle:
        if flag.present:
            hint = f"; --{_FIXED_SIZE.name} makes one size of it" if flag is _IMAGE_SIZE else ""
            raise UsageError(
                f"--{flag.name}: expected with --{other} alone, received it with --{source}, "
                f"which brings its own{hint}"
            )
    for precisions, name in ((_TFLITE, requests.TFLITE), (_ONNX, requests.ONNX)):
        if precisions.present and name not in _FORMATS.value:
            raise UsageError(
                f"--{precisions.name}: expected with {name} in --formats, received "
                f"--formats={','.join(_FORMATS.value)}"
            )


def _load() -> tuple[Exportable, Path]:
    """What to export, and where to."""
    from effnetv2_tf.export import loading

    images = loading.image_supply(_IMAGES.value)
    if _MODEL_DIR.value is not None:
        model_dir = Path(_MODEL_DIR.value)
        output_dir = Path(_OUTPUT_DIR.value or model_dir / "export")
        exportable = loading.load_model_dir(model_dir, _CHECKPOINT.value, _RAW.value, images)
        return exportable, output_dir
    exportable = loading.load_keras_file(
        _KERAS_FILE.value or "",
        labels=_labels(),
        image_size=_IMAGE_SIZE.value,
        crop=_CROP.value,
        images=images,
        interpolation=_INTERPOLATION.value,
    )
    return exportable, Path(_OUTPUT_DIR.value or "")


def _labels() -> list[str] | None:
    if _LABELS.value is None:
        return None
    try:
        return read_lines(Path(_LABELS.value))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--labels: cannot read {_LABELS.value}: {error}") from error


def _options() -> ExportOptions:
    from effnetv2_tf.export.exporter import ExportOptions

    return ExportOptions(
        tflite=tuple(_TFLITE.value),
        onnx=tuple(_ONNX.value),
        version=_VERSION.value,
        opset=_OPSET.value,
        input_dtype=_INPUT_DTYPE.value,
        batch_size=_FIXED_BATCH.value,
        image_size=_FIXED_SIZE.value,
        preprocessing=_PREPROCESSING.value,
        calibration_images=_CALIBRATION.value,
        check_images=_CHECK_IMAGES.value,
        int8_threshold=_THRESHOLD.value,
        force=_FORCE.value,
        onnxruntime_web=_ONNXRUNTIME_WEB.value,
    )


if __name__ == "__main__":
    programs.run(main)
