"""One run: from a recipe and a folder to a trained network, its records and pictures."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf.errors import RunStopped, UsageError
from effnetv2_tf.files import atomic_file, write_text
from effnetv2_tf.reporting.curves import draw_curves
from effnetv2_tf.training import build
from effnetv2_tf.training.auxiliary import main_network
from effnetv2_tf.training.checkpoints import CheckpointFolder
from effnetv2_tf.training.class_names import check_class_names, recorded_class_names
from effnetv2_tf.training.data_record import (
    check_steps,
    record_data,
    refuse_broken_images,
    restore_bad_records,
    share_bad_records,
)
from effnetv2_tf.training.distributed_validation import DistributedValidation
from effnetv2_tf.training.distributed_workers import FollowerCheckpoints, Workers
from effnetv2_tf.training.distribution import (
    adapt_to_devices,
    check_batch_sizes,
    steps_per_execution,
)
from effnetv2_tf.training.fine_tuning import build_phases
from effnetv2_tf.training.interruptions import StopOnSignal, only_run_in
from effnetv2_tf.training.monitors import (
    RunRecords,
    SaveCheckpoints,
    StageAnnouncer,
    StopOnDivergence,
    check_monitor,
)
from effnetv2_tf.training.progressive import ProgressiveLearning
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import dump_recipe, parse_recipe, read_tree
from effnetv2_tf.training.run_failures import BrokenImage, explain
from effnetv2_tf.training.run_summary import summarize
from effnetv2_tf.training.state import TrainingState
from effnetv2_tf.training.strategies import is_tpu


class Trainer:
    """Trains a recipe in a folder; going on where an earlier run in it stopped.

    Args:
      recipe: what to do.
      model_dir: gets recipe.yaml, checkpoints/, history.csv, tensorboard/ and in the end
        model.keras, summary.json and curves.png.
      strategy: a `tf.distribute.Strategy`; None for the default.
      verbose: as in `fit`.

    Raises:
      UsageError: if the recipe, the data or the folder cannot be used.
    """

    def __init__(
        self,
        recipe: Recipe,
        model_dir: Path,
        strategy: tf.distribute.Strategy | None = None,
        verbose: int = 1,
    ) -> None:
        self.strategy = strategy or tf.distribute.get_strategy()
        self.workers = Workers(self.strategy)
        recipe = build.with_evaluation_split(adapt_to_devices(recipe, self.strategy))
        self.recipe = recipe
        self.model_dir = Path(model_dir)
        self.verbose = verbose if self.workers.is_chief else 0
        self._check_folder()
        keras.utils.set_random_seed(recipe.seed)
        build.set_precision(recipe)
        self.sources = build.open_sources(recipe)
        refuse_broken_images(self.model_dir, self.sources)
        info = self.sources.train.info
        self.schedule = build.build_schedule(recipe, info.num_examples)
        check_batch_sizes(self.strategy, build.batch_sizes(recipe))
        with self.strategy.scope():
            channels = build.channels_of(recipe, self.sources.train)
            # What is resumed needs the file of weights no more that it began with.
            begun = self._has_checkpoints()
            network = build.without_weights(recipe) if begun else recipe
            self.model = build.build_model(network, info.num_classes, channels)
            optimizer = build.build_optimizer(recipe, self.schedule, self.model)
            steps = steps_per_execution(recipe, self.schedule, self.strategy)
            build.compile_model(self.model, recipe, optimizer, steps, multi_label=info.multi_label)
        check_monitor(recipe.checkpoints.monitor, self.model.get_metrics_result())
        self.network = main_network(self.model)  # that is for use afterwards
        self._evaluation_images: int | None = None  # of a run that was complete already
        self._make_callbacks()

    def run(self) -> dict[str, Any]:
        """Trains to the end and writes the artefacts; returns the summary.

        Raises:
          UsageError: if the folder cannot be written to, or another process trains in it.
          TrainingFailure: if training cannot go on; BrokenImage: until the next run in the
            folder, which leaves the image out.
          RunStopped: after SIGTERM; a checkpoint of the last step has been written.
        """
        if not self.workers.is_chief:
            return self._run()
        self._claim_folder()
        with only_run_in(self.model_dir):
            self.folder.remove_leftovers()
            return self._run()

    def _run(self) -> dict[str, Any]:
        first_epoch = self._resume()
        if first_epoch < self.schedule.epochs:
            try:
                with self.stop.listening(), _quiet_validation():
                    self._fit(first_epoch)
            except RunStopped as stopped:
                self._save_and_stop(stopped)
            except KeyboardInterrupt as interrupt:
                raise KeyboardInterrupt(self._after_interrupt()) from interrupt
            except tf.errors.OpError as error:
                raise explain(self, error) from error
        return self._finish()

    def _save_and_stop(self, stopped: RunStopped) -> None:
        if self.ema:
            self.ema.restore_raw()
        self.saver.save_now()
        self.workers.wait()  # whoever leaves first takes the others' connections away
        where = (
            f"after step {self.progressive.next_step}; a checkpoint is saved: run the same command "
            "again to go on"
        )
        if self.stop.received == signal.SIGINT:
            raise KeyboardInterrupt(f"interrupted {where}") from stopped
        raise RunStopped(f"Stopped by {stopped} {where}") from stopped

    def _after_interrupt(self) -> str:
        """What to tell the user who pressed Ctrl-C twice, perhaps in the middle of a step."""
        saved = self.folder.by_step()
        goes_on = f"goes on from {saved[-1].name}" if saved else "begins anew: none was saved"
        return (
            f"interrupted after step {max(self.progressive.next_step, 0)}; the same command "
            f"{goes_on}; one Ctrl-C alone saves a checkpoint first"
        )

    def _fit(self, first_epoch: int) -> None:
        self.model.fit(
            self.progressive.fit_dataset(self.model if self.workers.count > 1 else None),
            epochs=self.schedule.epochs,
            initial_epoch=first_epoch,
            validation_data=None if self._validates_itself else self._evaluation_dataset(),
            validation_freq=self._validation_epochs(),
            callbacks=self.callbacks,
            shuffle=False,  # the pipeline shuffles
            verbose=self.verbose,
        )

    @property
    def _validates_itself(self) -> bool:
        """Whether Keras's validation is not to be used, see `DistributedValidation`."""
        return self.workers.count > 1 or is_tpu(self.strategy)

    def _evaluation_dataset(
        self, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        return build.build_evaluation_dataset(
            self.recipe, self.sources.evaluation, input_context=input_context
        )

    def _check_folder(self) -> None:
        """Refuses a folder that holds a run of another recipe, or of one that is not known."""
        path = self.model_dir / "recipe.yaml"
        if not path.is_file() and self._has_checkpoints():
            raise UsageError(
                f"--model_dir: {self.model_dir} has checkpoints but no recipe.yaml, which would "
                "tell what they are of; put it back, or choose another folder"
            )
        changed = _changed_keys(self.recipe, path) if path.is_file() else []
        if changed and self._has_checkpoints():  # else there is nothing that it could spoil
            raise UsageError(
                f"--model_dir: {self.model_dir} holds a run of another recipe: "
                f"{', '.join(changed)} differ; choose another folder, or remove it"
            )

    def _has_checkpoints(self) -> bool:
        return bool(CheckpointFolder(self.model_dir / "checkpoints").by_step())

    def _claim_folder(self) -> None:
        """Makes the folder and writes the resolved recipe."""
        try:
            self.model_dir.mkdir(parents=True, exist_ok=True)
            write_text(self.model_dir / "recipe.yaml", dump_recipe(self.recipe))
        except OSError as error:
            raise UsageError(f"--model_dir: cannot write to {self.model_dir}: {error}") from error

    def _make_callbacks(self) -> None:
        recipe = self.recipe
        pipeline = build.build_training_pipeline(recipe, self.sources.train)
        self.progressive = ProgressiveLearning(self.schedule, pipeline)
        self.ema = build.build_averages(recipe, self.model)
        chief = self.workers.is_chief
        folder_class = CheckpointFolder if chief else FollowerCheckpoints
        self.folder = folder_class(self.model_dir / "checkpoints", recipe.checkpoints.keep_last)
        self.records = RunRecords(
            self.model_dir / "history.csv" if chief else None, self.progressive
        )
        self.saver = SaveCheckpoints(
            self.folder,
            TrainingState(self.model, self.ema),
            self.records,
            self.progressive,
            every_epochs=recipe.checkpoints.every_epochs,
            every_steps=recipe.checkpoints.every_steps,
            monitor=recipe.checkpoints.monitor if recipe.checkpoints.keep_best else None,
            mode=recipe.checkpoints.mode,
            about_data=functools.partial(record_data, self.sources, self.schedule, self.workers),
        )
        # Machines that are taken away say so many seconds before.
        self.stop = StopOnSignal(self.workers.any, every_calls=1 if self.workers.count == 1 else 8)
        self.callbacks = [
            self.progressive,
            *build.build_drop_path_ramp(recipe, self.schedule),
            *build_phases(recipe, self.model, self.progressive, self.ema),
            *([StageAnnouncer(self.progressive)] if chief else []),
            StopOnDivergence(self.progressive),
            *([self.ema] if self.ema else []),
            self.records,
            self.saver,
            *([self._tensorboard()] if chief else []),
            self.stop,
        ]
        if self._validates_itself:
            validation = DistributedValidation(
                self._evaluation_dataset, self._validation_epochs(), self.callbacks
            )
            self.callbacks.insert(1, validation)

    def _tensorboard(self) -> keras.callbacks.Callback:
        return keras.callbacks.TensorBoard(self.model_dir / "tensorboard", write_graph=False)

    def _resume(self) -> int:
        """Restores the newest whole checkpoint, if any; returns the epoch to go on with."""
        checkpoint = self.folder.latest()
        found = checkpoint.step if checkpoint else 0
        self.workers.check_same_step(found, self.folder.folder)
        if checkpoint is None:
            self._check_nothing_is_lost()
            return 0
        info = self.sources.train.info
        check_class_names(info, recorded_class_names(checkpoint, self.model_dir))
        check_steps(info, self.schedule, checkpoint)
        restore_bad_records(self.sources, checkpoint)
        self.saver.resume(checkpoint)
        if len(self.records.rows) == self.schedule.epochs:
            print(f"{self.model_dir}: training is complete ({checkpoint.step} steps)")
            self._evaluation_images = checkpoint.metadata.get("evaluation_images")
            return self.schedule.epochs
        position = self.schedule.position(checkpoint.step)
        if len(self.records.rows) < position.epoch:
            # Stopped between an epoch's last step and its evaluation, which comes first.
            print(f"Going on at step {checkpoint.step}: evaluation of epoch {position.epoch}")
            return position.epoch - 1
        print(
            f"Going on at step {checkpoint.step}: epoch {position.epoch + 1}, "
            f"stage {position.stage.index + 1} ({position.stage.image_size} px)"
        )
        return position.epoch

    def _check_nothing_is_lost(self) -> None:
        """Refuses to begin anew in place of a run whose checkpoints are all damaged."""
        damaged = self.folder.by_step()
        if damaged:
            raise UsageError(
                f"--model_dir: expected a whole checkpoint in {self.folder.folder}, received "
                f"{len(damaged)} damaged; remove them to train from the beginning"
            )

    def _validation_epochs(self) -> list[int]:
        """Numbers from 1 of the epochs after which the network is evaluated."""
        every, last = self.recipe.training.evaluate_every_epochs, self.schedule.epochs
        ends = {self.recipe.training.epochs, last}  # before and after fine-tuning, if there is any
        return sorted({*range(every, last + 1, every), *ends})

    def _finish(self) -> dict[str, Any]:
        share_bad_records(self.sources, self.workers)
        summary = summarize(
            self.recipe,
            self.network,
            self.sources,
            self.schedule,
            self.records.rows,
            self.saver.best,
            self._evaluation_images,
        )
        if self.workers.is_chief:
            self._write_artefacts(summary)
        self.workers.wait()
        return summary

    def _write_artefacts(self, summary: dict[str, Any]) -> None:
        if self.ema:
            with self.ema.applied():
                self._save_model()
        else:
            self._save_model()
        write_text(self.model_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
        draw_curves(self.records.rows, self.model_dir / "curves.png", title=self.recipe.name)

    def _save_model(self) -> None:
        """Saves the network alone: whoever loads it needs neither optimizer nor loss."""
        network = type(self.network).from_config(self.network.get_config())
        network.set_weights(self.network.get_weights())
        with (
            tempfile.TemporaryDirectory() as folder,
            atomic_file(self.model_dir / "model.keras") as file,
        ):
            saved = Path(folder) / "model.keras"
            network.save(saved)
            with saved.open("rb") as source:
                shutil.copyfileobj(source, file)


def train(
    recipe: Recipe,
    model_dir: Path,
    strategy: tf.distribute.Strategy | None = None,
    verbose: int = 1,
) -> dict[str, Any]:
    """Trains a recipe in a folder, as `Trainer` does, also if images cannot be decoded.

    TensorFlow ends `fit` when it meets one. The run then goes on from its last checkpoint without
    the image; one of several workers must be started again.

    Returns:
      The summary.
    """
    while True:
        trainer = Trainer(recipe, model_dir, strategy, verbose)
        try:
            return trainer.run()
        except BrokenImage as broken:
            if trainer.workers.count > 1:
                raise
            print(broken)
        del trainer  # before the next one takes as much memory
        keras.backend.clear_session()


@contextlib.contextmanager
def _quiet_validation() -> Iterator[None]:
    """Keeps back Keras's warning that validation data has come to its end.

    How many batches there are is unknown where bad images are left out; Keras 3 takes the end
    of the first validation for a mistake. The training data's number of steps is always known.
    Which steps of an epoch are left, when a run goes on, the run says itself.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        warnings.filterwarnings("ignore", "The optimizer has made .* already", UserWarning)
        yield


def _changed_keys(recipe: Recipe, path: Path) -> list[str]:
    saved = parse_recipe(read_tree(path), str(path))
    return sorted(_differences(saved.decisive_values(), recipe.decisive_values()))


def _differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    changed = []
    for key in old.keys() | new.keys():
        first, second = old.get(key), new.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            changed += _differences(first, second, f"{prefix}{key}.")
        elif first != second:
            changed.append(f"{prefix}{key}")
    return changed
