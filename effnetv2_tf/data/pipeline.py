"""From a source and a stage to batches: what the network sees in training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import tensorflow as tf

from effnetv2_tf.data.augment import (
    AutoAugment,
    Cutout,
    RandAugment,
    center_crop_and_resize,
    decode_and_random_crop,
    mixup_and_cutmix,
    pad_and_random_crop,
    random_crop_and_resize,
    random_flip,
)
from effnetv2_tf.data.decoding import decode_image, replace_invalid, to_channels
from effnetv2_tf.data.sources import Source

Example = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images besides the scheduled magnitudes.

    Attributes:
      crop: `"random_resized"` (a random part of the image, stretched to the square),
        `"pad"` (resized, padded and cropped back: for small images) or `"none"`.
      crop_area: smallest and largest part of the area, for random resized crops.
      crop_aspect_ratio: narrowest and widest, likewise.
      crop_padding: for `"pad"`, pixels on each side of a 32-pixel image; scaled with it.
      flip: mirrors half of the images.
      policy: `"randaugment"` (with the stage's magnitude), `"autoaugment"`, `"cutout"` or
        `"none"`.
      randaugment_layers: operations on one image.
      interpolation: of resizing.
    """

    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 4
    flip: bool = True
    policy: Literal["randaugment", "autoaugment", "cutout", "none"] = "randaugment"
    randaugment_layers: int = 2
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


@dataclass(frozen=True)
class TrainingPipeline:
    """Callable `pipeline(stage, start_step) -> Dataset` for `ProgressiveLearning`.

    Batches are `(images, labels)` or `(images, labels, weights)`: float32 pixels in
    [0, 255] of shape (batch, size, size, channels), one-hot (multi-hot) float32 labels
    (batch, classes), float32 weights (batch,). Order and augmentation are functions of the
    seed and of an example's number in the run alone; the dataset never ends.

    Attributes:
      source: the training split.
      augmentation: see `Augmentation`.
      seed: of order and augmentation.
      class_weights: weight of each class in the loss, or None.
      channels: of the images handed out; None for the source's.
    """

    source: Source
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    class_weights: Mapping[int, float] | None = None
    channels: int | None = None

    def __call__(self, stage: Any, start_step: int = 0) -> tf.data.Dataset:
        epoch_in_stage, step = divmod(start_step - stage.first_step, stage.steps_per_epoch)
        first_epoch = stage.first_epoch + epoch_in_stage
        batches = self._batches_of_epochs(stage, first_epoch, step * stage.batch_size)
        batches = batches.map(self._finish(stage), num_parallel_calls=tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.deterministic = True
        return batches.with_options(options).prefetch(tf.data.AUTOTUNE)

    def _batches_of_epochs(self, stage: Any, first_epoch: int, start: int) -> tf.data.Dataset:
        """Batches of decoded images from example `start` of `first_epoch` on, without end."""
        examples_per_epoch = stage.steps_per_epoch * stage.batch_size
        info = self.source.info
        shard, shards = self.source.shard  # workers must not augment alike

        def numbered_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            skipped = tf.where(epoch == first_epoch, tf.constant(start, tf.int64), 0)
            examples = self.source.epoch(epoch, seed=self.seed, start=skipped, shuffle=True)
            examples = examples.take(examples_per_epoch - skipped)
            first_number = epoch * info.num_examples + skipped * shards + shard
            numbers = tf.data.Dataset.counter(first_number, shards, dtype=tf.int64)
            return tf.data.Dataset.zip((numbers, examples))

        epochs = tf.data.Dataset.counter(first_epoch, dtype=tf.int64)
        examples = epochs.flat_map(numbered_epoch)
        decoded = examples.map(self._decode(stage), num_parallel_calls=tf.data.AUTOTUNE)
        return decoded.batch(stage.batch_size, drop_remainder=True)

    def _decode(self, stage: Any) -> Callable:
        info, augmentation = self.source.info, self.augmentation
        size, channels = stage.image_size, self.channels or info.channels
        policy = _policy(augmentation, stage.regularization.randaugment_magnitude)

        def decode(number: tf.Tensor, example: Example) -> Any:
            crop_seed, flip_seed, policy_seed, batch_seed = tf.unstack(
                tf.random.experimental.stateless_split([self.seed, number], 4)
            )
            image, valid = example["image"], tf.constant(True)
            if info.encoded:
                image, valid = _decode_and_crop(
                    example, size, info.channels, crop_seed, augmentation, self.source
                )
            else:
                image = _crop(image, size, crop_seed, augmentation)
            if augmentation.flip:
                image = random_flip(image, flip_seed)
            if policy is not None:
                image = policy(image, policy_seed)
            image = tf.ensure_shape(to_channels(image, channels), (size, size, channels))
            return image, valid, encode_label(example["label"], info), batch_seed

        return decode

    def _finish(self, stage: Any) -> Callable:
        regularization = stage.regularization
        weights = _class_weight_vector(self.class_weights, self.source.info.num_classes)

        def finish(images: tf.Tensor, valid: tf.Tensor, labels: tf.Tensor, seeds: Any) -> Any:
            if self.source.info.encoded:
                images, labels = replace_invalid(images, labels, valid)
            images, labels = mixup_and_cutmix(
                tf.cast(images, tf.float32),
                labels,
                regularization.mixup_alpha or 0.0,
                regularization.cutmix_alpha or 0.0,
                seeds[0],
            )
            if weights is None:
                return images, labels
            return images, labels, tf.linalg.matvec(labels, weights)

        return finish


def evaluation_dataset(
    source: Source,
    image_size: int,
    batch_size: int,
    *,
    crop: Literal["center", "none"] = "center",
    crop_padding: int = 32,
    interpolation: Literal["bilinear", "bicubic"] = "bicubic",
    channels: int | None = None,
) -> tf.data.Dataset:
    """One pass over a source in order, without augmentation.

    Args:
      source: the evaluation split.
      image_size: side in pixels.
      batch_size: of all batches but the last.
      crop: `"center"`: the reference's centre crop; `"none"`: the whole image, stretched to
        the square.
      crop_padding: see `Preprocessing`.
      interpolation: of resizing.
      channels: of the images handed out; None for the source's.

    Returns:
      Batches (images, labels) as `TrainingPipeline`'s, the last one shorter. Undecodable
      images are left out and counted in `source.bad_records`.
    """
    info = source.info
    channels = channels or info.channels

    def decode(example: Example) -> Any:
        image, valid = example["image"], tf.constant(True)
        if info.encoded:
            image, valid = decode_image(image, example["name"], info.channels, source.bad_records)
        image = center_crop_and_resize(
            image,
            image_size,
            crop_padding=crop_padding,
            interpolation=interpolation,
            resize_only=crop == "none",
        )
        image = tf.ensure_shape(to_channels(image, channels), (image_size, image_size, channels))
        return image, encode_label(example["label"], info), valid

    examples = source.epoch(0, seed=0, start=0, shuffle=False)
    decoded = examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    if info.encoded:
        decoded = decoded.filter(lambda image, label, valid: valid)
    batches = decoded.batch(batch_size).map(
        lambda images, labels, valid: (tf.cast(images, tf.float32), labels)
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def encode_label(label: tf.Tensor, info: Any) -> tf.Tensor:
    """Class id (or vector of class ids) to a one-hot (multi-hot) vector of float32."""
    one_hot = tf.one_hot(label, info.num_classes, dtype=tf.float32)
    if not info.multi_label:
        return one_hot
    # An image may have no label at all: the maximum over nothing is no zero.
    return tf.maximum(tf.reduce_max(one_hot, axis=0), 0.0)


def _policy(augmentation: Augmentation, magnitude: float | None) -> Callable | None:
    if augmentation.policy == "autoaugment":
        return AutoAugment()
    if augmentation.policy == "cutout":
        return Cutout()
    if augmentation.policy == "randaugment" and magnitude:
        return RandAugment(augmentation.randaugment_layers, magnitude)
    return None


def _decode_and_crop(
    example: Example,
    size: int,
    channels: int,
    seed: tf.Tensor,
    augmentation: Augmentation,
    source: Source,
) -> tuple[tf.Tensor, tf.Tensor]:
    if augmentation.crop != "random_resized":
        image, valid = decode_image(example["image"], example["name"], channels, source.bad_records)
        return _crop(image, size, seed, augmentation), valid
    return decode_image(
        example["image"],
        example["name"],
        channels,
        source.bad_records,
        decode=lambda encoded: decode_and_random_crop(
            encoded,
            size,
            channels,
            seed,
            augmentation.crop_area,
            augmentation.crop_aspect_ratio,
            augmentation.interpolation,
        ),
    )


def _crop(image: tf.Tensor, size: int, seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    if augmentation.crop == "random_resized":
        return random_crop_and_resize(
            image,
            size,
            seed,
            augmentation.crop_area,
            augmentation.crop_aspect_ratio,
            interpolation=augmentation.interpolation,
        )
    if augmentation.crop == "pad":
        padding = max(1, round(augmentation.crop_padding * size / 32))
        return pad_and_random_crop(image, size, padding, seed)
    return center_crop_and_resize(
        image, size, interpolation=augmentation.interpolation, resize_only=True
    )


def _class_weight_vector(weights: Mapping[int, float] | None, classes: int) -> Any:
    if weights is None:
        return None
    return tf.constant([float(weights.get(i, 1.0)) for i in range(classes)])
