"""The exported page in headless Chromium: what it says of image files is what Python says."""

from __future__ import annotations

import functools
import json
import os
import shutil
import struct
import threading
import zlib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn import datasets

from effnetv2_tf.export import web_check
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.loading import predict, wrap_model
from effnetv2_tf.export.runtimes import Artefact
from effnetv2_tf.export.verification import held_out
from effnetv2_tf.export.web import export_web
from effnetv2_tf.export.web_runtime import load_runtime

MISSING = [name for name in ("chromium", "chromedriver", "npm") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
SECONDS = 60  # at most, for a page to answer


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        pass


@pytest.fixture(scope="module")
def runtime():
    return load_runtime()


@pytest.fixture(scope="module")
def page(exportable, runtime, tmp_path_factory) -> Path:
    return export_web(exportable, tmp_path_factory.mktemp("page") / "web", runtime)


@pytest.fixture(scope="module")
def origin(page):
    """The address of a server that has the page's folder and nothing else."""
    handler = functools.partial(_Quiet, directory=str(page))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "--headless",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # no host but the server
        "--window-size=1000,800",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def opened(driver, origin):
    """The page, ready; the logs of earlier pages are gone."""
    for kind in ("performance", "browser"):
        driver.get_log(kind)
    driver.get(origin)
    assert wait_for(driver, "ready", "error") == "Ready."
    return driver


def wait_for(driver, *states: str) -> str:
    """Waits until the page's status is one of `states`; returns its text."""
    from selenium.webdriver.support.ui import WebDriverWait

    def status(driver):
        element = driver.find_element("id", "status")
        return element.text if element.get_attribute("data-state") in states else None

    return WebDriverWait(driver, SECONDS, poll_frequency=0.05).until(status)


def forget_status(driver) -> None:
    """So that the status of an earlier file is not taken for the next one's."""
    driver.execute_script("document.getElementById('status').dataset.state = 'old'")


def choose(driver, file: Path) -> str:
    """Chooses a file, as a visitor does; returns what the page says when it is done."""
    forget_status(driver)
    driver.find_element("id", "file").send_keys(str(file))
    return wait_for(driver, "done", "error")


def shown(driver) -> list[tuple[str, float]]:
    """The classes that the page lists, with their probabilities."""
    return [
        (
            item.find_element("class name", "label").text,
            float(item.find_element("tag name", "data").get_attribute("value")),
        )
        for item in driver.find_elements("css selector", "#classes li")
    ]


def expected(exportable, file: Path, encoded=None) -> list[tuple[str, float]]:
    """The five likeliest classes as Python's evaluation preprocessing and Keras have them."""
    encoded = tf.constant(file.read_bytes()) if encoded is None else encoded
    pixels = exportable.preparation.prepare(encoded).numpy()
    (probabilities,) = predict(exportable, pixels[None])
    order = np.argsort(-probabilities)[:5]
    return [(exportable.labels[index], float(probabilities[index])) for index in order]


def assert_same(found, wanted, tolerance=1e-3):
    assert [label for label, _ in found] == [label for label, _ in wanted], (found, wanted)
    np.testing.assert_allclose([p for _, p in found], [p for _, p in wanted], atol=tolerance)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Photographs and drawings, none of them square, some with tags that Python ignores."""
    folder = tmp_path_factory.mktemp("images")
    china, flower = datasets.load_sample_images().images  # uint8 (427, 640, 3)

    def save(name: str, pixels: np.ndarray, **options) -> Path:
        Image.fromarray(pixels).save(folder / name, **options)
        return folder / name

    rotated = Image.Exif()
    rotated[0x0112] = 6  # orientation: to be turned by 90 degrees
    noise = np.random.default_rng(1).integers(0, 256, (50, 77, 3), np.uint8)
    files = {
        "photo.jpg": save("photo.jpg", china, quality=95),
        "tall.jpg": save("tall.jpg", np.ascontiguousarray(flower[:, 200:420]), quality=90),
        "turned.jpg": save("turned.jpg", flower, quality=95, exif=rotated),
        "grey.jpg": save("grey.jpg", china[..., 1], quality=95),
        "photo.png": save("photo.png", flower[::2, ::3]),
        "noise.png": save("noise.png", noise),
        "grey.png": save("grey.png", np.ascontiguousarray(china[:300, :, 0])),
    }
    gamma = struct.pack(">I", 4) + b"gAMA" + struct.pack(">I", 100_000)
    gamma += struct.pack(">I", zlib.crc32(gamma[4:]))
    plain = files["photo.png"].read_bytes()
    files["gamma.png"] = folder / "gamma.png"
    files["gamma.png"].write_bytes(plain[:33] + gamma + plain[33:])
    return files


@pytest.mark.parametrize(
    "name",
    [
        "photo.jpg",
        "tall.jpg",
        "turned.jpg",
        "grey.jpg",
        "photo.png",
        "noise.png",
        "grey.png",
        "gamma.png",
    ],
)
def test_the_likeliest_five_are_those_of_python(opened, exportable, files, name):
    status = choose(opened, files[name])
    wanted = expected(exportable, files[name])
    assert_same(shown(opened), wanted)
    assert status.startswith(f"{wanted[0][0]}, "), status
    assert abs(float(status.split(", ")[1].split(" %")[0]) / 100 - shown(opened)[0][1]) < 1e-3
    assert " ms." in status
    assert opened.find_element("id", "caption").text == name
    preview = opened.find_element("id", "preview")
    assert preview.is_displayed()
    assert preview.get_attribute("alt") == f"Preview of {name}"
    assert opened.execute_script("return arguments[0].naturalWidth", preview) > 0


def test_files_one_after_the_other_and_a_dropped_one(opened, exportable, files):
    choose(opened, files["noise.png"])
    choose(opened, files["photo.png"])
    assert_same(shown(opened), expected(exportable, files["photo.png"]))
    content = list(files["noise.png"].read_bytes())
    forget_status(opened)
    opened.execute_script(
        "const data = new DataTransfer();"
        "data.items.add(new File([new Uint8Array(arguments[0])], 'dropped.png'));"
        "document.querySelector('h1').dispatchEvent("
        "  new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));",
        content,
    )
    wait_for(opened, "done", "error")
    assert opened.find_element("id", "caption").text == "dropped.png"
    assert_same(shown(opened), expected(exportable, files["noise.png"]))


def test_a_file_by_address(driver, origin, page, exportable, files):
    shutil.copy(files["photo.png"], page / "served.png")
    driver.get(origin + "?image=served.png")
    wait_for(driver, "done", "error")
    assert_same(shown(driver), expected(exportable, files["photo.png"]))
    (page / "served.png").unlink()
    driver.get(origin + "?image=none.png")
    assert "none.png: 404" in wait_for(driver, "done", "error")


def test_a_file_that_is_no_image(opened, exportable, files, tmp_path):
    choose(opened, files["photo.png"])
    (tmp_path / "notes.txt").write_text("no image at all")
    assert choose(opened, tmp_path / "notes.txt") == (
        "notes.txt is no image that this browser can read. Expected: a JPEG or PNG file."
    )
    assert not opened.find_element("id", "result").is_displayed()
    choose(opened, files["noise.png"])  # and goes on
    assert_same(shown(opened), expected(exportable, files["noise.png"]))


def test_transparent_parts_are_told(opened, tmp_path):
    pixels = np.full((30, 40, 4), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "veil.png")
    assert "transparent" in choose(opened, tmp_path / "veil.png")
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "solid.png")
    assert "transparent" not in choose(opened, tmp_path / "solid.png")


def test_nothing_is_asked_of_another_host(opened, origin, files):
    choose(opened, files["photo.jpg"])
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert f"{origin}model.onnx" in asked
    assert f"{origin}onnxruntime/ort-wasm-simd-threaded.wasm" in asked
    assert [url for url in asked if not url.startswith((origin, "blob:", "data:"))] == []
    assert [entry["message"] for entry in opened.get_log("browser")] == []  # nor refused by policy


def test_the_page_may_not_ask_another_host(opened):
    """The page's policy forbids it, whatever its code does."""
    refused = opened.execute_async_script(
        "const done = arguments[0];"
        "addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective));"
        "fetch('http://example.org/').catch(() => {});"
    )
    assert refused == "connect-src"


def test_a_page_that_cannot_load_says_so(driver, origin, page):
    (page / "model.onnx").rename(page / "model.away")
    driver.get(origin)
    try:
        assert wait_for(driver, "ready", "error").startswith("The network cannot be loaded: ")
    finally:
        (page / "model.away").rename(page / "model.onnx")


def test_opened_from_disk_it_says_how_to_serve_it(driver, page):
    driver.get(page.joinpath("index.html").as_uri())
    assert "python3 -m http.server" in driver.find_element("id", "status").text


@pytest.mark.parametrize(
    "preparation",
    [
        ImagePreparation(40, crop="none", interpolation="bilinear"),
        ImagePreparation(24, crop_padding=0, decoded_channels=1),
    ],
)
def test_verification_opens_the_page(network, runtime, tmp_path, preparation):
    exportable = wrap_model(network, None, preparation)
    path = export_web(exportable, tmp_path / "web", runtime)
    sets = held_out(exportable, 5)
    verdict = web_check.verify_page(Artefact("web", "float32", path), exportable, sets)
    assert (verdict.status, verdict.problem) == ("passed", None)
    assert verdict.comparisons[-1].images == 5
    assert verdict.comparisons[-1].max_difference < 1e-4
    assert verdict.latency_ms > 0
    (path / "metadata.json").write_text("{}")
    verdict = web_check.verify_page(Artefact("web", "float32", path), exportable, sets)
    assert verdict.status == "failed"
    assert "TypeError" in verdict.problem
