"""Image files of every kind, and a small classifier."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf


def photograph(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth random colours, uint8 (height, width, channels)."""
    noise = np.random.default_rng(seed).uniform(0, 255, (6, 8, channels)).astype(np.float32)
    smooth = tf.image.resize(noise, (height, width), "bicubic").numpy()
    return np.rint(smooth).clip(0, 255).astype(np.uint8)


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """Four images in two class folders, besides a text file and a hidden file."""
    folder = tmp_path / "images"
    (folder / "cats").mkdir(parents=True)
    (folder / "dogs").mkdir()
    jpeg, png = tf.io.encode_jpeg, tf.io.encode_png
    for name, encoded in {
        "cats/wide.jpg": jpeg(photograph(0, 60, 90)),
        "cats/tall.PNG": png(photograph(1, 80, 50)),
        "dogs/grey.jpeg": jpeg(photograph(2, 40, 41, 1)),
        "dogs/alpha.png": png(np.dstack([photograph(3, 33, 70), np.full((33, 70), 9, np.uint8)])),
    }.items():
        (folder / name).write_bytes(encoded.numpy())
    (folder / "notes.txt").write_text("not an image")
    (folder / "cats" / ".hidden.jpg").write_bytes(b"hidden")
    return folder


@pytest.fixture
def classifier() -> keras.Model:
    """Four classes by the mean colour, of images of any size; logits far from each other."""
    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    kernel = np.array([[3, 0, 0, 1], [0, 3, 0, 1], [0, 0, 3, 1]], np.float32) / 60
    dense = keras.layers.Dense(4, activation="softmax", name="classes")
    model = keras.Model(inputs, dense(x), name="colours")
    dense.set_weights([kernel, np.zeros(4, np.float32)])
    return model
