"""Files that are written whole, or where they lead to."""

import os
import threading

import pytest

from effnetv2_tf.files import write_text


def test_a_link_stays_one(tmp_path):
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_to(tmp_path):
    """So is /dev/stdout, which a file would replace."""
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "text")
    reader.join(10)
    assert read == ["text"]
    assert not pipe.is_file()


def test_nothing_is_left_of_a_write_that_failed(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800", errors="strict")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
