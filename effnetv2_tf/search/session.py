"""A worker's share of a search: trial after trial until the budget is used up."""

from __future__ import annotations

import json
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from effnetv2_tf.errors import RunStopped, TrainingFailure
from effnetv2_tf.reporting.numbers import short_duration
from effnetv2_tf.search import study as studies
from effnetv2_tf.search.build import build_pruner, build_reward, build_sampler, build_space
from effnetv2_tf.search.config import SearchJob, load_recipes
from effnetv2_tf.search.evaluation import Evaluation, Try, try_isolated
from effnetv2_tf.search.results import write_table
from effnetv2_tf.search.trials import (
    MEASUREMENT,
    POSITION,
    REASON,
    REWARD,
    SAME_AS,
    WORKER,
    counted,
    ended,
    is_set_aside,
    position,
)
from effnetv2_tf.training import build
from effnetv2_tf.training.isolated_run import LimitExceeded

_FAILURES_ALIKE = 5  # networks in a row, after which a search ends


class Session:
    """One worker of a search.

    Args:
      job: the search.
      try_task: see `Evaluation`.

    Raises:
      UsageError: if the configuration, the recipe, the data or the storage cannot be used, or
        the study searches something else.
    """

    def __init__(self, job: SearchJob, try_task: Try = try_isolated) -> None:
        self.job = job
        config = job.config
        self.recipe, self.proxy = load_recipes(config)
        self.eval_split = build.evaluation_split(self.proxy)
        source = build.open_sources(self.proxy).train
        build.build_schedule(self.proxy, source.info.num_examples)
        self.classes = source.info.num_classes
        self.channels = build.channels_of(self.proxy, source)
        self.space = build_space(config, self.proxy)
        reward = build_reward(config, self.proxy, self.classes, self.channels)
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # trials are told of here
        self._storage = studies.open_storage(job.storage)
        description = self._description()
        backbone = self.space.backbone_point() if config.trials.start_with_backbone else None
        self._turn = studies.turn_lock(job.storage, job.output)
        with self._turn:
            self.study = studies.open_study(
                self._storage,
                job.study,
                description,
                reward.directions,
                first=None if backbone is None else self.space.encode(backbone),
            )
        studies.claim_folder(job.output, job.study, description)
        self._evaluate = Evaluation(config, self.space, reward, self.proxy, job.output, try_task)
        self._stopped: RunStopped | None = None
        self._failed_alike: list[str] = []  # the latest networks' reasons, as long as they agree

    def _description(self) -> str:
        """All that decides what trials give; how many and who proposes may change."""
        parts: dict[str, Any] = {"seed": True, "space": True, "reward": True}
        if self.job.config.needs_step_time:
            parts["step_time"] = True
        if self.job.config.trials.inherit_weights:
            parts["trials"] = {"inherit_weights"}
        config = self.job.config.model_dump_json(include=parts)
        return f"{config}\n{json.dumps(self.proxy.decisive_values(), sort_keys=True)}"

    def work(self) -> None:
        """Makes trials until the study has as many as the budget.

        Raises:
          RunStopped: if asked to stop (SIGTERM); the trial is made again by the next session.
          TrainingFailure: if several networks in a row failed of the same, which then lies
            elsewhere: a full disk, data that are gone.
        """
        self.study.sampler = build_sampler(self.job.config, self.space)
        self.study.pruner = build_pruner(self.job.config)
        worker = studies.Worker(self.job.output / "workers", self.job.storage)
        try:
            while self._next_trial(worker):
                self._check_failures()
        finally:
            worker.close()

    def retry_failed(self) -> int:
        """See `study.retry_failed`."""
        with self._turn:
            return studies.retry_failed(self.study)

    def _has_work(self, worker: studies.Worker) -> bool:
        for number in worker.set_aside_dead(self.study):
            print(f"Trial {number}: its process is gone; it is made again", flush=True)
        trials = counted(self.study.get_trials(deepcopy=False))
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        return waiting or len(trials) < self.job.budget

    def _next_trial(self, worker: studies.Worker) -> bool:
        """Makes a trial, if there is one to be made; returns whether there was.

        It is this worker's turn until all can see whose the trial is, and of which network.
        """

        def objective(trial: optuna.Trial) -> tuple[float, ...]:
            trial.set_user_attr(WORKER, worker.name)
            if studies.is_surplus(self.study, trial.number, self.job.budget):
                raise _Surplus
            trials = self.study.get_trials(deepcopy=False)
            trial.set_user_attr(POSITION, position(trials, trial.number))
            return self._evaluate_or_say_why(trial)

        self._turn.acquire()
        try:
            if not self._has_work(worker):
                return False
            self.study.optimize(
                objective, n_trials=1, catch=(Exception,), callbacks=[self._announce]
            )
        except KeyboardInterrupt:
            self._queue_again(worker)
            raise
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            latest = self._latest_of(worker)
            if latest is None or not is_set_aside(latest):
                raise
            # It gave no sign of life for so long that others make the trial again.
            print(f"Trial {latest.number}: set aside by another worker", flush=True)
        finally:
            self._turn.release(force=True)
        if self._stopped is not None:
            self._queue_again(worker)
            raise self._stopped
        return True

    def _evaluate_or_say_why(self, trial: optuna.Trial) -> tuple[float, ...]:
        try:
            choices = self._evaluate.decide(trial)
            self._turn.release()
            objectives = self._evaluate(trial, choices)
        except optuna.TrialPruned:
            self._failed_alike = []
            raise
        except RunStopped as stopped:
            self._stopped = stopped
            raise
        except Exception as error:
            reason = _one_line(error)
            trial.set_user_attr(REASON, reason)
            if not isinstance(error, LimitExceeded) and SAME_AS not in trial.user_attrs:
                self._failed_alike = [r for r in self._failed_alike if r == reason] + [reason]
            raise
        self._failed_alike = []
        return objectives

    def _check_failures(self) -> None:
        if len(self._failed_alike) >= _FAILURES_ALIKE:
            raise TrainingFailure(
                f"{len(self._failed_alike)} networks in a row failed of the same: "
                f"{self._failed_alike[0]}; mend it and run the same command with --retry_failed"
            )

    def _queue_again(self, worker: studies.Worker) -> None:
        """Queues this worker's latest trial, which was interrupted."""
        latest = self._latest_of(worker)
        if latest is not None:
            with self._turn:
                studies.try_again(self.study, latest)

    def _latest_of(self, worker: studies.Worker) -> FrozenTrial | None:
        trials = reversed(self.study.get_trials(deepcopy=False))
        own = (t for t in trials if t.user_attrs.get(WORKER) == worker.name)
        return next(own, None)

    def _announce(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Prints what came of a trial, how many there are, and the time left."""
        if is_set_aside(trial):
            return
        trials = study.get_trials(deepcopy=False)
        write_table(self.job.output, trials, study.directions)
        done, budget = ended(trials), self.job.budget
        left = short_duration(_seconds_left(trials, budget)) if len(done) < budget else None
        print(
            f"[{len(done)} of {budget}] trial {trial.number}: {_outcome(trial)}"
            + (f"; about {left} left" if left else ""),
            flush=True,
        )


class _Surplus(Exception):
    """Another worker made the last trial first."""


def _seconds_left(trials: list[FrozenTrial], budget: int) -> float:
    """Time to the end, by the mean of the trials that were trained and the workers there are."""
    done = ended(trials)
    trained = [t for t in done if SAME_AS not in t.user_attrs and t.duration is not None]
    seconds = [t.duration.total_seconds() for t in trained if t.duration is not None]
    workers = 1 + sum(trial.state == TrialState.RUNNING for trial in trials)
    mean = sum(seconds) / max(len(seconds), 1)
    return mean * (budget - len(done)) / min(workers, budget - len(done))


def _outcome(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs[REASON]}"
    measurement = trial.user_attrs[MEASUREMENT]
    reward = trial.user_attrs.get(REWARD)
    step = measurement["step_seconds"]
    parts = [
        *([] if reward is None else [f"reward {reward:.4f}"]),
        f"accuracy {measurement['accuracy']:.2%}",
        f"{measurement['parameters']:,} parameters",
        *([] if step is None else [f"{step * 1e3:.1f} ms a step"]),
        *(["noisy"] if measurement["step_is_noisy"] else []),
        *(["stopped early"] if trial.state == TrialState.PRUNED else []),
    ]
    same = trial.user_attrs.get(SAME_AS)
    return ", ".join(parts) + ("" if same is None else f" (the network of trial {same})")


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())[:500]
    return message if isinstance(error, TrainingFailure) else f"{type(error).__name__}: {message}"
