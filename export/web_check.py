"""Proof that an exported page computes what the Keras network computes, in a browser."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_tf.export.files import folder_size
from effnetv2_tf.export.loading import Exportable, predict
from effnetv2_tf.export.runtimes import Artefact
from effnetv2_tf.export.verification import (
    FAILED,
    PASSED,
    UNVERIFIED,
    Comparison,
    HeldOut,
    Verdict,
    verify,
)
from effnetv2_tf.export.web import MODEL_FILE

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",  # or it may end once the page has loaded
)
_CHECK = "/check/"
_CHECK_PAGE = resources.files("effnetv2_tf.export") / "web_check.html"
_IMAGES = 16
_DIFFERENCE = 1e-3  # largest allowed, of a probability
_SILENCE_SECONDS = 120.0  # without a request, the browser has hung


class BrowserUnusableError(Exception):
    """A browser that never asked for the page: nothing is known about the page."""


class PageError(Exception):
    """A page that was opened and did not answer as it should."""


@dataclass(frozen=True, eq=False)
class PageRun:
    """What a page made of images.

    Attributes:
      probabilities: (images, classes).
      load_seconds: until the network was ready.
      latency_ms: median for one image, without decoding and resizing.
    """

    probabilities: np.ndarray
    load_seconds: float
    latency_ms: float


def find_browser() -> str | None:
    """Chromium's (or Chrome's) path, None if neither is installed."""
    return next((path for path in map(shutil.which, _BROWSERS) if path), None)


def verify_page(artefact: Artefact, exportable: Exportable, sets: list[HeldOut]) -> Verdict:
    """Checks the network in ONNX Runtime on all images, and the page in Chromium on some.

    In Chromium the page gets image files, so that its decoding, cropping and resizing are
    checked too.

    Args:
      artefact: the folder.
      exportable: what it was made from.
      sets: see `verification.held_out`; the first is used.

    Returns:
      The verdict: `UNVERIFIED`, with the reason, if the network passed but no browser is there
      or none starts.
    """
    network = Artefact("onnx", artefact.precision, artefact.path / MODEL_FILE)
    verdict = verify(network, exportable, sets[:1])
    megabytes = round(folder_size(artefact.path) / 1e6, 3)
    verdict = replace(verdict, artefact=artefact, megabytes=megabytes)
    if verdict.status != PASSED:
        return verdict
    browser = find_browser()
    if browser is None:
        return _unverified(verdict, "chromium not found")
    pixels = sets[0].images.pixels[:_IMAGES]
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    try:
        run = run_page(browser, artefact.path, files)
    except BrowserUnusableError as error:
        return _unverified(verdict, f"{browser}: {error}")
    except PageError as error:
        return replace(verdict, status=FAILED, problem=f"in {browser}: {error}")
    preparation = exportable.preparation.at_size(sets[0].size)
    prepared = np.stack([preparation.prepare(tf.constant(file)).numpy() for file in files])
    return _judge(verdict, run, predict(exportable, prepared), sets[0].size)


def _unverified(verdict: Verdict, reason: str) -> Verdict:
    problem = f"not run in a browser: {reason} (its {MODEL_FILE} passed in ONNX Runtime)"
    return replace(verdict, status=UNVERIFIED, problem=problem)


def _judge(verdict: Verdict, run: PageRun, expected: np.ndarray, image_size: int) -> Verdict:
    """The verdict with the browser's figures; failed if its probabilities are others."""
    if run.probabilities.shape != expected.shape:
        shapes = f"expected {expected.shape}, received {run.probabilities.shape}"
        return replace(verdict, status=FAILED, problem=f"probabilities in the browser: {shapes}")
    agreement = run.probabilities.argmax(-1) == expected.argmax(-1)
    found = Comparison(
        batch_size=1,
        image_size=image_size,
        images=len(expected),
        max_difference=float(np.abs(run.probabilities - expected).max()),
        top_1_agreement=float(agreement.mean()),
    )
    verdict = replace(
        verdict,
        load_seconds=round(run.load_seconds, 3),
        latency_ms=round(run.latency_ms, 3),
        comparisons=(*verdict.comparisons, found),
    )
    if not found.max_difference <= _DIFFERENCE:  # also NaN
        problem = f"probabilities in the browser differ by {found.max_difference:.3g}"
        return replace(verdict, status=FAILED, problem=problem)
    return verdict


def run_page(browser: str, folder: Path, files: list[bytes]) -> PageRun:
    """Serves an exported page, opens it in a browser and has it classify image files.

    Args:
      browser: path of Chromium or Chrome.
      folder: see `export_web`.
      files: encoded images.

    Raises:
      BrowserUnusableError: if the browser does not ask for the page.
      PageError: if the page fails.
    """
    events: queue.Queue[Any] = queue.Queue()
    handler = functools.partial(_Handler, folder, files, events)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}{_CHECK}?count={len(files)}"
        try:
            with _opened(browser, url) as process:
                report = _await_report(process, events)
        finally:
            server.shutdown()
    if "error" in report:
        raise PageError(report["error"])
    return PageRun(
        np.array(report["probabilities"], np.float32),
        report["load_seconds"],
        statistics.median(report["milliseconds"]),
    )


class _Handler(SimpleHTTPRequestHandler):
    """Serves the page's folder, the check page and the images, and takes the report.

    Args:
      folder: of the page.
      files: encoded images.
      events: gets None for every request, and the report.
      arguments: of the base class.
    """

    def __init__(
        self, folder: Path, files: list[bytes], events: queue.Queue[Any], *arguments: Any
    ) -> None:
        self._files = files
        self._events = events
        super().__init__(*arguments, directory=str(folder))  # handles the request

    def do_GET(self) -> None:
        self._events.put(None)
        path = self.path.partition("?")[0]
        if path == _CHECK:
            self._answer("text/html; charset=utf-8", _CHECK_PAGE.read_bytes())
        elif path.startswith(_CHECK):
            number = int(path.removeprefix(_CHECK).removesuffix(".png"))
            self._answer("image/png", self._files[number])
        else:
            super().do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer("text/plain", b"")
        self._events.put(json.loads(body))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing: the report is what counts."""

    def _answer(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def _opened(browser: str, url: str) -> Iterator[subprocess.Popen]:
    """A browser of its own, with an empty profile, that shows `url`."""
    flags = [*_FLAGS]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses to start as root otherwise
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [browser, *flags, f"--user-data-dir={profile}", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_report(process: subprocess.Popen, events: queue.Queue[Any]) -> dict[str, Any]:
    """What the page posts."""
    opened = False
    last = time.monotonic()
    while time.monotonic() - last < _SILENCE_SECONDS:
        try:
            report = events.get(timeout=0.5)
        except queue.Empty:
            if process.poll() is None:
                continue
            break
        if report is not None:
            return report
        opened, last = True, time.monotonic()
    ended = process.poll()
    what = "no answer" if ended is None else f"ended with exit code {ended}"
    if opened:
        raise PageError(what)
    raise BrowserUnusableError(f"{what}, the page was not asked for")
