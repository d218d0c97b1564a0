"""Predictors from what a user has: a name, a training run, a `.keras` file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.deploy_graph import input_of
from effnetv2_tf.export.images import ImagePreparation
from effnetv2_tf.export.loading import load_model_dir, usual_preparation
from effnetv2_tf.files import read_lines
from effnetv2_tf.loading import open_keras_file
from effnetv2_tf.models.constructors import construct
from effnetv2_tf.models.input_range import EfficientNet
from effnetv2_tf.models.layers import InputNormalization
from effnetv2_tf.models.names import find_spec
from effnetv2_tf.prediction.imagenet import imagenet_class_names
from effnetv2_tf.prediction.predictor import Predictor

IMAGENET = "imagenet"


def open_pretrained(name: str, image_size: int | None = None) -> Predictor:
    """A network of the families with published ImageNet weights.

    Args:
      name: see `models.names.find_spec`.
      image_size: side in pixels; None for the size at which the network is evaluated.

    Raises:
      UsageError: for an unknown name, or weights that are not to be had.
    """
    spec = find_spec(name)
    try:
        model = construct(spec, IMAGENET)
    except UsageError:
        raise
    except (ImportError, ValueError) as error:
        raise UsageError(f"{spec.name}, ImageNet weights: {error}") from error
    preparation = ImagePreparation.usual(spec.preprocessing, image_size or spec.eval_size)
    return Predictor(model, preparation, imagenet_class_names(), f"{spec.name}, ImageNet weights")


def open_run(
    model_dir: str | Path,
    checkpoint: str = "last",
    raw_weights: bool = False,
    image_size: int | None = None,
) -> Predictor:
    """The network of a training run, with images prepared as its recipe evaluates them.

    Args:
      model_dir: see `export.loading.load_model_dir`.
      checkpoint: likewise.
      raw_weights: likewise.
      image_size: side in pixels; None for the recipe's evaluation size.

    Raises:
      UsageError: if there is no such run or checkpoint.
    """
    run = load_model_dir(model_dir, checkpoint, raw_weights)
    preparation = run.preparation.at_size(image_size or run.preparation.image_size)
    return Predictor(run.model, preparation, run.labels, run.origin)


def open_file(
    path: str | Path,
    labels: Sequence[str] | None = None,
    image_size: int | None = None,
    crop: Literal["center", "none"] | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
) -> Predictor:
    """A classifier saved by `model.save("name.keras")`.

    Args:
      path: of the file.
      labels: class names; numbers by default, for the file has none.
      image_size: side in pixels; None for the model's own, if it has one.
      crop: see `export.loading.usual_preparation`; None for the network's own.
      interpolation: likewise.

    Raises:
      UsageError: if the file cannot be loaded, holds no classifier of images in [0, 255], or
        no size is known.
    """
    model = open_keras_file(Path(path), "--file")
    size = image_size or input_of(model)[1][0]
    if size is None:
        raise UsageError(
            f"--image_size: expected the side in pixels at which {path} is used, which takes "
            "images of any size; received none"
        )
    normalizes = any(isinstance(layer, InputNormalization) for layer in model.layers)
    if isinstance(model, EfficientNet) and not normalizes:
        raise UsageError(
            f"--file: {path} was built with include_preprocessing=False: it expects images "
            "normalised in a way that the file does not say. Save it with preprocessing"
        )
    preparation = usual_preparation(model, size, crop, interpolation)
    return Predictor(model, preparation, labels, str(path))


def read_labels(name: str | Path) -> tuple[str, ...]:
    """Class names from a text file, one a line; `imagenet` means `imagenet_class_names`.

    Raises:
      UsageError: if the file cannot be read.
    """
    if str(name) == IMAGENET:
        return imagenet_class_names()
    try:
        return tuple(read_lines(Path(name)))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--labels: cannot read {name}: {error}") from error
