"""Progressive learning with adaptive regularisation, as a Keras callback.

EfficientNetV2 (arXiv 2104.00298), section 4.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.garbage import collection_paused
from effnetv2_tf.models.input_range import EfficientNet
from effnetv2_tf.training import distributed_steps, progressive_checks
from effnetv2_tf.training.distributed_data import distribute
from effnetv2_tf.training.drop_rates import DropRates
from effnetv2_tf.training.iterators import let_go, without_autotuning
from effnetv2_tf.training.schedule import Stage, StageSchedule
from effnetv2_tf.training.strategies import is_distributed, is_tpu

MakeDataset = Callable[..., tf.data.Dataset]


class ProgressiveLearning(keras.callbacks.Callback):  # type: ignore[misc]
    """Rebuilds the input pipeline of `Model.fit` at every stage of a schedule.

    ```python
    schedule = StageSchedule.progressive(epochs=8, num_examples=n, batch_size=64, ...)
    progressive = ProgressiveLearning(schedule, make_dataset)
    model.fit(progressive.fit_dataset(), epochs=schedule.epochs, callbacks=[progressive])
    ```

    Weights, optimizer state, step counter and `History` go on from stage to stage. The
    stage's dropout and drop-path rates are set on the model; image size, RandAugment, mixup
    and cutmix are the business of `make_dataset`. Put this callback first in the list, so
    that the others see what it adds to the logs: `stage`, `image_size`, `batch_size`,
    `learning_rate` and every scheduled quantity.

    A stage is a function of the optimizer's step: when `fit` starts on a model whose optimizer
    has made steps that end inside `initial_epoch`, only the rest of that epoch is run; a warning
    says so in epoch 0 (`compile` again to begin anew), and where nothing of an epoch is left: it
    is evaluated then, and has no training loss in `History`. Where batch sizes differ between
    stages, `fit` counts the longest epoch's steps and those past a shorter epoch's end do nothing.

    Works under `tf.distribute` strategies, for models made in their scope: batch sizes are over
    all replicas. Under `MultiWorkerMirroredStrategy` call `fit_dataset(model)`. Weights of
    examples or classes come from `make_dataset`, as a third part of its batches: `fit` would give
    its `class_weight` to `fit_dataset`'s.

    Args:
      schedule: the stages.
      make_dataset: `make_dataset(stage)` gives a `tf.data.Dataset` of batches of
        `stage.batch_size` as `fit` takes them. It is repeated, and on resuming skipped, as
        needed. If it takes a second argument `start_step`, it is given the number of
        optimizer steps already made and must begin there by itself (which can be free). If it
        takes `input_context`, that is None or, with several machines, the
        `tf.distribute.InputContext` of this one, whose share it must give in batches of
        `input_context.get_per_replica_batch_size(stage.batch_size)`.
      dynamic_sizes: whether batches are typed (batch, None, None, channels), so that one
        trace serves all stages. None: unless XLA is used (by `jit_compile` or on a TPU),
        which needs static sizes and compiles once for every stage.
    """

    def __init__(
        self,
        schedule: StageSchedule,
        make_dataset: MakeDataset,
        dynamic_sizes: bool | None = None,
    ) -> None:
        super().__init__()
        progressive_checks.check_arguments(schedule, make_dataset)
        self.schedule = schedule
        self.make_dataset = make_dataset
        self.dynamic_sizes = dynamic_sizes
        self.stage: Stage | None = None
        self.next_step = 0  # optimizer steps made in the whole run
        self.epoch_end_step = 0
        parameters = inspect.signature(make_dataset).parameters
        self._takes_start_step = "start_step" in parameters
        self._takes_input_context = "input_context" in parameters
        self._iterator: Iterator | None = None
        self._keras_function: Any = None
        self._logs: Any = None
        self._step_on_begin: int | None = None
        self._step_is_ours = False
        self._static_shape: tuple[int, int] | None = None  # of the last trace

    def fit_dataset(self, model: keras.Model | None = None) -> tf.data.Dataset:
        """The `x` for `fit`: it only counts the steps; the callback draws the real batches.

        Args:
          model: that will be fitted; needed with several workers only, where Keras must be
            kept from looking at these batches.
        """
        if model is not None:
            keras_compat.skip_symbolic_build(model)
        stage = self.schedule.stages[0]
        steps = self.schedule.most_steps_per_epoch
        example = tf.nest.map_structure(_unusable_example, self._element_spec(stage))
        examples = tf.data.Dataset.from_tensors(example).repeat(steps * stage.batch_size)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        batches = examples.batch(stage.batch_size, drop_remainder=True).with_options(options)
        return without_autotuning(batches)  # `fit` has an iterator of it in every epoch

    def _element_spec(self, stage: Stage) -> Any:
        options: dict[str, Any] = {"start_step": 0} if self._takes_start_step else {}
        if self._takes_input_context:
            options["input_context"] = None
        dataset = self.make_dataset(stage, **options)
        if not isinstance(dataset, tf.data.Dataset):
            raise TypeError(
                "ProgressiveLearning: `make_dataset(stage)` must return a tf.data.Dataset of "
                f"batches. Received: {type(dataset).__name__}."
            )
        return dataset.element_spec

    def on_train_begin(self, logs: Any = None) -> None:
        progressive_checks.check_model(self.model, self.schedule)
        self._drop_rates = DropRates(self.model)
        self._drop_rates.check(self.schedule.stages)
        self.stage = None
        self._logs = None
        progressive_checks.check_steps(self.schedule, self.params.get("steps"))
        progressive_checks.warn_of_other_epochs(self.schedule, self.params.get("epochs"))
        self._step_on_begin = None
        self.next_step = -1
        self._install()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._step_on_begin is None:  # only now have all callbacks restored what they restore
            self._step_on_begin = keras_compat.steps_made(self.model.optimizer)
        stage = self.schedule.stage_of_epoch(epoch)
        first_step = self.schedule.first_step_of_epoch(epoch)
        self.epoch_end_step = first_step + stage.steps_per_epoch
        if self.next_step != first_step:
            self.next_step = first_step
            # At its end: the epoch was trained, but not evaluated.
            if first_step <= self._step_on_begin <= self.epoch_end_step:
                self.next_step = self._step_on_begin
            progressive_checks.warn_of_steps_made(epoch, self.next_step - first_step, stage)
            if self.next_step == self.epoch_end_step:
                keras_compat.build_unbuilt_metrics(self.model, self._element_spec(stage))
            self.stage = None
        if self.stage != stage:
            self._enter(stage)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._step_is_ours = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None and self.stage is not None:
            logs.update(self._stage_logs(self.stage))
            logs["learning_rate"] = current_learning_rate(self.model.optimizer)

    def on_train_end(self, logs: Any = None) -> None:
        self.model.train_function = self._keras_function
        self._draw_from(None)
        self.stage = None

    def retrace(self) -> None:
        """Has the next step traced anew, after a change of the model that a trace cannot see.

        Such as which layers are trainable. For other callbacks, within `fit`.
        """
        self.model.make_train_function(force=True)
        self._install()

    @collection_paused()  # a full search takes longer than all else here
    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        traced_anew = self._set_drop_rates(stage)
        if not self._sizes_are_dynamic():
            # A traced function that meets a second shape would replace both by "any shape".
            shape = (stage.batch_size, stage.image_size)
            traced_anew |= self._static_shape not in (None, shape)
            self._static_shape = shape
        if traced_anew:
            self.retrace()
        self._draw_from(iter(self._dataset(stage)))

    def _draw_from(self, iterator: Iterator | None) -> None:
        before = [self._iterator]
        self._iterator = iterator
        let_go(before)

    def _set_drop_rates(self, stage: Stage) -> bool:
        regularization = stage.regularization
        traced_anew = False
        if regularization.dropout_rate is not None:
            traced_anew |= self._drop_rates.set_dropout(regularization.dropout_rate)
        if regularization.drop_path_rate is not None:
            traced_anew |= self._drop_rates.set_drop_path(regularization.drop_path_rate)
        return traced_anew

    def _dataset(self, stage: Stage) -> Any:
        def make_batches(input_context: tf.distribute.InputContext | None) -> tf.data.Dataset:
            return self._batches(stage, input_context)

        strategy = self.model.distribute_strategy
        return distribute(strategy, make_batches, shares=self._takes_input_context)

    def _batches(
        self, stage: Stage, input_context: tf.distribute.InputContext | None
    ) -> tf.data.Dataset:
        """The stage's batches from the next step on, without end."""
        options: dict[str, Any] = {}
        if self._takes_input_context:
            options["input_context"] = input_context
        if self._takes_start_step:
            options["start_step"] = self.next_step
        dataset = self.make_dataset(stage, **options)
        progressive_checks.check_batches(
            dataset.element_spec, stage, self.model, shared=input_context is not None
        )
        if not self._takes_start_step:
            progressive_checks.warn_of_repeats(dataset, stage)
        dataset = dataset.repeat()
        if not self._takes_start_step:
            dataset = dataset.skip(self.next_step - stage.first_step)
        if self._sizes_are_dynamic():
            dataset = dataset.map(forget_sides)
        if isinstance(self.model, EfficientNet) and not is_tpu(self.model.distribute_strategy):
            dataset = self.model.watch_first_batch(dataset)
        return dataset

    def _sizes_are_dynamic(self) -> bool:
        if self.dynamic_sizes is not None:
            return self.dynamic_sizes
        return not (self.model.jit_compile or is_tpu(self.model.distribute_strategy))

    def _install(self) -> None:
        """Makes `fit` draw from this callback's iterator.

        Keras builds its own iterator before any callback is called and keeps it in a local
        variable, so what it calls at every step is replaced instead.
        """
        # A `fit` that ended by an exception has left its wrapper in place.
        current = self.model.train_function
        self._keras_function = getattr(current, "keras_function", current)
        run_steps = self._keras_function
        if is_distributed(self.model.distribute_strategy):
            run_steps = distributed_steps.make_train_function(self.model)
        steps = keras_compat.steps_per_execution(self.model)

        def train_function(iterator: Any) -> Any:
            if not self._step_is_ours:  # another `fit`, after ours ended by an exception
                self.model.train_function = self._keras_function
                return self._keras_function(iterator)
            self._step_is_ours = False
            if self._logs is None:  # the first step of this `fit`
                progressive_checks.check_weights(iterator, self._iterator)
            if self.next_step >= self.epoch_end_step:
                return self._logs or self._with_stage(keras_compat.metrics_counted(self.model))
            try:
                logs = run_steps(self._iterator)
            except (StopIteration, tf.errors.OutOfRangeError) as error:
                raise ValueError(
                    f"ProgressiveLearning: `make_dataset` gave no batch for step {self.next_step} "
                    f"of the run, in stage {self.stage.index if self.stage else 0}."
                ) from error
            self.next_step += steps
            self._logs = self._with_stage(logs)
            return self._logs

        train_function.keras_function = self._keras_function  # type: ignore[attr-defined]
        self.model.train_function = train_function

    def _with_stage(self, logs: Any) -> Any:
        if self.stage is None:
            return logs
        return {**logs, "image_size": self.stage.image_size, "stage": self.stage.index}

    def _stage_logs(self, stage: Stage) -> dict[str, float]:
        scheduled = asdict(stage.regularization)
        return {
            "stage": stage.index,
            "image_size": stage.image_size,
            "batch_size": stage.batch_size,
            **{name: value for name, value in scheduled.items() if value is not None},
        }


def current_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate of the optimizer's next step."""
    return float(keras_compat.learning_rate_value(optimizer))


@tf.autograph.experimental.do_not_convert
def forget_sides(images: Any, *rest: Any) -> Any:
    """Types image batches (batch, None, None, channels)."""

    def forget(tensor: Any) -> Any:
        if not isinstance(tensor, tf.Tensor) or tensor.shape.rank != 4:
            return tensor
        batch, _, _, channels = tensor.shape.as_list()
        return tf.raw_ops.PlaceholderWithDefault(
            input=tensor, shape=tf.TensorShape([batch, None, None, channels])
        )

    images = tf.nest.map_structure(forget, images)
    return (images, *rest) if rest else images


def _unusable_example(spec: tf.TensorSpec) -> tf.Tensor:
    """An example that shows that the callback was forgotten: images that are no numbers.

    `EfficientNet.fit` says so; the loss of any other model is none.
    """
    if spec.shape.rank is None:
        raise ValueError(
            "ProgressiveLearning: `make_dataset` gives tensors of unknown rank. State their shape "
            "with `tf.ensure_shape`, e.g. (None, None, None, 3) for images."
        )
    shape = [1 if side is None else side for side in spec.shape[1:]]
    if spec.shape.rank == 4 or spec.dtype.is_floating:
        return tf.fill(shape, tf.cast(math.nan, tf.float32))
    return tf.zeros(shape, spec.dtype)
