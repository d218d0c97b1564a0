"""Which images an export is calibrated with and checked on, and how they are prepared."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import tensorflow as tf

from effnetv2_tf.data.augment import center_crop_and_resize
from effnetv2_tf.data.broken_images import broken_images_named
from effnetv2_tf.data.decoding import to_channels
from effnetv2_tf.data.encoded import decode_pixels
from effnetv2_tf.data.pipeline import evaluation_dataset
from effnetv2_tf.data.sources import Source
from effnetv2_tf.data.sources.base import DataError
from effnetv2_tf.data.sources.image_listing import EXTENSIONS, files_below, is_image_name
from effnetv2_tf.errors import UsageError, is_whole, suggestion
from effnetv2_tf.models.specs import Preprocessing
from effnetv2_tf.training import build
from effnetv2_tf.training.class_names import check_class_names
from effnetv2_tf.training.recipe import Recipe

_CROPS, _INTERPOLATIONS = ("center", "none"), ("bilinear", "bicubic")
_SEED = 20210401  # any; fixed, so that two exports of a network are checked on the same images


@dataclass(frozen=True)
class ImagePreparation:
    """From an encoded image to the network's input; see `data.pipeline.evaluation_dataset`.

    Attributes:
      image_size: side in pixels.
      channels: of the network's input.
      crop: `"center"` or `"none"`.
      crop_padding: see `specs.Preprocessing`.
      interpolation: of resizing.
      decoded_channels: to which files are decoded before they get `channels`; None for the same.

    Raises:
      UsageError: for anything else.
    """

    image_size: int
    channels: int = 3
    crop: Literal["center", "none"] = "center"
    crop_padding: int = 32
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    decoded_channels: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("crop", _CROPS), ("interpolation", _INTERPOLATIONS)):
            value = getattr(self, name)
            if value not in choices:
                raise UsageError(
                    f"{name}: expected {' or '.join(choices)}, received {value!r}"
                    f"{suggestion(str(value), choices)}"
                )
        if not is_whole(self.image_size) or self.image_size < 1:
            raise UsageError(
                f"image_size: expected a side in pixels, of a square, received {self.image_size!r}"
            )

    @classmethod
    def usual(
        cls, preprocessing: Preprocessing, image_size: int, channels: int = 3, **others: Any
    ) -> ImagePreparation:
        """As a network's preprocessing has it."""
        return cls(
            image_size,
            channels,
            crop=preprocessing.crop,
            crop_padding=preprocessing.crop_padding,
            interpolation=preprocessing.interpolation,
            **others,
        )

    def at_size(self, image_size: int) -> ImagePreparation:
        """The same for another size."""
        return replace(self, image_size=image_size)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for metadata."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def prepare(self, encoded: tf.Tensor) -> tf.Tensor:
        """One encoded JPEG, PNG, GIF or BMP to uint8 (image_size, image_size, channels)."""
        decoded = self.decoded_channels or self.channels
        image = center_crop_and_resize(
            decode_pixels(encoded, decoded),
            self.image_size,
            crop_padding=self.crop_padding,
            interpolation=self.interpolation,
            resize_only=self.crop == "none",
        )
        shape = (self.image_size, self.image_size, self.channels)
        return tf.ensure_shape(to_channels(image, self.channels), shape)


@dataclass(frozen=True)
class Images:
    """Prepared images.

    Attributes:
      pixels: uint8 (count, size, size, channels).
      labels: int (count,), or None where they are unknown (or more than one each).
      origin: what they are, for reports.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    origin: str

    def __len__(self) -> int:
        return len(self.pixels)


class ImageSupply(Protocol):
    """Where images for calibration and for checking come from."""

    def held_out(self, preparation: ImagePreparation, count: int) -> Images:
        """At most `count` images that the network was not trained on."""

    def representative(self, preparation: ImagePreparation, count: int) -> Images:
        """At most `count` images like those that the network will meet; none if unknown."""


@dataclass(frozen=True)
class RecipeImages:
    """The evaluation split, and training images prepared as for evaluation.

    Attributes:
      recipe: of the run.
      class_names: of the run's classes, which the data must have too; None if they are unknown.
    """

    recipe: Recipe
    class_names: tuple[str, ...] | None = None

    def held_out(self, preparation: ImagePreparation, count: int) -> Images:
        """See `ImageSupply`."""
        return self._take(self.recipe.data.eval_split, preparation, count)

    def representative(self, preparation: ImagePreparation, count: int) -> Images:
        """See `ImageSupply`."""
        return self._take(self.recipe.data.train_split, preparation, count)

    def _take(self, split: str, preparation: ImagePreparation, count: int) -> Images:
        data = build.open_split(self.recipe, split)
        check_class_names(data.info, self.class_names)
        source = _Shuffled(data)
        dataset = evaluation_dataset(
            cast(Source, source),
            preparation.image_size,
            min(count, 256),
            crop=preparation.crop,
            crop_padding=preparation.crop_padding,
            interpolation=preparation.interpolation,
            channels=preparation.channels,
        )
        examples = dataset.unbatch().take(count).batch(256).as_numpy_iterator()
        with broken_images_named(data):
            batches = [(pixels.astype(np.uint8), labels) for pixels, labels in examples]
        pixels = np.concatenate([batch for batch, _ in batches])
        one_hot = np.concatenate([batch for _, batch in batches])
        labels = None if source.info.multi_label else one_hot.argmax(-1)
        return Images(pixels, labels, source.info.name)


class _Shuffled:
    """A source whose order is mixed: stored order often goes by class.

    Args:
      source: to be read by `evaluation_dataset`, which asks for the stored order.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.info = source.info
        self.bad_records = source.bad_records

    def epoch(self, epoch: int, *, seed: int, start: int, shuffle: bool) -> tf.data.Dataset:
        del seed, shuffle
        return self._source.epoch(epoch, seed=_SEED, start=start, shuffle=True)


@dataclass(frozen=True)
class FolderImages:
    """The image files below a folder: every second one to calibrate, the others to check.

    A folder with a single image uses it for both.

    Attributes:
      folder: searched with its subfolders.
    """

    folder: Path

    def held_out(self, preparation: ImagePreparation, count: int) -> Images:
        """See `ImageSupply`."""
        files = self._files()
        return self._read(files[1::2] or files, preparation, count)

    def representative(self, preparation: ImagePreparation, count: int) -> Images:
        """See `ImageSupply`."""
        return self._read(self._files()[::2], preparation, count)

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            raise UsageError(f"--images: expected a folder, received {str(self.folder)!r}")
        try:
            files = [path for path in files_below(self.folder) if is_image_name(path)]
        except DataError as error:
            raise UsageError(f"--images: {error}") from error
        if not files:
            raise UsageError(
                f"--images: expected {', '.join(EXTENSIONS)} files, {self.folder} has none"
            )
        return files

    def _read(self, files: list[Path], preparation: ImagePreparation, count: int) -> Images:
        order = np.random.default_rng(_SEED).permutation(len(files))[:count]
        pixels = []
        for file in (files[index] for index in order):
            try:
                pixels.append(preparation.prepare(tf.constant(file.read_bytes())).numpy())
            except (tf.errors.InvalidArgumentError, OSError) as error:
                raise UsageError(f"--images: {file} cannot be decoded") from error
        return Images(np.stack(pixels), None, str(self.folder))


@dataclass(frozen=True)
class RandomImages:
    """Smooth random patterns, for networks that come without data; no calibration."""

    def held_out(self, preparation: ImagePreparation, count: int) -> Images:
        """See `ImageSupply`."""
        size, channels = preparation.image_size, preparation.channels
        generator = np.random.default_rng(_SEED)
        noise = generator.uniform(-0.5, 0.5, (count, 8, 8, channels)).astype(np.float32)
        # Images of one brightness would all look alike after the network's pooling.
        contrast = generator.uniform(0.1, 1.0, (count, 1, 1, 1))
        color = generator.uniform(0.1, 0.9, (count, 1, 1, channels))
        pixels = np.empty((count, size, size, channels), np.uint8)
        for number in range(count):  # one by one: all of them as floats would take gigabytes
            pattern = tf.image.resize(noise[number], (size, size), "bicubic").numpy()
            values = (pattern * contrast[number] + color[number]) * 255
            pixels[number] = np.rint(values).clip(0, 255)
        return Images(pixels, None, "random patterns")

    def representative(self, preparation: ImagePreparation, count: int) -> Images:
        """None: ranges measured on noise would be wrong."""
        size, channels = preparation.image_size, preparation.channels
        return Images(np.zeros((0, size, size, channels), np.uint8), None, "none given")
