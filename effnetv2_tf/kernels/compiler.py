"""Makes a library of this room's C++ source, for the TensorFlow and the processor that are here."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from effnetv2_tf.errors import TrainingFailure, UsageError

SOURCE = Path(__file__).with_name("kernels.cc")  # which includes the headers beside it
# Variables of the environment.
CACHE_VARIABLE = "EFFNETV2_TF_CACHE"  # folder of the library
SWITCH = "EFFNETV2_TF_KERNELS"  # 0 leaves a library alone
_FLAGS = (
    "-shared",
    "-fPIC",
    "-O3",
    "-march=native",
    "-funroll-loops",
    # Without these, loops with `nearbyint`, `min` and `max` are not vectors'. NaNs stay NaNs.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-w",  # TensorFlow's headers' own
)
_COMPILERS = ("c++", "g++", "clang++")


def library_path() -> Path:
    """Where the library is or belongs: in the user's cache, under a name of all that it is of.

    The folder is `$EFFNETV2_TF_CACHE`, or `effnetv2_tf` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    folder = os.environ.get(CACHE_VARIABLE) or os.path.join(caches, "effnetv2_tf")
    made_of = "\n".join([*_tensorflow_flags(), *_FLAGS, _processor(), _tensorflow_library()])
    sources = [SOURCE, *sorted(SOURCE.parent.glob("*.h"))]
    text = b"".join(path.read_bytes() for path in sources)
    name = hashlib.sha256(text + made_of.encode()).hexdigest()[:16]
    return Path(folder).expanduser() / f"kernels-{name}.so"


def compile_library() -> Path:
    """Compiles the library, unless it is there; returns its path. Takes about 20 seconds.

    Raises:
      UsageError: if there is no compiler, or the folder cannot be written to.
      TrainingFailure: if the compiler fails.
    """
    path = library_path()
    if path.is_file():
        return path
    compiler = find_compiler()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            _run([compiler, str(SOURCE), *_FLAGS, "-o", str(made), *_tensorflow_flags()])
            os.replace(made, path)  # other processes see a whole library or none
    except OSError as error:
        raise UsageError(
            f"{CACHE_VARIABLE}: expected a folder that can be written to, received "
            f"{str(path.parent)!r}: {error.strerror or error}"
        ) from error
    return path


def find_compiler() -> str:
    """The C++ compiler: `$CXX`, or the first of the usual names that is there.

    Raises:
      UsageError: if there is none.
    """
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else _COMPILERS:
        found = shutil.which(name)
        if found:
            return found
    raise UsageError(
        f"expected a C++ compiler ({', '.join(_COMPILERS)}, or what CXX names), received "
        f"{f'CXX={wanted!r}' if wanted else 'none'}; Debian's package is g++"
    )


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, errors="replace"
        )
    except OSError as error:  # no fault of the cache
        raise TrainingFailure(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise TrainingFailure(f"{command[0]}: {lines[0].strip()[:300]}")


def _tensorflow_flags() -> list[str]:
    import tensorflow as tf

    return [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]


def _tensorflow_library() -> str:
    """What tells two TensorFlows of one environment apart: size and date of its library."""
    import tensorflow as tf

    folder = Path(tf.sysconfig.get_lib())
    found = sorted(folder.glob("libtensorflow_framework*"))
    return " ".join(f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in found)


def _processor() -> str:
    """The instructions that `-march=native` may use: a cache can be several machines'."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return " ".join(sorted(set(flags.partition(":")[2].split()))) or platform.processor()
