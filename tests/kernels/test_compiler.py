"""Where the library lies, what it is named after, and what goes wrong in making it."""

import shutil
import subprocess
import sys

import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.kernels import compiler


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of this test's own, with nothing in it."""
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake_compiler(monkeypatch, tmp_path):
    """A compiler that does what it is told."""

    def make(script):
        path = tmp_path / "compile"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))

    return make


WRITES = 'while [ "$1" != -o ]; do shift; done; echo made > "$2"'


def test_a_library_is_made_once(fake_compiler, cache):
    fake_compiler(WRITES)
    path = compiler.compile_library()
    assert path == compiler.library_path()
    assert path.read_text() == "made\n"
    fake_compiler("exit 1")
    assert compiler.compile_library() == path
    assert list(cache.iterdir()) == [path]


def test_where_caches_usually_are(monkeypatch, tmp_path):
    monkeypatch.delenv(compiler.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiler.library_path().parent == tmp_path / "effnetv2_tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiler.library_path().parent == tmp_path / ".cache" / "effnetv2_tf"


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("_processor", lambda: "another"),
        ("_tensorflow_flags", lambda: ["-Ianother"]),
        ("_tensorflow_library", lambda: "another"),
        ("_FLAGS", ("-O0",)),
    ],
)
def test_another_is_another_library(monkeypatch, part, other):
    before = compiler.library_path()
    monkeypatch.setattr(compiler, part, other)
    assert compiler.library_path() != before
    assert compiler.library_path().parent == before.parent


@pytest.mark.parametrize("name", ["kernels.cc", "batch_norm.h"])
def test_another_source_is_another_library(monkeypatch, tmp_path, name):
    before = compiler.library_path()
    copy = shutil.copytree(compiler.SOURCE.parent, tmp_path / "kernels")
    monkeypatch.setattr(compiler, "SOURCE", copy / compiler.SOURCE.name)
    assert compiler.library_path() == before
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    assert compiler.library_path() != before


def test_no_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError) as caught:
        compiler.compile_library()
    assert str(caught.value) == (
        "expected a C++ compiler (c++, g++, clang++, or what CXX names), received none; Debian's "
        "package is g++"
    )


def test_no_such_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match="received CXX='no-such-compiler'"):
        compiler.find_compiler()


def test_a_compiler_that_fails_leaves_nothing(fake_compiler, cache):
    fake_compiler("echo 'x.cc:1: note: so'; echo 'x.cc:2: error: no such thing' >&2; exit 1")
    with pytest.raises(TrainingFailure, match=r"x\.cc:2: error: no such thing$"):
        compiler.compile_library()
    assert list(cache.iterdir()) == []


def test_a_compiler_that_is_none(fake_compiler, tmp_path):
    fake_compiler("")
    (tmp_path / "compile").write_bytes(b"\x7fELF, but no program")
    with pytest.raises(TrainingFailure, match="compile: Exec format error"):
        compiler.compile_library()


def test_a_cache_that_cannot_be_written_to(monkeypatch, tmp_path, fake_compiler):
    fake_compiler(WRITES)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UsageError, match="EFFNETV2_TF_CACHE: expected a folder that can be"):
        compiler.compile_library()


def run_program(*arguments):
    command = [sys.executable, "-m", "effnetv2_tf.kernels", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_without_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = run_program()
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected a C++ compiler")
    done = run_program("--if_possible")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Not compiled, training is slower: expected a C++ compiler")


@pytest.mark.skipif(keras_compat.SAVES_TRAINING_STEPS, reason="Keras 2 has no use for one")
def test_a_library_that_does_not_load_is_left_alone(fake_compiler):
    fake_compiler(WRITES)
    done = run_program()
    assert done.returncode == 0
    assert done.stdout.endswith(
        "kernels-" + compiler.library_path().stem[8:] + ".so: not in use here\n"
    )
    assert "does not load, TensorFlow's own operations are used" in done.stderr
