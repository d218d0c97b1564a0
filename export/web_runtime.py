"""onnxruntime-web, which runs a network in a browser: from npm, or from a local copy.

The package is not part of this one; its files are copied into each exported page, so that the
page needs no network.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.export.requests import WEB
from effnetv2_tf.export.runtimes import require_runtimes

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
# The smallest set: the API with the loader of the WebAssembly file inside, and that file. It
# runs on the CPU, with threads where a page is cross-origin isolated. The first file is renamed
# since not every server knows that .mjs is JavaScript.
FILES = {
    "dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
# Not in the npm package, but in the Python package of the same project and licence.
_LICENCE_FILES = ("LICENSE", "ThirdPartyNotices.txt")
_NPM_SECONDS = 600
_OWN_COPY = "pass a copy of the package with --onnxruntime_web=FOLDER"


@dataclass(frozen=True)
class WebRuntime:
    """onnxruntime-web in memory.

    Attributes:
      version: of the package.
      files: name in a page's `onnxruntime` folder to content, with the licence.
    """

    version: str
    files: dict[str, bytes]


def load_runtime(folder: str | Path | None = None) -> WebRuntime:
    """Reads onnxruntime-web from a folder, or has npm fetch it (from its cache, if it is there).

    Args:
      folder: an unpacked package, e.g. `node_modules/onnxruntime-web`; None for npm.

    Raises:
      UsageError: if the folder is no such copy, or npm or onnxruntime is not installed.
      TrainingFailure: if npm cannot fetch the package.
    """
    require_runtimes([WEB])
    if folder is not None:
        return _from_folder(Path(folder))
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(
            f"--formats=web: needs {PACKAGE} {VERSION} from npm, and npm is not installed; "
            f"install it (Debian: apt-get install npm), or {_OWN_COPY}"
        )
    return _from_npm(npm)


def _from_folder(folder: Path) -> WebRuntime:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise UsageError(
                f"--onnxruntime_web: expected a copy of the npm package {PACKAGE}, {folder} has "
                f"no {name}; `npm install {PACKAGE}@{VERSION}` makes one in node_modules/{PACKAGE}"
            ) from error

    return _read(read)


def _from_npm(npm: str) -> WebRuntime:
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", f"--pack-destination={scratch}"]
        command += ["--prefer-offline", "--ignore-scripts", "--loglevel=error"]
        try:
            done = subprocess.run(
                command, cwd=scratch, capture_output=True, text=True, timeout=_NPM_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise _npm_failure(f"no answer in {_NPM_SECONDS} s") from error
        if done.returncode:
            raise _npm_failure(" ".join(done.stderr.split())[:300] or f"exit {done.returncode}")
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as package:
            return _read(lambda name: _member(package, f"package/{name}"))


def _npm_failure(reason: str) -> TrainingFailure:
    return TrainingFailure(
        f"--formats=web: npm cannot fetch {PACKAGE} {VERSION}: {reason}; check the network, "
        f"or {_OWN_COPY}"
    )


def _member(package: tarfile.TarFile, name: str) -> bytes:
    try:
        file = package.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise _npm_failure(f"the package has no {name}")
    return file.read()


def _read(read: Callable[[str], bytes]) -> WebRuntime:
    try:
        version = str(json.loads(read("package.json"))["version"])
    except UsageError:  # there is none
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{PACKAGE}: package.json is damaged: {error}") from error
    files = {target: read(source) for source, target in FILES.items()}
    return WebRuntime(version, files | _licence())


def _licence() -> dict[str, bytes]:
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.submodule_search_locations  # load_runtime has seen it
    home = Path(spec.submodule_search_locations[0])
    return {name: (home / name).read_bytes() for name in _LICENCE_FILES}
