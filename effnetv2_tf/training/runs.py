"""Opening a finished (or running) run's folder for evaluation and export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras

from effnetv2_tf.data.broken_images import broken_images_named
from effnetv2_tf.data.sources import DataError, ImageFolderSource, Source, TooManyBadRecords
from effnetv2_tf.errors import UsageError, suggestion
from effnetv2_tf.training import build
from effnetv2_tf.training.checkpoints import Checkpoint, CheckpointFolder, read_checkpoint
from effnetv2_tf.training.class_names import check_class_names, recorded_class_names
from effnetv2_tf.training.data_record import refuse_broken_images
from effnetv2_tf.training.evaluation import Evaluation, Infer, evaluate
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import load_recipe
from effnetv2_tf.training.state import load_for_inference


@dataclass(frozen=True)
class OpenedRun:
    """A run's network with the weights of one of its checkpoints, and its data.

    `weights` says which: `"averaged"`, or `"raw"`, also where there are no averages.
    """

    recipe: Recipe
    checkpoint: Checkpoint
    model: keras.Model
    evaluation: Source
    weights: Literal["averaged", "raw"]


def open_run(
    model_dir: Path, checkpoint: str = "last", raw: bool = False, images: Path | None = None
) -> OpenedRun:
    """Builds the network of a run and loads a checkpoint into it.

    Args:
      model_dir: folder given to the training program.
      checkpoint: see `find_checkpoint`.
      raw: whether to take the raw weights rather than their averages.
      images: to evaluate on, all of them, in place of the run's: a folder with one of images for
        each class, or a CSV file of path,label; the run's data is not needed then.

    Raises:
      UsageError: if the folder holds no run or no whole checkpoint, or the data has other
        classes than the run.
    """
    path = model_dir / "recipe.yaml"
    if not path.is_file():
        raise UsageError(
            f"--model_dir: expected the folder of a training run, received {str(model_dir)!r}, "
            "which has no recipe.yaml"
        )
    recipe = load_recipe(path)
    found = find_checkpoint(model_dir, checkpoint)
    build.set_precision(recipe)
    names = recorded_class_names(found, model_dir)
    if images is not None and names is not None:
        evaluation: Source = _open_images(images, recipe, found, names)
    else:
        sources = build.open_sources(recipe)
        refuse_broken_images(model_dir, sources)
        evaluation, trained_on = sources.evaluation, sources.train.info
        check_class_names(evaluation.info, names)
        if images is not None:  # of an earlier version's run, whose data alone tell
            evaluation = _open_images(images, recipe, found, trained_on.class_names)
    model = network_of(recipe, found)
    load_for_inference(model, found.arrays, found.path, raw=raw)
    averaged = not raw and any(name.startswith("ema/") for name in found.arrays)
    weights: Literal["averaged", "raw"] = "averaged" if averaged else "raw"
    return OpenedRun(recipe, found, model, evaluation, weights)


def _open_images(
    images: Path, recipe: Recipe, checkpoint: Checkpoint, class_names: Sequence[str]
) -> ImageFolderSource:
    """Images of the run's classes, decoded as its own were."""
    channels = checkpoint.metadata.get("source_channels")
    try:
        return ImageFolderSource(
            None if images.is_file() else images,
            csv=images if images.is_file() else None,
            class_names=class_names,
            channels=channels or checkpoint.arrays["model/stem/kernel"].shape[2],
            max_bad_share=recipe.data.max_bad_share,
        )
    except (DataError, TooManyBadRecords) as error:
        raise UsageError(f"--images: {error}") from error


def evaluate_run(run: OpenedRun, image_size: int, infer: Infer | None = None) -> Evaluation:
    """Evaluates a run on its evaluation split.

    Args:
      run: see `open_run`.
      image_size: side in pixels.
      infer: see `evaluation.evaluate`.

    Raises:
      UsageError: if no image can be used.
      TrainingFailure: if an image cannot be decoded, with its name.
    """
    dataset = build.build_evaluation_dataset(run.recipe, run.evaluation, image_size)
    try:
        with broken_images_named(run.evaluation):
            return evaluate(run.model, dataset, infer)
    except ValueError as error:
        raise UsageError(f"data: {error}") from error


def network_of(recipe: Recipe, checkpoint: Checkpoint) -> keras.Model:
    """The recipe's network with a checkpoint's class and channel counts, its weights not loaded.

    Needs neither the data nor the file of weights that the training may have begun with.

    Raises:
      UsageError: if the checkpoint lacks the stem or the classifier.
    """
    try:
        channels = checkpoint.arrays["model/stem/kernel"].shape[2]
        classes = checkpoint.arrays["model/classifier/kernel"].shape[1]
    except KeyError as error:
        raise UsageError(f"{checkpoint.path}: {error.args[0]} is missing") from error
    recipe = build.without_weights(recipe)
    model = recipe.model.model_copy(update={"auxiliary_head": None})
    return build.build_model(recipe.model_copy(update={"model": model}), classes, channels)


def find_checkpoint(model_dir: Path, checkpoint: str = "last") -> Checkpoint:
    """Reads the checkpoint of a run that is asked for, and no other in its place.

    Args:
      model_dir: folder of the run.
      checkpoint: `"last"`, `"best"`, the name of a file in its `checkpoints` folder, or a path.

    Raises:
      UsageError: if there is no such checkpoint, or it is damaged.
    """
    folder = CheckpointFolder(model_dir / "checkpoints")
    if checkpoint == "last":
        return _read_newest(folder)
    if checkpoint == "best":
        return read_checkpoint(folder.best)
    for path in (folder.folder / checkpoint, Path(checkpoint)):
        if path.is_file():
            return read_checkpoint(path)
    names = [path.name for path in folder.by_step()]
    hint = suggestion(checkpoint, ["last", "best", *names])
    raise UsageError(
        f"--checkpoint: expected last, best, the name of a file in {folder.folder} "
        f"({', '.join(names) or 'there is none'}) or a path, received {checkpoint!r}{hint}"
    )


def _read_newest(folder: CheckpointFolder) -> Checkpoint:
    saved = folder.by_step()
    if not saved:
        raise UsageError(f"--model_dir: {folder.folder} holds no checkpoint; train first")
    try:
        return read_checkpoint(saved[-1])
    except UsageError as error:
        if len(saved) < 2:
            raise
        raise UsageError(f"{error}; the one before: --checkpoint={saved[-2].name}") from error
