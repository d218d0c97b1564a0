"""What is known of a study's trials: the attributes they carry, and which of them count."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

# User attributes of trials.
REWARD = "reward"
MEASUREMENT = "measurement"
FOLDER = "folder"
SAME_AS = "same_as"
INHERITED_FROM = "inherited_from"
WORKER = "worker"
REASON = "reason"  # of a failed trial
RETRY_OF = "retry_of"


def is_set_aside(trial: FrozenTrial) -> bool:
    """Whether a trial was given up without a result: interrupted, killed, or one too many.

    A failure of the network itself has a reason.
    """
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: finished, failed for a reason, running and waiting ones.

    Of a trial that is made again, for whatever reason, only the latest.
    """
    made_again = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [t for t in trials if not is_set_aside(t) and t.number not in made_again]


def ended(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count and have ended."""
    return [trial for trial in counted(trials) if trial.state.is_finished()]


def position(trials: Sequence[FrozenTrial], number: int) -> int:
    """How many trials before that number count: what it were, had no trial been made again."""
    return sum(trial.number < number for trial in counted(trials))


def reward_of(trial: FrozenTrial) -> float | None:
    """The reward of a finished trial, or what a trial that was stopped early had come to.

    None with several objectives, which make no one reward.
    """
    if trial.state == TrialState.COMPLETE:
        return trial.values[0] if len(trial.values) == 1 else None
    return trial.user_attrs.get(REWARD)
