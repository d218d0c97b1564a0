"""Input pipelines in images per second: JPEG 500x375 to 224 px with crop, flip, RandAugment.

    python benchmarks/input_pipeline.py --torch_python=PATH --output=result.json
    python benchmarks/input_pipeline.py --variants           # this package's other augmentations

The files are windows of scikit-learn's two photographs. Each contestant runs in a process of
its own, reads files, and all take turns: this package's training pipeline with
RandAugment(2, 15); torchvision's v2 transforms on Pillow images (faster here than on tensors)
in a DataLoader with two worker processes; Keras's RandAugment layer in tf.data, for each image
and for each batch, after this package's decoding and cropping. Magnitude 15 is half of
torchvision's scale of 30, so Keras's layer gets factor 0.5.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from _measure import Rounds, Target, Workers, define_flags, finish, run, show, torch_versions
from absl import flags

define_flags(rounds=5, torch=True)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a batch.", 1)
_SECONDS = flags.DEFINE_float("seconds", 4.0, "Time of one measurement.", 0.1)
_VARIANTS = flags.DEFINE_bool("variants", False, "Measure this package's other pipelines, too.")

_FILES = 256
_HEIGHT, _WIDTH = 375, 500
_MAGNITUDE = 15
_WARM_UP_SECONDS = 1.0
_TORCHVISION = "torchvision v2, 2 processes"
_PEERS = (_TORCHVISION, "keras, each image", "keras, each batch")
_OTHERS = (
    "crop and flip",
    "crop and flip, fast DCT scaling",
    "AutoAugment v0",
    "mixup and CutMix",
)


def make_jpegs(folder: Path) -> None:
    """Writes random windows of the photographs, quality 90, each photograph a class."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    photographs = load_sample_images().images
    for number in range(_FILES):
        label = number % len(photographs)
        height, width, _ = photographs[label].shape
        y = generator.integers(height - _HEIGHT + 1)
        x = generator.integers(width - _WIDTH + 1)
        window = photographs[label][y : y + _HEIGHT, x : x + _WIDTH]
        path = folder / str(label) / f"{number:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(window).save(path, "JPEG", quality=90)


def prepare(workers: Workers, name: str, folder: str) -> Callable[[], float]:
    """Opens a contestant's pipeline; what it does each round gives images per second."""
    about = {
        "folder": folder,
        "image_size": _IMAGE_SIZE.value,
        "magnitude": _MAGNITUDE,
        "batch_size": _BATCH_SIZE.value,
    }
    if name == _TORCHVISION:
        worker = workers.start_torch()
        worker.ask("open_images", **about)
    else:
        worker = workers.start("_input_worker.py")
        worker.ask("open_images", kind=name, **about)
    return lambda: worker.ask("read_images", seconds=_SECONDS.value, warm_up=_WARM_UP_SECONDS)


def main() -> None:
    names = ("ours", *_PEERS, *(_OTHERS if _VARIANTS.value else ()))
    rounds = Rounds()
    with tempfile.TemporaryDirectory() as folder, Workers() as workers:
        make_jpegs(Path(folder))
        for name in names:
            rounds.enter(name, lambda name=name: prepare(workers, name, folder))
        rounds.run(flags.FLAGS.rounds)
    what = (
        f"input pipeline, JPEG {_WIDTH}x{_HEIGHT} to {_IMAGE_SIZE.value} px, crop, flip, "
        f"RandAugment(2, {_MAGNITUDE})"
    )
    target = Target("at least", 1.5)
    comparisons = [
        rounds.compare("ours", peer, what=what, unit="images/s", target=target) for peer in _PEERS
    ]
    others = {name: rounds.values.get(name, []) for name in names if name in _OTHERS}
    for name, values in others.items():
        print(f"this package, {name}: {show(values)} images/s")
    finish(comparisons, versions=torch_versions(), variants=others)


if __name__ == "__main__":
    run(main)
