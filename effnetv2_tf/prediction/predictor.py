"""A network, the preparation of its images and the names of its classes, applied to files.

Files are decoded, cropped and resized by the code of the evaluation
(`data.pipeline.evaluation_dataset`), so a network sees here what it was evaluated on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf.data.sources.validity import find_fault
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.labels import no_and_yes
from effnetv2_tf.models.outputs import last_step, output_activation
from effnetv2_tf.prediction.inference import inference_of

_ROUNDING = 1e-3  # of probabilities in half precision


@dataclass(frozen=True)
class ClassScore:
    """One class of an image.

    Attributes:
      index: of the class, as the network counts.
      name: of the class.
      probability: in [0, 1].
    """

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a network says of an image: its likeliest classes, the likeliest first."""

    file: Path
    classes: tuple[ClassScore, ...]


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be used, and why."""

    file: Path
    reason: str


class Predictor:
    """A classifier with all that lies between an image file and the name of a class.

    A network of this package computes as it would be exported, in the compiled operations where
    they are in use.

    Args:
      model: images (batch, size, size, channels) of pixels in [0, 255] to (batch, classes), with
        the weights that it has now: after training it further, make another predictor.
        If its last layer is a dense one without activation, softmax is applied, or, to a single
        output, the sigmoid. A single output is the probability of the second of two classes.
      preparation: from a file to such an image.
      labels: a name for each class; numbers by default. Of a model with a single output those for
        no and for yes, or for yes alone.
      origin: where the weights come from, for reports.

    Raises:
      UsageError: if the model is no classifier of such images, or the labels are not its.
    """

    def __init__(
        self,
        model: keras.Model,
        preparation: ImagePreparation,
        labels: Sequence[str] | None = None,
        origin: str = "a Keras model",
    ) -> None:
        classes = _class_count(model)
        self.model = model
        self.preparation = preparation
        self.origin = origin
        names = tuple(map(str, range(max(classes, 2))) if labels is None else labels)
        self.labels = no_and_yes(names) if classes == 1 else names
        if classes > 1 and len(names) != classes:
            raise UsageError(
                f"labels: expected {classes} names, one for each class of {origin}, "
                f"received {len(self.labels)}"
            )
        _check_image_shape(model, preparation)
        self._infer = inference_of(model)

    def predict(
        self, files: Iterable[str | Path], *, top: int = 5, batch_size: int = 16
    ) -> Iterator[Prediction | Unreadable]:
        """What the network says of every file, in order, as batches are done.

        Args:
          files: JPEG, PNG, GIF (the first frame) and BMP files, told by their content.
          top: number of classes for each image, at most the network's.
          batch_size: images that are computed at once.

        Raises:
          UsageError: for a `top` or `batch_size` below 1.
        """
        for name, value in (("top", top), ("batch_size", batch_size)):
            if value < 1:
                raise UsageError(f"{name}: expected a whole number from 1 up, received {value}")
        return self._predict(map(Path, files), top, batch_size)

    def _predict(
        self, files: Iterator[Path], top: int, batch_size: int
    ) -> Iterator[Prediction | Unreadable]:
        with ThreadPoolExecutor() as pool:
            while batch := list(islice(files, batch_size)):
                read = list(pool.map(self.read, batch))
                pixels = [image for image in read if not isinstance(image, Unreadable)]
                scores = iter(self.probabilities(np.stack(pixels)) if pixels else ())
                for file, image in zip(batch, read, strict=True):
                    if isinstance(image, Unreadable):
                        yield image
                    else:
                        yield Prediction(file, self._likeliest(next(scores), top))

    def read(self, file: Path) -> np.ndarray | Unreadable:
        """A file as the network sees it, uint8 (size, size, channels), or why it cannot be."""
        fault = find_fault(file)
        if fault is not None:
            return Unreadable(file, fault)
        try:
            return self.preparation.prepare(tf.constant(file.read_bytes())).numpy()
        except OSError as error:
            return Unreadable(file, f"unreadable: {error}")
        except tf.errors.InvalidArgumentError:
            return Unreadable(file, "broken image: it cannot be decoded")

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (count, classes) of prepared images (count, size, size, channels).

        Raises:
          UsageError: if the model's outputs are no probabilities.
        """
        outputs = self._infer(pixels)
        activation = output_activation(self.model)
        if activation == "linear":
            outputs = tf.nn.softmax(outputs) if outputs.shape[-1] > 1 else tf.sigmoid(outputs)
        scores = np.asarray(outputs, np.float32)
        if activation not in ("linear", "softmax", "sigmoid"):
            _check_are_probabilities(scores, self.model)
        return np.concatenate([1 - scores, scores], axis=1) if scores.shape[1] == 1 else scores

    def _likeliest(self, scores: np.ndarray, top: int) -> tuple[ClassScore, ...]:
        ranked = np.argsort(-scores, kind="stable")[:top]  # as in evaluation
        return tuple(ClassScore(int(i), self.labels[i], float(scores[i])) for i in ranked)


def predict_images(
    model: keras.Model,
    preparation: ImagePreparation,
    files: Iterable[str | Path],
    *,
    labels: Sequence[str] | None = None,
    top: int = 5,
    batch_size: int = 16,
) -> list[Prediction | Unreadable]:
    """What a Keras model says of image files, one entry for each, in order.

    Args:
      model: see `Predictor`.
      preparation: see `Predictor`.
      files: see `Predictor.predict`.
      labels: see `Predictor`.
      top: see `Predictor.predict`.
      batch_size: see `Predictor.predict`.

    Raises:
      UsageError: see `Predictor` and `Predictor.predict`.
    """
    predictor = Predictor(model, preparation, labels)
    return list(predictor.predict(files, top=top, batch_size=batch_size))


def _class_count(model: keras.Model) -> int:
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[-1] is None:
        raise UsageError(
            f"model {model.name!r}: expected a classifier, (batch, classes), received outputs "
            f"{shape}; build it with include_top=True"
        )
    return int(shape[-1])


def _check_are_probabilities(scores: np.ndarray, model: keras.Model) -> None:
    """Refuses features, and logits that end in no dense layer: what they are is not known."""
    least, largest = float(scores.min(initial=0)), float(scores.max(initial=0))
    if least < -_ROUNDING or largest > 1 + _ROUNDING:
        raise UsageError(
            f"model {model.name!r}: expected probabilities, or the logits of a last dense layer, "
            f"received outputs of a {type(last_step(model)).__name__} from {least:.3g} to "
            f"{largest:.3g}; let it end with keras.layers.Softmax()"
        )


def _check_image_shape(model: keras.Model, preparation: ImagePreparation) -> None:
    given = (preparation.image_size, preparation.image_size, preparation.channels)
    own = tuple(model.input_shape[1:])
    if len(own) != 3 or any(o not in (None, g) for o, g in zip(own, given, strict=True)):
        raise UsageError(
            f"model {model.name!r}: expected images (height, width, channels) of {own}, "
            f"received {given}"
        )
