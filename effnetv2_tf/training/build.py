"""From a recipe to the objects of a run: sources, schedule, model, optimizer, pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.data.pipeline import (
    EVALUATION,
    Augmentation,
    TrainingPipeline,
    evaluation_dataset,
    share_of,
)
from effnetv2_tf.data.service import check_reachable
from effnetv2_tf.data.sources import DataError, Source
from effnetv2_tf.errors import UsageError, suggestion
from effnetv2_tf.models import transfer
from effnetv2_tf.models.nasnet_specs import NASNETS
from effnetv2_tf.models.recompute import set_recompute
from effnetv2_tf.models.specs import Preprocessing
from effnetv2_tf.training import addons, coupled_l2, optimizers
from effnetv2_tf.training.auxiliary import with_auxiliary_loss
from effnetv2_tf.training.drop_path_ramp import DropPathRamp
from effnetv2_tf.training.ema import ExponentialMovingAverage
from effnetv2_tf.training.learning_rates import build_learning_rate
from effnetv2_tf.training.losses import loss_and_metrics
from effnetv2_tf.training.networks import build_model as build_model
from effnetv2_tf.training.networks import model_spec as model_spec
from effnetv2_tf.training.networks import network_spec as network_spec
from effnetv2_tf.training.networks import without_weights as without_weights
from effnetv2_tf.training.recipe import OptimizerSection, Recipe
from effnetv2_tf.training.schedule import Regularization, StageSchedule
from effnetv2_tf.training.sources import Sources as Sources
from effnetv2_tf.training.sources import evaluation_split as evaluation_split
from effnetv2_tf.training.sources import open_sources as open_sources
from effnetv2_tf.training.sources import open_split as open_split
from effnetv2_tf.training.sources import with_evaluation_split as with_evaluation_split

_L2 = 1e-5  # the papers' "weight decay" of RMSProp and SGD
SCHEDULED = (
    "randaugment_magnitude",
    "mixup_alpha",
    "cutmix_alpha",
    "dropout_rate",
    "drop_path_rate",
    "crop_area_min",
    "crop_area_max",
)

OUR_OPTIMIZERS: dict[str, type] = {
    "rmsprop": optimizers.RMSProp,
    "sgd": optimizers.SGD,
    "adamw": optimizers.AdamW,
}


def channels_of(recipe: Recipe, source: Source) -> int:
    """Channels of the network's input."""
    return recipe.data.channels or source.info.channels


def build_schedule(recipe: Recipe, num_examples: int) -> StageSchedule:
    """The recipe's stages for a training set of `num_examples` images.

    With `reduced_resolution` the last stage is the fine-tuning at the test size.
    """
    section, reduced = recipe.progressive, recipe.reduced_resolution
    ends = []
    for end in (0, 1):
        pairs = {name: getattr(section, name) for name in SCHEDULED}
        ends.append(Regularization(**{k: v[end] for k, v in pairs.items() if v is not None}))
    try:
        schedule = StageSchedule.progressive(
            epochs=recipe.training.epochs,
            num_examples=num_examples,
            batch_size=section.batch_sizes or recipe.training.batch_size,
            image_size=section.image_size,
            num_stages=section.stages,
            start=ends[0],
            end=ends[1],
            interpolation=section.schedule,
            size_multiple=section.size_multiple,
            image_sizes=section.image_sizes,
            epochs_per_stage=section.epochs_per_stage,
        )
    except ValueError as error:
        raise UsageError(f"progressive: {error}") from error
    if reduced is None:
        return schedule
    return schedule.with_fine_tuning(evaluation_size(recipe), reduced.fine_tune_epochs)


def _check_numbers(options: Mapping[str, Any]) -> None:
    """Refuses numbers that YAML takes for text: TensorFlow would say so only in training."""
    for name, value in options.items():
        try:
            number = float(value) if isinstance(value, str) else None
        except ValueError:
            continue
        if number is not None:
            raise UsageError(
                f"optimizer.options.{name}: expected a number, received the text {value!r}; write "
                f"{number!r}"
            )


def build_optimizer(
    recipe: Recipe, schedule: StageSchedule, model: keras.Model
) -> keras.optimizers.Optimizer:
    """The recipe's optimizer with its learning-rate schedule."""
    section = recipe.optimizer
    learning_rate = build_learning_rate(recipe, schedule)
    l2 = section.l2
    if l2 is None:
        l2 = 0.0 if section.decays_weights else _L2
    options: dict[str, Any] = {"learning_rate": learning_rate, "l2": l2}
    if section.weight_decay is not None:
        options["weight_decay"] = section.weight_decay
    if section.gradient_clip_norm is not None:
        options["global_clipnorm"] = section.gradient_clip_norm
    make_optimizer = _optimizer_maker(section)
    _check_numbers(section.options)
    if recipe.fine_tuning is not None and recipe.fine_tuning.learning_rate_decay != 1:
        if section.name.lower() not in OUR_OPTIMIZERS:
            raise UsageError(
                "fine_tuning.learning_rate_decay: expected optimizer.name to be one of "
                f"{', '.join(OUR_OPTIMIZERS)}, received {section.name!r}"
            )
        decay = recipe.fine_tuning.learning_rate_decay
        options["learning_rate_factors"] = transfer.learning_rates_by_depth(model, decay)
    try:
        optimizer = make_optimizer(**options, **section.options)
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer.options: {error}; received {section.options}") from error
    if section.decays_weights:
        others = [w for w in model.trainable_variables if not coupled_l2.is_decayed(w)]
        if callable(getattr(optimizer, "exclude_from_weight_decay", None)):
            optimizer.exclude_from_weight_decay(others)
        else:
            addons.exclude_from_weight_decay(optimizer, section.name, others)
    return optimizer


def _optimizer_maker(section: OptimizerSection) -> Callable[..., keras.optimizers.Optimizer]:
    if section.name.lower() in OUR_OPTIMIZERS:
        return OUR_OPTIMIZERS[section.name.lower()]
    theirs = {made.__name__: made for made in coupled_l2.keras_optimizers()}
    by_lower_case = {name.lower(): name for name in theirs}
    name = by_lower_case.get(section.name.lower())
    if name is not None:
        return coupled_l2.with_coupled_l2(theirs[name])
    addons_name = addons.addons_optimizer_name(section.name)
    if addons_name is not None:
        return lambda **options: addons.addons_optimizer(addons_name, options)
    known = [*OUR_OPTIMIZERS, *theirs, *addons.REPLACEMENTS]
    hint = suggestion(section.name, known) or f"; known: {', '.join(known)}"
    raise UsageError(f"optimizer.name: unknown optimizer {section.name!r}{hint}")


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    optimizer: keras.optimizers.Optimizer,
    steps_per_execution: int | None = None,
    *,
    multi_label: bool = False,
) -> None:
    """Compiles with the recipe's loss and metrics and builds their and the optimizer's variables.

    The optimizer is built here because otherwise Keras's first step is traced twice, the
    metrics so that a resumed run can restore the sums of an interrupted epoch.

    Args:
      model: to be compiled.
      recipe: of the run.
      optimizer: not yet built.
      steps_per_execution: in place of the recipe's.
      multi_label: whether an image may have any number of labels.

    Raises:
      UsageError: if the recipe asks for what the network does not have.
    """
    for parts in ("norms", "blocks"):  # blocks contain norms, hence the later one holds
        if getattr(recipe.training, f"recompute_{parts}"):
            try:
                set_recompute(model, parts)
            except ValueError as error:
                raise UsageError(f"training.recompute_{parts}: {error}") from error
    classes = model.output_shape[-1]
    loss, metrics = loss_and_metrics(
        recipe.training.loss, recipe.training.label_smoothing, classes, multi_label
    )
    model.compile(
        optimizer=optimizer,
        loss=with_auxiliary_loss(model, loss, recipe.training.auxiliary_weight),
        metrics=metrics,
        jit_compile=recipe.training.jit_compile,
        steps_per_execution=steps_per_execution or recipe.training.steps_per_execution,
    )
    keras_compat.build_optimizer(optimizer, model.trainable_variables)
    keras_compat.build_metrics(model, tf.zeros([1, classes]))


def build_averages(recipe: Recipe, model: keras.Model) -> ExponentialMovingAverage | None:
    """What averages the weights of a compiled model; None if nothing does.

    An optimizer that keeps averages is asked for them, whatever `training.ema_decay` says.
    """
    section = recipe.training
    if addons.keeps_averages(model.optimizer):
        averages: ExponentialMovingAverage = addons.OptimizerAverages()
    elif section.ema_decay is not None:
        averages = ExponentialMovingAverage(
            section.ema_decay, warmup=section.ema_every == "step", every=section.ema_every
        )
    else:
        return None
    averages.build(model)
    return averages


def build_drop_path_ramp(recipe: Recipe, schedule: StageSchedule) -> list[DropPathRamp]:
    """What lets the drop-path rate grow over training; empty if nothing does."""
    ramps = recipe.training.drop_path_ramp
    if ramps is None:
        ramps = recipe.model.name in NASNETS and recipe.progressive.drop_path_rate is None
    rate = model_spec(recipe.model).drop_path_rate
    return [DropPathRamp(rate, schedule.total_steps)] if ramps and rate > 0 else []


def build_training_pipeline(recipe: Recipe, source: Source) -> TrainingPipeline:
    """The training pipeline of a recipe.

    Raises:
      UsageError: if the recipe names a tf.data service that cannot be reached.
    """
    if recipe.data.service is not None:
        try:
            check_reachable(recipe.data.service)
        except DataError as error:
            raise UsageError(f"data.service: {error}") from error
    evaluation = evaluation_preprocessing(recipe)
    return TrainingPipeline(
        source=source,
        augmentation=Augmentation(**recipe.data.augmentation.model_dump()),
        seed=recipe.seed,
        class_weights=_class_weights(recipe, source),
        channels=recipe.data.channels,
        service_address=recipe.data.service,
        evaluation=replace(
            EVALUATION,
            crop=evaluation.crop,
            crop_padding=evaluation.crop_padding,
            interpolation=evaluation.interpolation,
        ),
        share_labels=_labels_are_shared(recipe, source),
    )


def _labels_are_shared(recipe: Recipe, source: Source) -> bool:
    """Whether an image's labels share a sum of 1, for a distribution over the classes."""
    return source.info.multi_label and recipe.training.loss == "softmax"


def batch_sizes(recipe: Recipe) -> dict[str, list[int]]:
    """All batch sizes of a recipe by the key they come from."""
    training, progressive = recipe.training.batch_size, recipe.progressive.batch_sizes
    sizes = {"training.batch_size": [training]}
    if progressive is not None:
        sizes = {"progressive.batch_sizes": list(progressive)}
    sizes["data.eval_batch_size"] = [recipe.data.eval_batch_size or training]
    return sizes


def build_evaluation_dataset(
    recipe: Recipe,
    source: Source,
    image_size: int | None = None,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """The evaluation split, or one machine's share of it, at the recipe's (or the given) size.

    Given an input context, batches are of a replica's size.
    """
    batch_size = recipe.data.eval_batch_size or recipe.training.batch_size
    if input_context is not None:
        source = share_of(source, input_context)
        batch_size = input_context.get_per_replica_batch_size(batch_size)
    preprocessing = evaluation_preprocessing(recipe)
    return evaluation_dataset(
        source,
        image_size or evaluation_size(recipe),
        batch_size,
        crop=preprocessing.crop,
        crop_padding=preprocessing.crop_padding,
        interpolation=preprocessing.interpolation,
        channels=recipe.data.channels,
        share_labels=_labels_are_shared(recipe, source),
    )


def evaluation_preprocessing(recipe: Recipe) -> Preprocessing:
    """What evaluation images go through: the network's own way, but for what the recipe sets."""
    own, padding = model_spec(recipe.model).preprocessing, recipe.data.eval_crop_padding
    return replace(
        own,
        crop=recipe.data.eval_crop or own.crop,
        crop_padding=own.crop_padding if padding is None else padding,
    )


def evaluation_size(recipe: Recipe) -> int:
    """Side in pixels at which the recipe evaluates: its own, or the last stage's."""
    return recipe.data.eval_size or recipe.progressive.last_size


def _class_weights(recipe: Recipe, source: Source) -> dict[int, float] | None:
    weights = recipe.training.class_weights
    if weights != "balanced":
        return _checked_class_weights(weights, source.info.num_classes) if weights else None
    if source.info.multi_label:
        raise UsageError(
            "training.class_weights: 'balanced' needs one label for each image, received "
            "multi-label data; give weights by class id"
        )
    labels = source.labels()
    usable = labels[labels >= 0]  # a bad record's is -1
    counts = np.bincount(usable, minlength=source.info.num_classes)
    return {i: len(usable) / (len(counts) * max(n, 1)) for i, n in enumerate(counts)}


def _checked_class_weights(weights: Mapping[int, float], classes: int) -> dict[int, float]:
    for number in weights:
        if not 0 <= number < classes:
            raise UsageError(
                f"training.class_weights: expected ids of classes, 0 to {classes - 1}, "
                f"received {number}"
            )
    return dict(weights)


def set_precision(recipe: Recipe) -> None:
    """Sets Keras's default precision to the recipe's."""
    keras_compat.set_float_precision(recipe.training.precision)
