"""From a source and a stage to batches: what the network sees in training and evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import tensorflow as tf

from effnetv2_tf.data import service
from effnetv2_tf.data.augment import (
    AutoAugment,
    Cutout,
    RandAugment,
    center_crop_and_resize,
    decode_and_random_crop,
    mixup_and_cutmix,
    mixup_then_cutmix,
    pad_and_random_crop,
    random_crop_and_resize,
    random_flip,
)
from effnetv2_tf.data.augmentation import EVALUATION, Augmentation
from effnetv2_tf.data.branches import branches_as_calls
from effnetv2_tf.data.decoding import decode_image, replace_invalid, to_channels
from effnetv2_tf.data.small_images import SmallImages
from effnetv2_tf.data.sources import IndexedSource, Source

Example = dict[str, tf.Tensor]


@dataclass(frozen=True)
class TrainingPipeline:
    """Callable `pipeline(stage, start_step) -> Dataset` for `ProgressiveLearning`.

    Batches are `(images, labels)` or `(images, labels, weights)`: float32 pixels in
    [0, 255] of shape (batch, size, size, channels), one-hot (multi-hot) float32 labels
    (batch, classes), float32 weights (batch,). Order and augmentation are functions of the
    seed and of an example's number in the run alone; the dataset never ends.

    Given a `tf.distribute.InputContext`, batches are of a replica's size and come from the
    examples that are this machine's share of every step's batch: those of all machines
    together are the batches of one machine, but for the partners of mixup and cutmix, which
    are chosen within a batch.

    With a tf.data service the stage's batches are made there, whole ones or runs of them on
    each of its workers, and the dataset ends with the stage. See `service`.

    Attributes:
      source: the training split.
      augmentation: see `Augmentation`.
      evaluation: in its place in stages with the evaluation's preprocessing.
      seed: of order and augmentation.
      class_weights: weight of each class in the loss, or None. An image with several labels has
        the mean of their weights, one without any 1.
      share_labels: whether the labels of an image, of multi-label data, share a sum of 1, as
        softmax cross-entropy wants them; otherwise each is 1.
      channels: of the images handed out; None for the source's.
      service_address: `grpc://host:port` of a tf.data service's dispatcher, or None.
    """

    source: Source
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    class_weights: Mapping[int, float] | None = None
    channels: int | None = None
    service_address: str | None = None
    evaluation: Augmentation = EVALUATION
    share_labels: bool = False

    # None of these functions branches on a tensor in Python, and converting them takes seconds.
    @tf.autograph.experimental.do_not_convert
    def __call__(
        self,
        stage: Any,
        start_step: int = 0,
        input_context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        source, batch_size, per_step = self.source, stage.batch_size, stage.batch_size
        if input_context is not None:
            source = share_of(source, input_context)
            batch_size = input_context.get_per_replica_batch_size(stage.batch_size)
            per_step = stage.batch_size // input_context.num_input_pipelines
        runs = self._runs_of_steps(stage, start_step)
        examples = runs.flat_map(
            lambda step, steps: self._examples(stage, source, per_step, step, steps)
        )
        small = self._small_images(stage)
        if small is None:
            for_example, for_batch = self._decode(stage), self._finish(stage)
        else:
            for_example, for_batch = self._draw(small), self._crop_and_finish(stage, small)
        decoded = examples.map(branches_as_calls(for_example), tf.data.AUTOTUNE)
        batches = decoded.batch(batch_size, drop_remainder=True)
        batches = batches.map(branches_as_calls(for_batch), tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.deterministic = True
        batches = batches.with_options(options)
        if self.service_address is not None:
            batches = service.distribute(batches, self.service_address, source.bad_records)
        return batches.prefetch(tf.data.AUTOTUNE)

    def _runs_of_steps(self, stage: Any, start_step: int) -> tf.data.Dataset:
        """(first step, number of steps) of runs of steps, each within an epoch, from a step on.

        They are what a tf.data service deals out among its workers: single steps where the
        source can begin anywhere, else epochs.
        """
        remote = self.service_address is not None
        length = 1 if remote and isinstance(self.source, IndexedSource) else stage.steps_per_epoch
        first = (start_step - stage.first_step) // length
        if remote:
            steps_in_stage = stage.steps_per_epoch * stage.epochs
            runs = tf.data.Dataset.range(first, steps_in_stage // length)
        else:
            runs = tf.data.Dataset.counter(first, dtype=tf.int64)

        def steps_of(run: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            step = tf.maximum(stage.first_step + run * length, start_step)
            return step, stage.first_step + (run + 1) * length - step

        return runs.map(steps_of)

    def _examples(
        self, stage: Any, source: Source, per_step: int, step: tf.Tensor, steps: tf.Tensor
    ) -> tf.data.Dataset:
        """The examples of `steps` steps from `step` on, after their numbers in the run.

        What stands for an example in the source's order does so here: `_decode` fetches it.
        """
        epoch = stage.first_epoch + (step - stage.first_step) // stage.steps_per_epoch
        start = (step - stage.first_step) % stage.steps_per_epoch * per_step
        examples = source.order(epoch, seed=self.seed, start=start, shuffle=True)
        shard, shards = source.shard  # workers must not augment alike
        first_number = epoch * source.info.num_examples + start * shards + shard
        numbers = tf.data.Dataset.counter(first_number, shards, dtype=tf.int64)
        return tf.data.Dataset.zip((numbers, examples.take(steps * per_step)))

    def _decode(self, stage: Any) -> Callable:
        info, augmentation = self.source.info, self._augmentation_of(stage)
        size, channels = stage.image_size, self.channels or info.channels
        policy = self._policy(stage)

        def decode(number: tf.Tensor, entry: Any) -> Any:
            example = self.source.fetch(entry)
            crop_seed, flip_seed, policy_seed, batch_seed = self._seeds(number)
            image, valid = example["image"], tf.constant(True)
            if info.encoded:
                image, valid = self._decode_and_crop(example, size, crop_seed, augmentation)
            else:
                image = _crop(image, size, crop_seed, augmentation)
            if augmentation.flip:
                image = random_flip(image, flip_seed)
            if policy is not None:
                image = policy(image, policy_seed)
            image = tf.ensure_shape(to_channels(image, channels), (size, size, channels))
            label = encode_label(example["label"], info, self.share_labels)
            decoded = (image, valid, label, batch_seed)
            return (*decoded, example["name"]) if self._names_travel else decoded

        return decode

    def _draw(self, small_images: SmallImages) -> Callable:
        """What remains of `_decode` for each example where images are cropped in batches."""

        def draw(number: tf.Tensor, entry: tf.Tensor) -> Any:
            crop_seed, flip_seed, _, batch_seed = self._seeds(number)
            return entry, small_images.draw(crop_seed, flip_seed), batch_seed

        return draw

    def _crop_and_finish(self, stage: Any, small_images: SmallImages) -> Callable:
        """The rest of `_decode`, for a batch, and `_finish`."""
        info, finish = self.source.info, self._finish(stage)
        size, channels = stage.image_size, self.channels or info.channels

        def crop_and_finish(entries: tf.Tensor, draws: Any, seeds: tf.Tensor) -> Any:
            examples = self.source.fetch(entries)
            images = to_channels(small_images.crop(examples["image"], *draws), channels)
            images = tf.ensure_shape(images, (None, size, size, channels))
            valid = tf.ones_like(entries, tf.bool)
            return finish(images, valid, encode_label(examples["label"], info), seeds)

        return crop_and_finish

    def _small_images(self, stage: Any) -> SmallImages | None:
        """How images are cropped in batches, if they are."""
        if self._policy(stage) is not None:
            return None
        return SmallImages.of(self.source, self._augmentation_of(stage), stage.image_size)

    def _policy(self, stage: Any) -> Callable | None:
        return _policy(self._augmentation_of(stage), stage.regularization.randaugment_magnitude)

    def _seeds(self, number: tf.Tensor) -> list[tf.Tensor]:
        """For an example's crop, flip and policy, and its batch, if it is the first there."""
        return tf.unstack(tf.random.experimental.stateless_split([self.seed, number], 4))

    @property
    def _names_travel(self) -> bool:
        """Whether bad records are counted behind the tf.data service, from their names."""
        return self.service_address is not None and self.source.info.encoded

    def _augmentation_of(self, stage: Any) -> Augmentation:
        if stage.preprocessing == "evaluation":
            return self.evaluation
        low, high = self.augmentation.crop_area
        least, most = stage.regularization.crop_area_min, stage.regularization.crop_area_max
        area = (low if least is None else least, high if most is None else most)
        return replace(self.augmentation, crop_area=area)

    def _decode_and_crop(
        self, example: Example, size: int, seed: tf.Tensor, augmentation: Augmentation
    ) -> tuple[tf.Tensor, tf.Tensor]:
        channels = self.source.info.channels
        crop_first = augmentation.crop == "random_resized"

        def decode_cropped(encoded: tf.Tensor) -> tf.Tensor:
            return decode_and_random_crop(
                encoded,
                size,
                channels,
                seed,
                augmentation.crop_area,
                augmentation.crop_aspect_ratio,
                augmentation.interpolation,
            )

        decode = decode_cropped if crop_first else None
        decode_bytes = service.decode_uncounted if self._names_travel else decode_image
        image, valid = decode_bytes(
            example["image"], example["name"], channels, self.source.bad_records, decode
        )
        return (image if crop_first else _crop(image, size, seed, augmentation)), valid

    def _finish(self, stage: Any) -> Callable:
        mix = _mixing(self._augmentation_of(stage), stage.regularization)
        weights = _class_weight_vector(self.class_weights, self.source.info.num_classes)

        def finish(
            images: tf.Tensor, valid: tf.Tensor, labels: tf.Tensor, seeds: Any, *names: tf.Tensor
        ) -> Any:
            if self.source.info.encoded:
                images, labels = replace_invalid(images, labels, valid)
            images, labels = mix(tf.cast(images, tf.float32), labels, seeds[0])
            batch: tuple[tf.Tensor, ...] = (images, labels)
            if weights is not None:
                batch = (*batch, self._example_weights(labels, weights))
            return (tf.boolean_mask(names[0], ~valid), batch) if names else batch

        return finish

    def _example_weights(self, labels: tf.Tensor, class_weights: tf.Tensor) -> tf.Tensor:
        """Weights (batch,) of examples with labels (batch, classes), mixed or not."""
        weights = tf.linalg.matvec(labels, class_weights)
        if not self.source.info.multi_label:
            return weights
        total = tf.reduce_sum(labels, axis=-1)
        return tf.where(total > 0, tf.math.divide_no_nan(weights, total), 1.0)


def share_of(source: Source, input_context: tf.distribute.InputContext) -> Source:
    """The same source, of whose examples only one machine's share is read.

    The machines take the examples of the (shuffled) order in turn.
    """
    index, count = source.shard
    share = copy.copy(source)
    share.shard = (
        index + count * input_context.input_pipeline_id,
        count * input_context.num_input_pipelines,
    )
    return share


@tf.autograph.experimental.do_not_convert
def evaluation_dataset(
    source: Source,
    image_size: int,
    batch_size: int,
    *,
    crop: Literal["center", "none"] = "center",
    crop_padding: int = 32,
    interpolation: Literal["bilinear", "bicubic"] = "bicubic",
    channels: int | None = None,
    share_labels: bool = False,
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
      share_labels: see `TrainingPipeline`.

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
        return image, encode_label(example["label"], info, share_labels), valid

    examples = source.epoch(0, seed=0, start=0, shuffle=False)
    decoded = examples.map(branches_as_calls(decode), tf.data.AUTOTUNE)
    if info.encoded:
        decoded = decoded.filter(lambda image, label, valid: valid)
    batches = decoded.batch(batch_size).map(
        lambda images, labels, valid: (tf.cast(images, tf.float32), labels)
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def encode_label(label: tf.Tensor, info: Any, share: bool = False) -> tf.Tensor:
    """Class id (or vector of class ids) to a one-hot (multi-hot) vector of float32.

    With `share` a multi-hot vector is divided by its sum. That comes before images are mixed:
    each then has its share of the mixture, however many labels it brings.
    """
    one_hot = tf.one_hot(label, info.num_classes, dtype=tf.float32)
    if not info.multi_label:
        return one_hot
    # An image may have no label at all: the maximum over nothing is no zero.
    multi_hot = tf.maximum(tf.reduce_max(one_hot, axis=0), 0.0)
    return tf.math.divide_no_nan(multi_hot, tf.reduce_sum(multi_hot)) if share else multi_hot


def _policy(augmentation: Augmentation, magnitude: float | None) -> Callable | None:
    if augmentation.policy == "autoaugment":
        return AutoAugment()
    if augmentation.policy == "cutout":
        return Cutout()
    if augmentation.policy == "randaugment" and magnitude:
        return RandAugment(augmentation.randaugment_layers, magnitude)
    return None


def _mixing(augmentation: Augmentation, regularization: Any) -> Callable:
    """From images, labels and a seed to mixed images and labels."""
    alphas = (regularization.mixup_alpha or 0.0, regularization.cutmix_alpha or 0.0)
    if augmentation.mixing == "either":
        return lambda images, labels, seed: mixup_and_cutmix(images, labels, *alphas, seed)
    return lambda images, labels, seed: mixup_then_cutmix(
        images, labels, *alphas, seed, augmentation.cutmix_lambda
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
        return pad_and_random_crop(image, size, augmentation.padding(size), seed)
    return center_crop_and_resize(
        image,
        size,
        crop_padding=augmentation.crop_padding,
        interpolation=augmentation.interpolation,
        resize_only=augmentation.crop == "none",
    )


def _class_weight_vector(weights: Mapping[int, float] | None, classes: int) -> Any:
    if weights is None:
        return None
    return tf.constant([float(weights.get(i, 1.0)) for i in range(classes)])
