"""Artefacts that compute something else, or nothing, are found out."""

from __future__ import annotations

import json
import re

import filelock
import keras
import numpy as np
import pytest

from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.export.exporter import ExportOptions, export
from effnetv2_tf.export.images import FolderImages, ImagePreparation, Images
from effnetv2_tf.export.loading import predict, wrap_model
from effnetv2_tf.export.onnx import export_onnx
from effnetv2_tf.export.runtimes import Artefact, TFLiteRunner
from effnetv2_tf.export.tflite import export_tflite
from effnetv2_tf.export.tflite_metadata import read_metadata
from effnetv2_tf.export.verification import Comparison, Verdict, held_out, verify


class FewImages:
    """Patterns that also calibrate."""

    def __init__(self, pixels: np.ndarray, calibration: int = 40) -> None:
        self.pixels = pixels
        self.calibration = calibration
        self.labels = np.zeros(len(pixels), int)

    def held_out(self, preparation: ImagePreparation, count: int) -> Images:
        size = preparation.image_size
        pixels = np.resize(self.pixels, (len(self.pixels), size, size, 3))
        labels = None if self.labels is None else self.labels[:count]
        return Images(pixels[:count], labels, "patterns")

    def representative(self, preparation: ImagePreparation, count: int) -> Images:
        return Images(self.pixels[: self.calibration], None, "patterns")


@pytest.fixture(scope="module")
def calibrated(network, pixels):
    return wrap_model(network, None, ImagePreparation(32), FewImages(pixels))


@pytest.fixture(scope="module")
def sets(exportable):
    return held_out(exportable, 40)


def test_two_batch_sizes_and_two_image_sizes(exportable, sets, tmp_path):
    path = export_onnx(exportable, tmp_path / "a.onnx")
    verdict = verify(Artefact("onnx", "float32", path), exportable, sets)
    assert (verdict.status, verdict.ok) == ("passed", True)
    checked = [(c.batch_size, c.image_size, c.images) for c in verdict.comparisons]
    assert checked == [(16, 32, 40), (1, 32, 16), (16, 64, 16)]
    assert all(c.max_difference < 1e-4 for c in verdict.comparisons)
    assert verdict.comparisons[0].top_1_agreement == 1.0
    assert verdict.latency_ms > 0
    assert verdict.load_seconds > 0
    assert verdict.megabytes == pytest.approx(path.stat().st_size / 1e6, abs=1e-3)


def test_fixed_shapes_are_checked_at_that_shape(exportable, tmp_path):
    path = export_onnx(exportable, tmp_path / "a.onnx", batch_size=3, image_size=24)
    sets = held_out(exportable, 10, image_size=24)
    verdict = verify(Artefact("onnx", "float32", path), exportable, sets)
    assert verdict.ok, verdict.problem
    assert [(c.batch_size, c.image_size) for c in verdict.comparisons] == [(3, 24)]


def test_another_network_fails(network, exportable, sets, tmp_path):
    classifier = network.get_layer("classifier")
    saved = classifier.get_weights()
    classifier.bias.assign_add(np.linspace(0, 2, 7).astype("f"))
    try:  # other tests have the same network
        other = wrap_model(network, None, ImagePreparation(32))
        path = export_tflite(other, tmp_path / "a.tflite")
    finally:
        classifier.set_weights(saved)
    verdict = verify(Artefact("tflite", "float32", path), exportable, sets)
    assert verdict.status == "failed"
    assert "outputs differ by" in verdict.problem


@pytest.mark.parametrize("kind", ["tflite", "onnx", "savedmodel"])
def test_a_damaged_file_fails(exportable, sets, tmp_path, kind):
    path = tmp_path / "damaged"
    path.write_bytes(b"no model at all")
    verdict = verify(Artefact(kind, "float32", path), exportable, sets)
    assert verdict.status == "failed"
    assert verdict.problem.startswith("does not run: ")
    assert path.exists()


def test_everything_at_once(calibrated, tmp_path):
    options = ExportOptions(tflite=("float32", "int8"), check_images=40, int8_threshold=0.5)
    report = export(calibrated, tmp_path, ["savedmodel", "tflite", "onnx"], options)
    assert report.ok, report.table()
    saved = json.loads((tmp_path / "export_report.json").read_text())
    found = {(a["format"], a["precision"]): a for a in saved["artefacts"]}
    assert list(found) == [
        ("savedmodel", "float32"),
        ("tflite", "float32"),
        ("tflite", "int8"),
        ("onnx", "float32"),
    ]
    assert all(a["status"] == "passed" for a in found.values())
    assert found["tflite", "int8"]["comparisons"][0]["accuracy"] is not None
    assert saved["checked_on"] == "40 images of patterns at 32 px"
    assert (tmp_path / "export_report.png").read_bytes().startswith(b"\x89PNG")
    assert "savedmodel float32  passed" in report.table()


@pytest.fixture(scope="module")
def features(backbone, pixels):
    return wrap_model(backbone, None, ImagePreparation(32), FewImages(pixels))


def test_a_network_without_classifier_is_judged_by_its_outputs(features, tmp_path):
    report = export(features, tmp_path, "onnx", ExportOptions(check_images=40))
    assert report.ok, report.table()
    (artefact,) = json.loads((tmp_path / "export_report.json").read_text())["artefacts"]
    first = artefact["comparisons"][0]
    assert (first["top_1_agreement"], first["accuracy"]) == (None, None)
    assert first["cosine_similarity"] == pytest.approx(1, abs=1e-6)
    header, row = report.table().splitlines()
    assert header.endswith("max diff  cosine similarity")
    assert row.endswith("1.00000")


def test_features_that_point_elsewhere_are_refused(features, tmp_path):
    options = ExportOptions(tflite=("int8",), check_images=40, int8_threshold=1.0)
    report = export(features, tmp_path, ["tflite"], options)
    (verdict,) = report.verdicts
    assert verdict.status == "refused"
    assert re.match(
        r"cosine similarity 0\.9\d+ on 40 images, expected at least 1\.00000: try", verdict.problem
    )


@pytest.mark.parametrize("classes", [1, 6])
def test_decisions_are_compared_one_by_one(classes, make_network, pixels, tmp_path):
    """int8 of a network whose outputs lie near the boundary, and whose largest is always one."""
    model = make_network(classes=classes, classifier_activation="sigmoid")
    classifier = model.get_layer("classifier")
    features = keras.Model(model.input, classifier.input)(pixels.astype("f")).numpy()
    logits = features @ np.asarray(classifier.kernel)
    bias = -np.median(logits, axis=0)
    if classes > 1:
        bias[0] = 8 - logits[:, 0].min()
    classifier.bias.assign(bias)
    supply = FewImages(pixels)
    supply.labels = None
    subject = wrap_model(model, None, ImagePreparation(32), supply)
    options = ExportOptions(tflite=("float32", "int8"), check_images=40, int8_threshold=0.999)
    report = export(subject, tmp_path, ["tflite"], options)
    exact, rough = report.verdicts
    assert (exact.status, rough.status) == ("passed", "refused")
    found = rough.comparisons[0]
    assert found.top_1_agreement is None
    path = rough.artefact.path
    runner = TFLiteRunner(path)
    ours = runner.run(pixels.astype(runner.dtype)) > 0.5
    theirs = predict(subject, pixels) > 0.5
    assert found.decision_agreement == pytest.approx((ours == theirs).mean())
    assert "agreement of decisions" in rough.problem
    assert 0.2 < theirs.mean() < 0.8


@pytest.fixture
def nine_in_ten_agree(monkeypatch):
    """How often a small network's int8 file agrees is left to chance otherwise."""
    monkeypatch.setattr(Comparison, "agreement", 0.9)


def test_a_refused_file_replaces_none(calibrated, nine_in_ten_agree, tmp_path):
    path = tmp_path / "tflite" / "model_int8.tflite"
    for threshold, status in ((0.5, "passed"), (0.95, "refused"), (0.5, "passed")):
        options = ExportOptions(tflite=("int8",), check_images=40, int8_threshold=threshold)
        (verdict,) = export(calibrated, tmp_path, ["tflite"], options).verdicts
        assert verdict.status == status
        assert path.is_file()
        assert path.with_name("model_int8.refused.tflite").exists() is (status == "refused")


@pytest.mark.parametrize("kind", ["savedmodel", "tflite", "onnx"])
def test_what_fails_replaces_nothing_and_no_server_takes_it_up(
    kind, exportable, tmp_path, monkeypatch
):
    options = ExportOptions(tflite=("float32",), check_images=20)
    (before,) = export(exportable, tmp_path, [kind], options).verdicts
    there = {path: path.stat().st_mtime_ns for path in before.artefact.path.parent.iterdir()}

    def wrong(artefact, *arguments, **options):
        assert artefact.path.exists()
        return Verdict(artefact, "failed", "outputs differ")

    monkeypatch.setattr("effnetv2_tf.export.exporter.verify", wrong)
    for _ in range(2):  # the second replaces what is left of the first
        (verdict,) = export(exportable, tmp_path, [kind], options).verdicts
        assert verdict.artefact.path.exists() and ".failed" in verdict.artefact.path.name
        now = {path: path.stat().st_mtime_ns for path in before.artefact.path.parent.iterdir()}
        assert now.pop(verdict.artefact.path)
        assert now == there


def test_a_report_does_not_outlive_its_files(calibrated, tmp_path, monkeypatch):
    options = ExportOptions(tflite=("float32",), check_images=40)
    export(calibrated, tmp_path, ["tflite"], options)

    def stopped(*arguments, **options):
        raise SystemExit(143)

    monkeypatch.setattr("effnetv2_tf.export.exporter._run", stopped)
    with pytest.raises(SystemExit):
        export(calibrated, tmp_path, ["tflite"], options)
    assert not list(tmp_path.glob("export_report.*"))


def test_a_report_of_nothing_but_failures(exportable, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise TrainingFailure("no such operation")

    monkeypatch.setattr("effnetv2_tf.export.onnx.export_onnx", fails)
    report = export(exportable, tmp_path, ["onnx"], ExportOptions(check_images=40))
    assert [v.problem for v in report.verdicts] == ["no such operation"]
    assert json.loads((tmp_path / "export_report.json").read_text())["ok"] is False
    assert not (tmp_path / "export_report.png").exists()


def test_two_exports_into_one_folder_are_refused(exportable, tmp_path):
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(UsageError, match="is exporting in"):
        export(exportable, tmp_path, ["onnx"])


def test_a_fixed_size_is_that_of_the_preparation(exportable, tmp_path):
    options = ExportOptions(tflite=("float32",), check_images=20, image_size=24, batch_size=2)
    report = export(exportable, tmp_path, ["tflite", "onnx", "savedmodel"], options)
    assert report.ok, report.table()
    assert report.metadata["preparation"]["image_size"] == 24
    path = tmp_path / "tflite" / "model_float32.tflite"
    runner = TFLiteRunner(path)
    assert (runner.batch_size, runner.image_size) == (2, 24)
    metadata, _ = read_metadata(path.read_bytes())
    assert metadata["preparation"]["image_size"] == 24
    assert (metadata["input"]["any_batch_size"], metadata["input"]["any_image_size"]) == (0, 0)


def test_int8_below_the_threshold_is_refused(calibrated, nine_in_ten_agree, tmp_path):
    options = ExportOptions(tflite=("int8",), check_images=40)
    report = export(calibrated, tmp_path, ["tflite"], options)
    (verdict,) = report.verdicts
    assert (report.ok, verdict.status) == (False, "refused")
    assert "int16x8" in verdict.problem
    assert "--force" in verdict.problem
    assert [p.name for p in (tmp_path / "tflite").iterdir()] == ["model_int8.refused.tflite"]
    assert json.loads((tmp_path / "export_report.json").read_text())["ok"] is False


def test_a_refused_file_can_be_kept(calibrated, nine_in_ten_agree, tmp_path):
    options = ExportOptions(tflite=("int8",), check_images=40, force=True)
    report = export(calibrated, tmp_path, ["tflite"], options)
    assert (report.ok, report.verdicts[0].status) == (True, "forced")
    assert (tmp_path / "tflite" / "model_int8.tflite").exists()


def test_bad_requests_fail_before_anything_is_written(
    exportable, calibrated, make_network, pixels, tmp_path
):
    target = tmp_path / "out"

    def refuses(match, formats, subject=exportable, **options):
        with pytest.raises(UsageError, match=match):
            export(subject, target, formats, ExportOptions(**options))

    refuses(r"unknown format 'tflit'; did you mean 'tflite'\?", ["tflit"])
    refuses("expected at least one of savedmodel", [])
    refuses("--tflite: expected at least one of float32, .*received none", ["tflite"], tflite=())
    refuses("--onnx: expected at least one of .*leave onnx out", ["savedmodel", "onnx"], onnx=())
    refuses(r"--tflite: unknown precision 'int4'", ["tflite"], tflite=("int4",))
    refuses("--input_dtype: expected float32 or uint8", ["onnx"], input_dtype="int8")
    refuses("--opset: expected 13 to 18, received 21", ["savedmodel", "onnx"], opset=21)
    refuses(
        "--tflite=int8: expected the normalisation in the file", ["savedmodel", "tflite"],
        tflite=("int8",), preprocessing=False,
    )  # fmt: skip
    fixed = wrap_model(make_network(classes=3, input_shape=(32, 32, 3)))
    refuses("--fixed_image_size: expected 32, .*received 48", ["onnx"], fixed, image_size=48)
    refuses(r"received 0 \(none given\)", ["tflite"], tflite=("int8",))
    few = wrap_model(calibrated.model, None, ImagePreparation(32), FewImages(pixels, 31))
    refuses("at least 32 representative images.*received 31", ["onnx"], few, onnx=("int8",))
    assert not target.exists()
    target.write_text("a file")
    refuses("--output_dir: cannot write to", ["onnx"])


def test_images_of_a_folder(tmp_path):
    from PIL import Image

    for number in range(6):
        Image.new("RGB", (40, 30), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "._0.png").write_bytes(b"what a Mac writes beside it")
    (tmp_path / "folder.png").mkdir()
    supply, preparation = FolderImages(tmp_path), ImagePreparation(16)
    checked = supply.held_out(preparation, 10).pixels
    calibration = supply.representative(preparation, 2).pixels
    assert checked.shape == (3, 16, 16, 3)
    assert sorted(checked[:, 0, 0, 0]) == [40, 120, 200]
    assert calibration.shape == (2, 16, 16, 3)
    (tmp_path / "7.png").write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"7\.png cannot be decoded"):
        supply.held_out(preparation, 10)
        supply.representative(preparation, 10)
    with pytest.raises(UsageError, match="expected a folder"):
        FolderImages(tmp_path / "none").held_out(preparation, 1)
