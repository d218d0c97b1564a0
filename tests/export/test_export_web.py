"""The folder of a web page: what is in it, what it replaces, and what its making can fail on."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.export import web, web_check
from effnetv2_tf.export.exporter import ExportOptions, export
from effnetv2_tf.export.loading import predict, wrap_model
from effnetv2_tf.export.runtimes import Artefact, OnnxRunner
from effnetv2_tf.export.verification import held_out
from effnetv2_tf.export.web_runtime import VERSION, WebRuntime, load_runtime

RUNTIME = WebRuntime("1.2.3", {"ort.wasm.bundle.min.js": b"code", "LICENSE": b"licence"})


def program(path: Path, source: str) -> Path:
    """An executable file that runs a Python program."""
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of onnxruntime-web with nothing in its files."""
    folder = tmp_path / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"version": "1.2.3"}')
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (folder / "dist" / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def page(exportable, tmp_path) -> Path:
    return web.export_web(exportable, tmp_path / "web", RUNTIME)


def test_all_that_a_page_needs_is_in_its_folder(page):
    files = {str(path.relative_to(page)) for path in page.rglob("*") if path.is_file()}
    assert files == {
        "index.html",
        "page.css",
        "page.js",
        "classifier.js",
        "decoding.js",
        "preparation.js",
        "model.onnx",
        "metadata.json",
        "onnxruntime/ort.wasm.bundle.min.js",
        "onnxruntime/LICENSE",
    }
    assert (page / "onnxruntime" / "ort.wasm.bundle.min.js").read_bytes() == b"code"
    for file in page.glob("*.*"):
        assert b"https://" not in file.read_bytes(), file  # nothing from elsewhere


def test_labels_and_preparation_are_json(page, exportable):
    metadata = json.loads((page / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["labels"] == [f"class {number}" for number in range(7)]
    assert metadata["preparation"] == {
        "image_size": 32,
        "channels": 3,
        "crop": "center",
        "crop_padding": 4,
        "interpolation": "bicubic",
    }
    assert metadata["runtime"] == "onnxruntime-web 1.2.3"
    assert metadata["input"]["normalization"]["inside_the_model"]


def test_the_network_takes_one_image_of_one_size(page, exportable, pixels):
    runner = OnnxRunner(page / "model.onnx")
    assert (runner.batch_size, runner.image_size, runner.dtype) == (1, 32, np.float32)
    outputs = runner.run(pixels[:1].astype("f"))
    np.testing.assert_allclose(outputs, predict(exportable, pixels[:1]), atol=5e-5)


def test_another_opset_and_size(exportable, tmp_path):
    page = web.export_web(exportable, tmp_path / "web", RUNTIME, opset=17, image_size=24)
    assert OnnxRunner(page / "model.onnx").image_size == 24
    assert json.loads((page / "metadata.json").read_text())["preparation"]["image_size"] == 24
    assert onnx.load(page / "model.onnx").opset_import[0].version == 17


def test_an_older_page_is_replaced_as_a_whole(page, exportable):
    (page / "old.txt").write_text("of the older page")
    web.export_web(exportable, page, RUNTIME)
    assert not (page / "old.txt").exists()
    assert (page / "index.html").is_file()
    assert [path.name for path in page.parent.iterdir()] == ["web"]


def test_an_older_page_stays_if_the_new_one_fails(page, exportable):
    unwritable = WebRuntime("1.2.3", {"no/such/folder": b""})
    (page / "old.txt").write_text("of the older page")
    with pytest.raises(OSError, match="no/such/folder"):
        web.export_web(exportable, page, unwritable)
    assert (page / "old.txt").is_file()
    assert [path.name for path in page.parent.iterdir()] == ["web"]


def test_another_folder_is_not_replaced(exportable, tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"--output_dir: .*web exists and is no exported page"):
        web.export_web(exportable, tmp_path / "web", RUNTIME)
    with pytest.raises(UsageError, match="is no exported page"):
        export(exportable, tmp_path, ["web"], ExportOptions(onnxruntime_web="/no/such/folder"))
    assert [path.name for path in (tmp_path / "web").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("channels", "activation", "message"),
    [
        (3, None, "expected a network that ends with a probability for each class"),
        (4, "softmax", "expected a network for images with 1 or 3 channels, received 4"),
    ],
)
def test_networks_that_a_page_cannot_show(channels, activation, message):
    inputs = keras.Input((8, 8, channels))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4, activation=activation)(x))
    with pytest.raises(UsageError, match=f"--formats=web: {message}"):
        web.check_exportable(wrap_model(model))


class TestRuntime:
    def test_a_local_copy(self, package):
        runtime = load_runtime(package)
        assert runtime.version == "1.2.3"
        assert runtime.files["ort.wasm.bundle.min.js"] == b"ort.wasm.bundle.min.mjs"
        assert runtime.files["ort-wasm-simd-threaded.wasm"] == b"ort-wasm-simd-threaded.wasm"
        assert b"Microsoft" in runtime.files["LICENSE"]
        assert len(runtime.files["ThirdPartyNotices.txt"]) > 1000

    def test_a_folder_that_is_no_copy(self, package):
        (package / "dist" / "ort-wasm-simd-threaded.wasm").unlink()
        message = (
            r"--onnxruntime_web: expected a copy .* has no dist/ort-wasm-simd-threaded\.wasm; "
            rf"`npm install onnxruntime-web@{VERSION}`"
        )
        with pytest.raises(UsageError, match=message):
            load_runtime(package)
        (package / "package.json").write_text('{"ver')
        with pytest.raises(UsageError, match=r"package\.json is damaged"):
            load_runtime(package)

    def test_no_npm(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        message = "--formats=web: needs onnxruntime-web .*npm is not installed.*--onnxruntime_web="
        with pytest.raises(UsageError, match=message):
            load_runtime()

    def test_no_network(self, monkeypatch, tmp_path):
        program(
            tmp_path / "npm",
            "import sys\nsys.exit('npm error code ENOTFOUND\\nnpm error network no such host')",
        )
        monkeypatch.setenv("PATH", str(tmp_path))
        message = (
            r"npm cannot fetch onnxruntime-web .*ENOTFOUND .*no such host; check the network, or "
            r"pass a copy of the package with --onnxruntime_web=FOLDER"
        )
        with pytest.raises(TrainingFailure, match=message) as caught:
            load_runtime()
        assert "\n" not in str(caught.value)

    def test_what_npm_fetches_is_unpacked(self, monkeypatch, package, tmp_path):
        program(
            tmp_path / "npm",
            "import sys, tarfile\n"
            f"assert sys.argv[1:3] == ['pack', 'onnxruntime-web@{VERSION}']\n"
            "folder = sys.argv[3].removeprefix('--pack-destination=')\n"
            "with tarfile.open(folder + '/a.tgz', 'w:gz') as archive:\n"
            f"    archive.add({str(package)!r}, 'package')\n",
        )
        monkeypatch.setenv("PATH", str(tmp_path))
        assert load_runtime() == load_runtime(package)
        (package / "dist" / "ort.wasm.bundle.min.mjs").unlink()
        with pytest.raises(TrainingFailure, match="the package has no package/dist/ort.wasm"):
            load_runtime()

    def test_it_is_fetched_before_anything_is_written(self, monkeypatch, exportable, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UsageError, match="npm is not installed"):
            export(exportable, tmp_path / "out", ["onnx", "web"])
        assert not (tmp_path / "out").exists()


def test_the_command_without_npm_is_one_line_and_2(model_dir, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "effnetv2_tf.export", f"--model_dir={model_dir}", "--formats=web"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: --formats=web: needs onnxruntime-web ")
    assert done.stderr.count("\n") == 1
    assert not (model_dir / "export").exists()


class TestVerification:
    """With programs that take the browser's place and answer for the page."""

    ANSWER = """
import json, sys, urllib.request
url = sys.argv[-1]
origin = url[:url.index("/check/")]
def get(path):
    return urllib.request.urlopen(origin + path).read()
assert b"/classifier.js" in get("/check/?count=2")
assert get("/check/0.png").startswith(b"\\x89PNG")
assert b"class Classifier" in get("/classifier.js")
urllib.request.urlopen(origin + "/check/report", json.dumps(REPORT).encode())
"""

    @pytest.fixture(scope="class")
    def sets(self, exportable):
        return held_out(exportable, 4)

    @pytest.fixture
    def verify(self, exportable, sets, page, tmp_path, monkeypatch):
        """Verifies the page with a browser that is a Python program, or with none."""

        def run(browser: str | None):
            found = browser and str(program(tmp_path / "browser", browser))
            monkeypatch.setattr(web_check, "find_browser", lambda: found)
            return web_check.verify_page(Artefact("web", "float32", page), exportable, sets)

        return run

    def report(self, exportable, sets, **changes):
        preparation, files = exportable.preparation, []
        for image in sets[0].images.pixels:
            from tensorflow import io

            files.append(preparation.prepare(io.encode_png(image)).numpy())
        probabilities = predict(exportable, np.stack(files)).tolist()
        values = {"load_seconds": 1.5, "milliseconds": [9, 2, 3], "probabilities": probabilities}
        return self.ANSWER.replace("REPORT", repr(values | changes))

    def test_a_page_that_agrees(self, verify, exportable, sets, page):
        verdict = verify(self.report(exportable, sets))
        assert (verdict.status, verdict.problem) == ("passed", None)
        assert (verdict.load_seconds, verdict.latency_ms) == (1.5, 3)
        checked = [(c.batch_size, c.image_size, c.images) for c in verdict.comparisons]
        assert checked == [(1, 32, 4), (1, 32, 4)]  # in ONNX Runtime, and in the browser
        assert all(c.max_difference < 1e-4 for c in verdict.comparisons)
        size = sum(file.stat().st_size for file in page.rglob("*.*"))
        assert verdict.megabytes == pytest.approx(size / 1e6, abs=0.01)

    def test_a_page_that_differs(self, verify, exportable, sets):
        verdict = verify(self.report(exportable, sets, probabilities=[[1 / 7] * 7] * 4))
        assert (verdict.status, verdict.ok) == ("failed", False)
        assert "probabilities in the browser differ by" in verdict.problem
        verdict = verify(self.report(exportable, sets, probabilities=[[1.0]]))
        assert verdict.problem.endswith("expected (4, 7), received (1, 1)")

    def test_a_page_with_an_error(self, verify, exportable, sets):
        verdict = verify(self.report(exportable, sets, error="TypeError: x is null"))
        assert verdict.status == "failed"
        assert verdict.problem.endswith("browser: TypeError: x is null")

    def test_a_page_that_ends_its_browser(self, verify):
        verdict = verify(self.ANSWER.replace("json.dumps(REPORT)", "sys.exit(3)"))
        assert verdict.status == "failed"
        assert "ended with exit code 3" in verdict.problem

    def test_no_browser_or_none_that_starts(self, verify):
        verdict = verify(None)
        assert (verdict.status, verdict.ok) == ("unverified", True)
        assert verdict.problem == (
            "not run in a browser: chromium not found (its model.onnx passed in ONNX Runtime)"
        )
        assert verdict.comparisons[0].max_difference < 1e-4
        verdict = verify("raise SystemExit(7)")
        assert verdict.status == "unverified"
        assert "ended with exit code 7, the page was not asked for" in verdict.problem

    def test_a_damaged_network_needs_no_browser(self, verify, page):
        (page / "model.onnx").write_bytes(b"no model")
        verdict = verify("raise AssertionError")
        assert verdict.status == "failed"
        assert verdict.artefact.path == page

    def test_the_report_says_so(self, exportable, package, tmp_path, monkeypatch):
        monkeypatch.setattr(web_check, "find_browser", lambda: None)
        options = ExportOptions(onnxruntime_web=package, check_images=8)
        report = export(exportable, tmp_path / "out", ["web"], options)
        assert report.ok
        assert "web float32  unverified" in report.table()
        saved = json.loads((tmp_path / "out" / "export_report.json").read_text())
        (artefact,) = saved["artefacts"]
        assert "chromium not found" in artefact["problem"]
        assert saved["notes"] == [
            f"to see the page: python3 -m http.server --directory={tmp_path / 'out' / 'web'}"
        ]
