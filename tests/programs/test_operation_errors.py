"""An error of TensorFlow's in any program: one line that says what, and exit code 1."""

from __future__ import annotations

import re
import subprocess
import sys

import tensorflow as tf

RECIPE = """
name: broken
model: {name: efficientnetv2-b0}
data:
  source: tfrecord
  eval_split: train
  options: {files: FOLDER, num_classes: 2}
training: {epochs: 1, batch_size: 4}
progressive: {stages: 1, image_size: [16, 16]}
"""


def _write_records_that_no_decoder_takes(folder) -> None:
    """Both ends are those of a JPEG: only decoding shows that it is none."""
    with tf.io.TFRecordWriter(str(folder / "train-0")) as writer:
        for number in range(8):
            feature = (example := tf.train.Example()).features.feature
            image = b"\xff\xd8\xff\xe0" + bytes(range(1, 200)) + b"\xff\xd9"
            feature["image/encoded"].bytes_list.value.append(image)
            feature["image/class/label"].int64_list.value.append(1 + number % 2)
            writer.write(example.SerializeToString())


def test_an_image_that_cannot_be_decoded(tmp_path):
    _write_records_that_no_decoder_takes(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("FOLDER", str(tmp_path)))
    command = [
        sys.executable, "-m", "effnetv2_tf.augment_sheet", f"--config={recipe}",
        f"--output={tmp_path / 'sheet.png'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = re.findall("^error: .*", done.stderr, re.MULTILINE)  # beside libjpeg's own
    assert re.match("error: TensorFlow: .*Invalid JPEG data", line)
    assert "; --verbosity=1 shows the whole error" in line  # libjpeg may write behind it
    assert "Traceback" not in done.stderr
    verbose = subprocess.run(
        [*command, "--verbosity=1"], capture_output=True, text=True, check=False
    )
    assert verbose.returncode == 1
    assert "Traceback" in verbose.stderr
