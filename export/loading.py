"""What can be exported: a model_dir, a .keras file, a Keras model; each becomes an `Exportable`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.data.sources import DataError
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.deploy_graph import (
    DeployGraph,
    build_deploy_graph,
    float32_copy,
    input_of,
)
from effnetv2_tf.export.images import (
    FolderImages,
    ImagePreparation,
    ImageSupply,
    RandomImages,
    RecipeImages,
)
from effnetv2_tf.export.labels import Labels, checked_labels, encodable
from effnetv2_tf.export.requests import check_keras_file, check_run_folder
from effnetv2_tf.loading import open_keras_file
from effnetv2_tf.models.input_range import EfficientNet
from effnetv2_tf.models.specs import Preprocessing
from effnetv2_tf.training import build
from effnetv2_tf.training.checkpoints import Checkpoint
from effnetv2_tf.training.class_names import recorded_class_names
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import load_recipe
from effnetv2_tf.training.runs import find_checkpoint, network_of
from effnetv2_tf.training.state import load_for_inference
from effnetv2_tf.weights.variants import matching_row

_LAMBDA_ADVICE = (
    " From Python, if you trust the file: wrap_model(keras.models.load_model(path, "
    "safe_mode=False))"
)


@dataclass(frozen=True, eq=False)
class Exportable:
    """A trained network with all that an artefact must carry.

    Attributes:
      model: the Keras network in float32: what artefacts are compared with.
      graph: the same, ready to be exported.
      labels: a name for each class, of a single probability those for no and yes; empty without
        a classifier.
      preparation: from image files to the network's input.
      images: for calibration and for checking.
      origin: where weights come from, for reports.
      notes: what was assumed, for whoever uses the artefacts.
    """

    model: keras.Model
    graph: DeployGraph
    labels: tuple[str, ...]
    preparation: ImagePreparation
    images: ImageSupply
    origin: str
    notes: tuple[str, ...] = ()

    @property
    def output_labels(self) -> tuple[str, ...]:
        """A name for each output: of a single probability, what it is one of."""
        return self.labels[-1:] if self.graph.classes == 1 else self.labels

    def metadata(self) -> dict[str, Any]:
        """What a user of an artefact must know, as plain values."""
        normalization = self.graph.normalization
        return {
            "name": self.graph.name,
            "origin": self.origin,
            "input": {
                "channels": self.graph.channels,
                "color": "RGB" if self.graph.channels == 3 else "grayscale",
                "layout": "NHWC",
                "range": [0, 255],
                "normalization": {
                    "inside_the_model": self.graph.normalizes,
                    "mean": list(normalization.mean) if normalization else None,
                    "std": list(normalization.std) if normalization else None,
                },
            },
            "preparation": self.preparation.as_dict(),
            "output": self.graph.output_name,
            "labels": list(self.output_labels),
        }


def load_model_dir(
    model_dir: str | Path,
    checkpoint: str = "last",
    raw_weights: bool = False,
    images: ImageSupply | str | Path | None = None,
) -> Exportable:
    """The network of a training run, with the averaged (EMA) weights of a checkpoint.

    Args:
      model_dir: as `effnetv2_tf.train` writes it; the run need not be over.
      checkpoint: see `training.runs.find_checkpoint`.
      raw_weights: takes the weights as trained rather than their averages.
      images: instead of the recipe's own.

    Raises:
      UsageError: if there is no such run, or its checkpoint is missing or damaged.
    """
    model_dir = Path(model_dir)
    check_run_folder(model_dir)
    recipe = load_recipe(model_dir / "recipe.yaml")
    state = find_checkpoint(model_dir, checkpoint)
    model = _build_float32(recipe, state)
    load_for_inference(model, state.arrays, state.path, raw=raw_weights)
    names = _labels_of_run(model_dir, recipe, state)
    averaged = any(name.startswith("ema/") for name in state.arrays) and not raw_weights
    return Exportable(
        model=model,
        graph=build_deploy_graph(model),
        labels=tuple(map(encodable, names)),
        preparation=_recipe_preparation(recipe, state, model.input_shape[-1]),
        images=image_supply(images) or RecipeImages(recipe, names),
        origin=f"{state.path}, step {state.step}, {'averaged' if averaged else 'raw'} weights",
    )


def load_keras_file(
    path: str | Path,
    labels: Labels | None = None,
    image_size: int | None = None,
    crop: Literal["center", "none"] | None = None,
    images: ImageSupply | str | Path | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
) -> Exportable:
    """A model saved by `model.save("name.keras")`.

    Args:
      path: of the file.
      labels: see `wrap_model`.
      image_size: side in pixels at which the model is used; None for the model's own.
      crop: see `ImagePreparation`; None for the network's own.
      images: see `wrap_model`.
      interpolation: likewise.

    Raises:
      UsageError: if the file is missing, damaged, or has classes that are not registered.
    """
    path = Path(path)
    check_keras_file(path)
    model = open_keras_file(path, "--keras_file", _LAMBDA_ADVICE)
    size = image_size or input_of(model)[1][0]
    preparation = None
    if size is not None:
        preparation = usual_preparation(model, size, crop, interpolation)
    wrapped = wrap_model(model, labels, preparation, images, origin=str(path))
    notes = [] if crop and interpolation else list(_assumed(wrapped))
    if (path.parent / "recipe.yaml").is_file():
        notes.append(
            f"{path} lies in the folder of a run: --model_dir={path.parent} brings its class names "
            "and its preparation of images"
        )
    return replace(wrapped, notes=tuple(notes))


def _assumed(exportable: Exportable) -> Iterator[str]:
    """What is said of images whose preparation nobody has stated and no family's network has."""
    if _family_preprocessing(exportable.model) is None and exportable.graph.is_classifier:
        preparation = exportable.preparation
        yield (
            f"image files are prepared with crop {preparation.crop}, {preparation.interpolation}, "
            "as image_dataset_from_directory does by default; --crop and --interpolation, or "
            "`preparation`, state how the model was trained"
        )


def usual_preparation(
    model: keras.Model,
    image_size: int,
    crop: Literal["center", "none"] | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
) -> ImagePreparation:
    """How images are prepared for a model that comes without a recipe.

    As the network of the families that it is, whatever its classes, is evaluated. Any other is
    taken to be trained as Keras's `image_dataset_from_directory` does it: the whole image,
    bilinear.
    """
    channels = model.input_shape[-1]
    preprocessing = _family_preprocessing(model)
    if preprocessing is None:
        usual = ImagePreparation(image_size, channels, crop="none", interpolation="bilinear")
    else:
        usual = ImagePreparation.usual(preprocessing, image_size, channels)
    return replace(
        usual, crop=crop or usual.crop, interpolation=interpolation or usual.interpolation
    )


def _family_preprocessing(model: keras.Model) -> Preprocessing | None:
    """That of the families' network that a model is, if it is one."""
    if not isinstance(model, EfficientNet):
        return None
    row = matching_row(tuple(weight.shape) for weight in model.weights)
    return None if row is None else row.preprocessing


def wrap_model(
    model: keras.Model,
    labels: Labels | None = None,
    preparation: ImagePreparation | int | None = None,
    images: ImageSupply | str | Path | None = None,
    origin: str = "a Keras model",
) -> Exportable:
    """Any Keras model from images to one output, e.g. one that is being trained.

    Args:
      model: of this package (it is folded) or not (it is exported as it is).
      labels: class names, in a list or with their numbers in a dict; of a network with one
        probability those for no and yes. Numbers by default.
      preparation: of image files, or the size in pixels to which they are brought; by default the
        model's own size, if it has one. For the rest see `usual_preparation`.
      images: to calibrate with and check on: a folder or a supply; by default random patterns,
        which cannot calibrate.
      origin: for reports.

    Raises:
      UsageError: if the model or the labels cannot be used, or no image size is known.
    """
    graph = build_deploy_graph(model)
    _check_is_square(model, graph)
    stated = preparation if isinstance(preparation, ImagePreparation) else None
    size = graph.image_shape[0] if preparation is None else preparation
    if size is None:
        raise UsageError(
            f"model {model.name!r} takes images of any size: expected `preparation` "
            "(--image_size) to say at which size it is used, received none"
        )
    prepared = stated or usual_preparation(model, cast(int, size))
    if graph.image_shape[0] not in (None, prepared.image_size):
        raise UsageError(
            f"model {model.name!r} takes images of {graph.image_shape[0]} px alone: expected "
            f"`preparation` (--image_size) of that size, received {prepared.image_size}"
        )
    if prepared.channels != graph.channels:
        raise UsageError(
            f"preparation.channels: expected the model's {graph.channels}, "
            f"received {prepared.channels}"
        )
    exportable = Exportable(
        model=float32_copy(model),
        graph=graph,
        labels=checked_labels(labels, graph),
        preparation=prepared,
        images=image_supply(images) or RandomImages(),
        origin=origin,
    )
    return exportable if stated else replace(exportable, notes=tuple(_assumed(exportable)))


def _check_is_square(model: keras.Model, graph: DeployGraph) -> None:
    height, width = graph.image_shape
    if height != width:
        raise UsageError(
            f"model {model.name!r}: expected square images, or of any size, received "
            f"{height or 'any'} x {width or 'any'} pixels"
        )


def _build_float32(recipe: Recipe, state: Checkpoint) -> keras.Model:
    before = keras.mixed_precision.global_policy().name
    keras_compat.set_float_precision("float32")
    try:
        return network_of(recipe, state)
    finally:
        keras_compat.set_float_precision(before)


def _labels_of_run(model_dir: Path, recipe: Recipe, state: Checkpoint) -> tuple[str, ...]:
    """Class names that the run recorded, else those of the training data."""
    names = recorded_class_names(state, model_dir)
    if names is None:
        names = build.open_split(recipe, recipe.data.train_split).info.class_names
    classes = state.arrays["model/classifier/kernel"].shape[1]
    if len(names) != classes:
        raise UsageError(
            f"{model_dir}: expected {classes} class names, as many as the network's classes, "
            f"received {len(names)}"
        )
    return names


def _recipe_preparation(recipe: Recipe, state: Checkpoint, channels: int) -> ImagePreparation:
    return ImagePreparation.usual(
        build.evaluation_preprocessing(recipe),
        build.evaluation_size(recipe),
        channels,
        decoded_channels=_source_channels(recipe, state),
    )


def _source_channels(recipe: Recipe, state: Checkpoint) -> int | None:
    """Channels to which the run decoded files, if it or its data, where it is here, tell."""
    recorded: int | None = state.metadata.get("source_channels")
    if recorded is not None:
        return recorded
    try:  # an earlier version's run
        return build.open_split(recipe, recipe.data.eval_split).info.channels
    except (UsageError, DataError):
        return None


def image_supply(images: ImageSupply | str | Path | None) -> ImageSupply | None:
    """The images of a folder, if it is one."""
    return FolderImages(Path(images)) if isinstance(images, (str, Path)) else images


def predict(exportable: Exportable, pixels: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """What the Keras network says of pixels (count, height, width, channels), in float32."""
    model = exportable.model
    batches = (
        pixels[start : start + batch_size].astype(np.float32)
        for start in range(0, len(pixels), batch_size)
    )
    return np.concatenate(
        [np.asarray(tf.nest.flatten(model(batch, training=False))[0]) for batch in batches]
    )
