"""Measures the augmentations in tf.data, in images per second.

    python benchmarks/input_pipeline.py --image_size=224 --seconds=6 --output=result.json

The images are 64 JPEGs of 500x375 pixels, cut from scikit-learn's two photographs and decoded
again and again. Every variant decodes a random window, resizes it to --image_size and flips it;
the other steps come on top. Mixup and CutMix work on batches of 64 float images.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image
from sklearn.datasets import load_sample_images

from effnetv2_tf.data.augment import (
    AutoAugment,
    RandAugment,
    decode_and_random_crop,
    mixup_and_cutmix,
    random_flip,
)

_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", 1)
_SECONDS = flags.DEFINE_float("seconds", 6.0, "Time measured per variant.", 0.1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the result.")

_FILES = 64
_BATCH = 64
_CLASSES = 1000
_HEIGHT, _WIDTH = 375, 500

ImageFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def make_jpegs() -> list[bytes]:
    """Returns the files: random windows of the photographs, quality 90."""
    photographs = load_sample_images().images
    generator = np.random.default_rng(0)
    files = []
    for number in range(_FILES):
        photograph = photographs[number % len(photographs)]
        y = generator.integers(photograph.shape[0] - _HEIGHT + 1)
        x = generator.integers(photograph.shape[1] - _WIDTH + 1)
        buffer = io.BytesIO()
        window = photograph[y : y + _HEIGHT, x : x + _WIDTH]
        Image.fromarray(window).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def make_dataset(
    files: list[bytes],
    augment: ImageFunction | None = None,
    fast_dct_scaling: bool = False,
    mix: bool = False,
) -> tf.data.Dataset:
    """Returns an endless dataset of batches."""
    size = _IMAGE_SIZE.value

    def load(number: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([number, 1])
        image = decode_and_random_crop(encoded, size, 3, seed, fast_dct_scaling=fast_dct_scaling)
        image = random_flip(image, seed)
        return image if augment is None else augment(image, seed)

    def mix_batch(number: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        labels = tf.one_hot((tf.range(_BATCH) * 7) % _CLASSES, _CLASSES)
        seed = tf.stack([number, 2])
        return mixup_and_cutmix(tf.cast(images, tf.float32), labels, 0.2, 1.0, seed)

    dataset = tf.data.Dataset.from_tensor_slices(files).cache().repeat().enumerate()
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(_BATCH, drop_remainder=True)
    if mix:
        dataset = dataset.enumerate().map(mix_batch, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(2)


def measure(dataset: tf.data.Dataset) -> dict[str, float]:
    """Times whole batches for --seconds, after four batches to warm up.

    Processor time per image is given too: it suffers less from other load on the machine.
    """
    batches = iter(dataset)
    for _ in range(4):
        next(batches)
    count = 0
    start, processor_start = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < _SECONDS.value:
        next(batches)
        count += _BATCH
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processor_start
    return {
        "images_per_second": round(count / seconds, 1),
        "processor_ms_per_image": round(processor_seconds / count * 1e3, 3),
    }


def main(_: list[str]) -> None:
    files = make_jpegs()
    variants = {
        "decode, crop, flip": make_dataset(files),
        "the same, fast DCT scaling": make_dataset(files, fast_dct_scaling=True),
        "+ RandAugment(2, 15)": make_dataset(files, RandAugment(num_layers=2, magnitude=15)),
        "+ AutoAugment v0": make_dataset(files, AutoAugment("v0")),
        "+ mixup and CutMix": make_dataset(files, mix=True),
        "+ RandAugment(2, 15), mixup and CutMix": make_dataset(
            files, RandAugment(num_layers=2, magnitude=15), mix=True
        ),
    }
    result = {}
    for name, dataset in variants.items():
        result[name] = measure(dataset)
        speed, cost = result[name].values()
        print(f"{name:42s}{speed:8.1f} images/s  {cost:6.2f} processor ms/image", flush=True)
    if _OUTPUT.value:
        report = {
            "image_size": _IMAGE_SIZE.value,
            "seconds": _SECONDS.value,
            "cpus": os.cpu_count(),
            "tensorflow": tf.__version__,
            "variants": result,
        }
        Path(_OUTPUT.value).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
