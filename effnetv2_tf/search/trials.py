"""What is known of a study's trials: the attributes they carry, and which of them count."""

from __future__ import annotations

import itertools
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
POSITION = "position"


def is_set_aside(trial: FrozenTrial) -> bool:
    """Whether a trial was given up without a result: interrupted, killed, or one too many.

    A failure of the network itself has a reason.
    """
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: finished, failed for a reason, running and waiting ones.

    Of a trial that is made again, for whatever reason, only the latest; and none that took over
    the failure of such a trial.
    """
    made_again = _made_again(trials)
    return [
        trial
        for trial in trials
        if not is_set_aside(trial)
        and trial.number not in made_again
        and not (trial.state == TrialState.FAIL and trial.user_attrs.get(SAME_AS) in made_again)
    ]


def _made_again(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials in whose place later ones stand that were not themselves set aside."""
    retry_of = {trial.number: trial.user_attrs.get(RETRY_OF) for trial in trials}
    found: set[int] = set()
    for trial in trials:
        number = None if is_set_aside(trial) else retry_of[trial.number]
        while number is not None and number not in found:
            found.add(number)
            number = retry_of[number]
    return found


def ended(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count and have ended."""
    return [trial for trial in counted(trials) if trial.state.is_finished()]


def position(trials: Sequence[FrozenTrial], number: int) -> int:
    """The place of a trial among those that count, from 0; the first free one if it has none yet.

    It is what the number were, had no trial been interrupted or made again.
    """
    if POSITION in trials[number].user_attrs:
        return trials[number].user_attrs[POSITION]
    taken = {
        trial.user_attrs.get(POSITION, index)
        for index, trial in enumerate(counted(trials))
        if trial.number != number
    }
    return next(place for place in itertools.count() if place not in taken)


def reward_of(trial: FrozenTrial) -> float | None:
    """The reward of a finished trial, or what a trial that was stopped early had come to.

    None with several objectives, which make no one reward.
    """
    if trial.state == TrialState.COMPLETE:
        return trial.values[0] if len(trial.values) == 1 else None
    return trial.user_attrs.get(REWARD)
