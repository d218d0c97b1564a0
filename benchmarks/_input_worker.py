"""Worker: input pipelines in tf.data, this package's and those with Keras's RandAugment layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _input_rate import images_per_second
from _worker import serve

from effnetv2_tf import programs

_state: dict[str, Any] = {}
_POLICIES = {"ours": "randaugment", "crop and flip": "none", "AutoAugment v0": "autoaugment"}


def open_images(kind: str, folder: str, image_size: int, magnitude: int, batch_size: int) -> None:
    """Makes a pipeline over the folder's JPEG files.

    Args:
      kind: `"ours"` (crop, flip, RandAugment), `"crop and flip"`, `"AutoAugment v0"`,
        `"mixup and CutMix"` (on top of ours), `"keras, each image"`, `"keras, each batch"`, or
        `"crop and flip, fast DCT scaling"`.
      folder: has one folder for each class.
      image_size: side in pixels.
      magnitude: of RandAugment.
      batch_size: images in a batch.
    """
    programs.import_tensorflow()
    if kind.startswith("keras"):
        dataset = _with_keras(
            folder, image_size, batch_size, each=kind.removeprefix("keras, each ")
        )
    elif kind == "crop and flip, fast DCT scaling":
        decoded = _files(folder).map(_crop_and_flip(image_size, fast=True), _autotune())
        dataset = decoded.batch(batch_size, drop_remainder=True).prefetch(_autotune())
    else:
        dataset = _ours(kind, folder, image_size, magnitude, batch_size)
    _state["dataset"] = dataset


def read_images(seconds: float, warm_up: float) -> float:
    """Images per second of whole batches, after some to warm up."""
    return images_per_second(_images(_state["dataset"]), seconds, warm_up)


def _images(dataset: Any) -> Iterator[Any]:
    for batch in dataset:
        yield batch[0] if isinstance(batch, tuple) else batch


def _ours(kind: str, folder: str, image_size: int, magnitude: int, batch_size: int) -> Any:
    """As the training program makes it: files read, labels, float32 images."""
    from effnetv2_tf.data.pipeline import Augmentation, TrainingPipeline
    from effnetv2_tf.data.sources.image_folder import ImageFolderSource
    from effnetv2_tf.training.schedule import Regularization, StageSchedule

    mixing = kind == "mixup and CutMix"
    regularization = Regularization(
        randaugment_magnitude=magnitude,
        mixup_alpha=0.2 if mixing else 0.0,
        cutmix_alpha=1.0 if mixing else 0.0,
    )
    source = ImageFolderSource(folder)
    schedule = StageSchedule.progressive(
        epochs=1,
        num_stages=1,
        num_examples=source.info.num_examples,
        batch_size=batch_size,
        image_size=(image_size, image_size),
        start=regularization,
        end=regularization,
    )
    augmentation = Augmentation(policy=_POLICIES.get(kind, "randaugment"))
    return TrainingPipeline(source, augmentation)(schedule.stages[0])


def _with_keras(folder: str, image_size: int, batch_size: int, each: str) -> Any:
    """Keras's layer in `Dataset.map`, after this package's decoding, crop and flip."""
    import keras
    import tensorflow as tf

    layer = keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.5)
    dataset = _files(folder).map(_crop_and_flip(image_size, fast=False), _autotune())
    dataset = dataset.map(lambda image: tf.cast(image, tf.float32), _autotune())
    if each == "image":
        dataset = dataset.map(layer, _autotune())
    dataset = dataset.batch(batch_size, drop_remainder=True)
    if each == "batch":
        dataset = dataset.map(layer, _autotune())
    return dataset.prefetch(_autotune())


def _files(folder: str) -> Any:
    """(number, encoded file) without end."""
    import tensorflow as tf

    paths = sorted(map(str, Path(folder).glob("*/*.jpg")))
    files = tf.data.Dataset.from_tensor_slices(paths).repeat()
    return files.map(tf.io.read_file, _autotune()).enumerate()


def _crop_and_flip(image_size: int, fast: bool) -> Callable[[Any, Any], Any]:
    import tensorflow as tf

    from effnetv2_tf.data.augment import decode_and_random_crop, random_flip

    def load(index: Any, encoded: Any) -> Any:
        seed = tf.stack([index, 1])
        image = decode_and_random_crop(encoded, image_size, 3, seed, fast_dct_scaling=fast)
        return tf.ensure_shape(random_flip(image, seed), (image_size, image_size, 3))

    return load


def _autotune() -> int:
    import tensorflow as tf

    return tf.data.AUTOTUNE


if __name__ == "__main__":
    programs.prepare_environment()
    serve({"open_images": open_images, "read_images": read_images})
