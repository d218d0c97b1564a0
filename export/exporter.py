"""Exporting and checking, in one go."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf.errors import TrainingFailure, UsageError, is_whole, suggestion
from effnetv2_tf.export import onnx as onnx_files
from effnetv2_tf.export import savedmodel, web, web_check
from effnetv2_tf.export import tflite as tflite_files
from effnetv2_tf.export.compiled_steps import check_compilable
from effnetv2_tf.export.loading import Exportable, wrap_model
from effnetv2_tf.export.report import Report, discard_report
from effnetv2_tf.export.requests import (
    COMPILED,
    DEFAULT_FORMATS,
    ONNX,
    SAVEDMODEL,
    TFLITE,
    WEB,
    check_formats,
)
from effnetv2_tf.export.runtimes import Artefact, require_runtimes
from effnetv2_tf.export.verification import (
    FAILED,
    FORCED,
    REFUSED,
    HeldOut,
    Verdict,
    doubts,
    held_out,
    verify,
)
from effnetv2_tf.export.web_runtime import WebRuntime, load_runtime
from effnetv2_tf.training.interruptions import only_run_in

_UNCHECKED = "unchecked"  # in the name of what has not been checked yet


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
      tflite: precisions, see `tflite.PRECISIONS`.
      onnx: precisions, see `onnx.PRECISIONS`.
      version: number of the SavedModel's folder; None for the one after the highest.
      opset: of ONNX files.
      input_dtype: `"float32"` or `"uint8"`, of SavedModel and ONNX.
      batch_size: a fixed one; None for any.
      image_size: a fixed side in pixels; None for any.
      preprocessing: whether artefacts normalise pixels themselves.
      calibration_images: representative images for int8 and 16x8.
      check_images: held-out images to compare on.
      int8_threshold: smallest top-1 agreement of int8 that is not refused; of a network
        without classifier, smallest cosine similarity of outputs.
      force: keeps a refused file.
      onnxruntime_web: folder of that npm package, for web pages; None to have npm fetch it.

    Raises:
      UsageError: for impossible numbers.
    """

    tflite: tuple[str, ...] = (tflite_files.FLOAT32, tflite_files.FLOAT16, tflite_files.DYNAMIC)
    onnx: tuple[str, ...] = (onnx_files.FLOAT32,)
    version: int | None = None
    opset: int = onnx_files.DEFAULT_OPSET
    input_dtype: str = "float32"
    batch_size: int | None = None
    image_size: int | None = None
    preprocessing: bool = True
    calibration_images: int = 300
    check_images: int = 500
    int8_threshold: float = 0.98
    force: bool = False
    onnxruntime_web: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("tflite", "onnx"):  # one alone may be given by its name
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        for name in ("calibration_images", "check_images", "opset"):
            _check_whole(name, getattr(self, name))
        for name in ("version", "batch_size", "image_size"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name))
        if not 0 <= self.int8_threshold <= 1:
            raise UsageError(
                f"--int8_threshold: expected a share from 0 to 1, received {self.int8_threshold!r}"
            )

    @property
    def dtype(self) -> tf.DType:
        """`input_dtype` as TensorFlow's type."""
        return tf.dtypes.as_dtype(self.input_dtype)


def _check_whole(name: str, value: Any) -> None:
    if not is_whole(value) or value < 1:
        raise UsageError(f"--{name}: expected a whole number above 0, received {value!r}")


def export(
    exportable: Exportable | keras.Model,
    output_dir: str | Path,
    formats: str | Sequence[str] = DEFAULT_FORMATS,
    options: ExportOptions | None = None,
) -> Report:
    """Writes artefacts, checks each in its own runtime, and writes the report.

    Below `output_dir`: `savedmodel/<version>/`, `compiled/<version>/`,
    `tflite/model_<precision>.tflite`, `onnx/model_<precision>.onnx`, `web/`, `export_report.json`,
    `export_report.png`. Artefacts get these names when they have passed their checks, so that a
    server never takes up one that did not: that is kept as `*.failed.*`, a refused int8 file as
    `*.refused.*` (a page stays `web/`).

    Args:
      exportable: from `load_model_dir`, `load_keras_file` or `wrap_model`; a Keras model is given
        to the last.
      output_dir: made if need be.
      formats: one or some of `requests.FORMATS`.
      options: see `ExportOptions`.

    Returns:
      The report; `report.ok` says whether every artefact passed.

    Raises:
      UsageError: before anything is written, if something asked for cannot be.
      TrainingFailure: likewise, if npm cannot fetch what a web page needs.
      OSError: if `output_dir` cannot be written to; nothing half-written stays.
    """
    options = options or ExportOptions()
    if isinstance(exportable, keras.Model):
        exportable = wrap_model(exportable)
    output_dir = Path(output_dir)
    jobs = _plan(output_dir, [formats] if isinstance(formats, str) else formats, options)
    exportable = _checked(exportable, options)
    if COMPILED in formats:
        check_compilable(exportable.graph)
    supplies = _Supplies(
        representative=_representative(exportable, jobs, options),
        web_runtime=_web_runtime(exportable, jobs, options),
    )
    _claim(output_dir)
    with only_run_in(output_dir, "--output_dir", "another process is exporting"):
        return _export(exportable, output_dir, jobs, options, supplies)


def _export(
    exportable: Exportable,
    output_dir: Path,
    jobs: list[Artefact],
    options: ExportOptions,
    supplies: _Supplies,
) -> Report:
    sets = held_out(exportable, options.check_images, options.image_size)
    notes = [*exportable.graph.notes, *exportable.notes, *doubts(sets[0])]
    discard_report(output_dir)  # of an earlier export, some of whose files are about to go
    verdicts = []
    for job in jobs:
        for status in (_UNCHECKED, FAILED, REFUSED):  # of an earlier export
            _remove(_named(job, status))
        verdict = _run(_candidate(job), exportable, options, supplies, sets, notes)
        verdicts.append(_settle(verdict, job, options.force))
    images = sets[0].images
    report = Report(
        metadata=exportable.metadata(),
        checked_on=f"{len(images)} images of {images.origin} at {sets[0].size} px",
        verdicts=tuple(verdicts),
        notes=tuple(notes),
    )
    report.write(output_dir)
    return report


@dataclass(frozen=True, eq=False)
class _Supplies:
    """What some artefacts need besides the network; None if none of them is asked for.

    Attributes:
      representative: uint8 images (count, size, size, channels) to measure ranges on.
      web_runtime: for web pages.
    """

    representative: np.ndarray | None
    web_runtime: WebRuntime | None


def _plan(output_dir: Path, formats: Sequence[str], options: ExportOptions) -> list[Artefact]:
    """What is to be made; all that can be known to fail fails here."""
    check_formats(formats)
    if options.input_dtype not in ("float32", "uint8"):
        raise UsageError(
            f"--input_dtype: expected float32 or uint8, received {options.input_dtype!r}"
        )
    if options.input_dtype == "uint8" and not options.preprocessing:
        raise UsageError("--input_dtype: expected float32 with --nopreprocessing, received uint8")
    if ONNX in formats or WEB in formats:
        onnx_files.check_opset(options.opset)
    require_runtimes(list(formats))
    jobs = []
    for name in (SAVEDMODEL, COMPILED):
        if name in formats:
            path = savedmodel.version_folder(output_dir / name, options.version)
            jobs.append(Artefact(name, "float32", path))
    for name, precisions, known, suffix in (
        (TFLITE, options.tflite, tflite_files.PRECISIONS, "tflite"),
        (ONNX, options.onnx, onnx_files.PRECISIONS, "onnx"),
    ):
        if name not in formats:
            continue
        if not precisions:
            raise UsageError(
                f"--{name}: expected at least one of {', '.join(known)}, received none; leave "
                f"{name} out of --formats to write no such file"
            )
        for precision in precisions:
            if precision not in known:
                hint = suggestion(precision, known) or f"; known: {', '.join(known)}"
                raise UsageError(f"--{name}: unknown precision {precision!r}{hint}")
            tflite_files.check_calibrated(name, precision, options.preprocessing)
            path = output_dir / name / f"model_{precision}.{suffix}"
            if path.is_dir():
                raise UsageError(f"--output_dir: {path} is a folder, expected a file or nothing")
            jobs.append(Artefact(name, precision, path))
    if WEB in formats:
        web.check_target(output_dir / WEB)
        jobs.append(Artefact(WEB, "float32", output_dir / WEB))
    return jobs


def _checked(exportable: Exportable, options: ExportOptions) -> Exportable:
    """What is to be exported, prepared for the size that it is to have."""
    if not options.preprocessing:
        exportable.graph.check_normalization_is_apart()
    size, own = options.image_size, exportable.graph.image_shape[0]
    if size is None:
        return exportable
    if own not in (None, size):
        raise UsageError(
            f"--fixed_image_size: expected {own}, the only size that the network takes, "
            f"received {size}"
        )
    return replace(exportable, preparation=exportable.preparation.at_size(size))


def _representative(
    exportable: Exportable, jobs: list[Artefact], options: ExportOptions
) -> np.ndarray | None:
    calibrated = [job for job in jobs if job.precision in tflite_files.CALIBRATED]
    if not calibrated:
        return None
    images = exportable.images.representative(exportable.preparation, options.calibration_images)
    if len(images) < tflite_files.MINIMUM_CALIBRATION_IMAGES:
        raise UsageError(
            f"--{calibrated[0].format}={calibrated[0].precision}: expected at least "
            f"{tflite_files.MINIMUM_CALIBRATION_IMAGES} representative images to measure ranges "
            f"on, received {len(images)} ({images.origin}); give more with --images=FOLDER and "
            "--calibration_images, or choose float16 or dynamic"
        )
    return images.pixels


def _web_runtime(
    exportable: Exportable, jobs: list[Artefact], options: ExportOptions
) -> WebRuntime | None:
    if all(job.format != WEB for job in jobs):
        return None
    web.check_exportable(exportable)
    return load_runtime(options.onnxruntime_web)


def _claim(output_dir: Path) -> None:
    """Makes the folder and tries to write to it, before minutes are spent."""
    probe = output_dir / ".writable"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--output_dir: cannot write to {output_dir}: {error}") from error


def _run(
    job: Artefact,
    exportable: Exportable,
    options: ExportOptions,
    supplies: _Supplies,
    sets: list[HeldOut],
    notes: list[str],
) -> Verdict:
    """Writes and checks one artefact."""
    try:
        notes += _write(job, exportable, options, supplies)
    except TrainingFailure as error:
        return Verdict(job, FAILED, str(error))
    if job.format == WEB:
        return web_check.verify_page(job, exportable, sets)
    return verify(
        job,
        exportable,
        sets,
        preprocessing=options.preprocessing,
        int8_threshold=options.int8_threshold,
    )


def _write(
    job: Artefact,
    exportable: Exportable,
    options: ExportOptions,
    supplies: _Supplies,
) -> list[str]:
    """Writes one artefact; returns notes for the user."""
    if job.format == WEB:
        assert supplies.web_runtime is not None  # `export` has seen to it
        web.export_web(
            exportable,
            job.path,
            supplies.web_runtime,
            opset=options.opset,
            image_size=options.image_size,
        )
        return [f"to see the page: python3 -m http.server --directory={job.path}"]
    common = {"image_size": options.image_size, "preprocessing": options.preprocessing}
    if job.format == TFLITE:
        tflite_files.export_tflite(
            exportable,
            job.path,
            job.precision,
            representative=supplies.representative,
            batch_size=options.batch_size,
            **common,
        )
        return []
    fixed = {"input_dtype": options.dtype, "batch_size": options.batch_size, **common}
    if job.format == ONNX:
        onnx_files.export_onnx(
            exportable,
            job.path,
            job.precision,
            opset=options.opset,
            representative=supplies.representative,
            **fixed,
        )
        return []
    return savedmodel.write_savedmodel(
        exportable, job.path, compiled=job.format == COMPILED, **fixed
    )


def _named(job: Artefact, status: str) -> Path:
    """The artefact's path with a status in its name, which no server takes for a version."""
    return job.path.with_name(f"{job.path.stem}.{status}{job.path.suffix}")


def _candidate(job: Artefact) -> Artefact:
    """The same where it is checked, so that what is no good replaces nothing.

    A page is checked in its place: it is made of files that name each other.
    """
    return job if job.format == WEB else replace(job, path=_named(job, _UNCHECKED))


def _settle(verdict: Verdict, job: Artefact, force: bool) -> Verdict:
    """Puts an artefact in its place if it passed; else keeps it under a name that says so."""
    if job.format == WEB:
        return verdict
    if verdict.status == REFUSED and force:
        verdict = replace(verdict, status=FORCED)
    checked = verdict.artefact.path
    path = job.path if verdict.ok else _named(job, verdict.status)
    if checked.exists():
        checked.replace(path)
    return replace(verdict, artefact=replace(job, path=path))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
