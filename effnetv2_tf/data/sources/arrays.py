"""Images that are numpy arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from effnetv2_tf.data.sources.base import DataError, Example, IndexedSource, SourceInfo


class ArraySource(IndexedSource):
    """The user's own arrays as a source.

    Args:
        images: uint8 [N, H, W] (grayscale), [N, H, W, 1] or [N, H, W, 3], values in [0, 255].
        labels: integers [N], class ids 0 .. num_classes - 1.
        class_names: one name per class; by default the ids 0 .. max(labels) as text.
        name: prefix of record names: record 7 is "<name>/7".
        shard: (index, count) of this worker, see `Source`.

    Raises:
        DataError: on any other dtype, rank, channel count, length or label.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str] | None = None,
        name: str = "arrays",
        *,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        images = _checked_images(np.asarray(images), name)
        labels = _checked_labels(np.asarray(labels), len(images), name)
        if class_names is None:
            class_names = [str(i) for i in range(int(labels.max()) + 1)]
        _check_label_range(labels, len(class_names), name)
        info = SourceInfo(
            name=name,
            num_examples=len(images),
            num_classes=len(class_names),
            class_names=tuple(class_names),
            channels=images.shape[-1],
            encoded=False,
        )
        super().__init__(info, shard=shard)
        self.image_size = images.shape[1:3]
        with tf.device("CPU:0"):  # the input pipeline reads them; they do not belong on a GPU
            self._images = tf.constant(images)  # [N, H, W, C]
            self._labels = tf.constant(labels)  # [N]

    def fetch(self, entry: tf.Tensor) -> Example:
        return {
            "image": tf.gather(self._images, entry),
            "label": tf.gather(self._labels, entry),
            "name": tf.strings.join([self.info.name, tf.strings.as_string(entry)], separator="/"),
        }


def _checked_images(images: np.ndarray, name: str) -> np.ndarray:
    if images.dtype != np.uint8:
        raise DataError(
            "wrong dtype of images",
            expected="uint8 in [0, 255]",
            received=_describe_values(images),
            path=name,
            suggestion=_dtype_advice(images),
        )
    shape = images.shape
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise DataError(
            "wrong shape of images",
            expected="[N, H, W], [N, H, W, 1] or [N, H, W, 3] with N, H, W > 0",
            received=str(list(shape)),
            path=name,
        )
    return images


def _describe_values(images: np.ndarray) -> str:
    if images.size == 0 or images.dtype.kind not in "fiu":
        return str(images.dtype)
    return f"{images.dtype} in [{images.min():g}, {images.max():g}]"


def _dtype_advice(images: np.ndarray) -> str:
    if images.size and images.dtype.kind == "f" and images.min() >= 0 and images.max() <= 1:
        return (
            "images in [0, 1]: multiply by 255 and convert, (images * 255).round().astype('uint8')"
        )
    return "scale to [0, 255] and convert with .astype('uint8')"


def _checked_labels(labels: np.ndarray, num_images: int, name: str) -> np.ndarray:
    if labels.shape != (num_images,):
        advice = None
        if labels.ndim == 2:
            one_hot = labels.shape[1] > 1
            advice = "for one-hot labels pass labels.argmax(-1)" if one_hot else "pass labels[:, 0]"
        raise DataError(
            "wrong shape of labels",
            expected=f"[{num_images}], one class id per image",
            received=str(list(labels.shape)),
            path=name,
            suggestion=advice,
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            "wrong dtype of labels",
            expected="integers",
            received=str(labels.dtype),
            path=name,
            suggestion="convert class ids with .astype('int64')",
        )
    return labels.astype(np.int64)


def _check_label_range(labels: np.ndarray, num_classes: int, name: str) -> None:
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        position = int(np.flatnonzero(outside)[0])
        raise DataError(
            "label out of range",
            expected=f"0 .. {num_classes - 1}",
            received=f"{labels[position]} at position {position}",
            path=name,
            suggestion="class ids start at 0; check class_names",
        )
