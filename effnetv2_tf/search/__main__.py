"""Searches architectures: `python -m effnetv2_tf.search --config=... --study=...`.

The same command again goes on after an interruption; with the same `--storage` further workers
join, from this machine or others. EfficientNetV2 (arXiv 2104.00298), section 3.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError

if TYPE_CHECKING:
    from effnetv2_tf.search.config import SearchJob

_NOT_IN_ADDRESSES = "?%{}"  # they mean something in an SQLAlchemy URL, or to Optuna


def _define_flags() -> dict[str, Any]:
    return {
        "config": flags.DEFINE_string("config", None, "Search configuration."),
        "study": flags.DEFINE_string("study", None, "Name of the search in the storage."),
        "storage": flags.DEFINE_string(
            "storage", None, "SQLAlchemy URL of the database; a SQLite file in --output if unset."
        ),
        "output": flags.DEFINE_string("output", None, "Folder; runs/STUDY if unset."),
        "workers": flags.DEFINE_integer("workers", 1, "Processes that make trials."),
        "trials": flags.DEFINE_integer("trials", None, "In all, in place of trials.number."),
        "retry_failed": flags.DEFINE_bool("retry_failed", False, "Train failed networks again."),
        "set": flags.DEFINE_multi_string("set", [], "Overrides one key; repeatable."),
    }


def main(given: dict[str, Any]) -> None:
    """Searches and reports; `given` are the flags' values by name."""
    job = _job(given)
    if given["workers"] < 1:
        raise UsageError(f"--workers: expected at least 1, received {given['workers']}")
    programs.import_tensorflow()
    import tensorflow as tf

    # This process proposes and keeps the records: the trials need the memory of GPUs.
    tf.config.set_visible_devices([], "GPU")
    from effnetv2_tf.search.session import Session
    from effnetv2_tf.search.workers import work_in_processes

    session = Session(job)  # in any case: what is wrong is to be said here, once
    if given["retry_failed"]:
        session.retry_failed()
    print(
        f"{job.study}: {session.space.size:,} networks in the space, {job.budget} trials by "
        f"{job.config.sampler.kind}; {job.output}",
        flush=True,
    )
    if session.eval_split == "test":
        print(
            "Note: the networks are chosen by the test split, which then no longer tells how good "
            "the best one is; set data.eval_split to another if the data have one",
            flush=True,
        )
    gpus = len(tf.config.list_physical_devices("GPU"))
    if job.config.needs_step_time and given["workers"] > max(gpus, 1):
        _note_shared_times(job.config.step_time.clock)
    if given["workers"] == 1:
        session.work()
    else:
        work_in_processes(job, given["workers"])
    _report(session)


def _note_shared_times(clock: str) -> None:
    advice = "" if clock == "processor" else "; step_time.clock=processor sees less of that"
    print(
        "Note: workers share a device: a network's step is timed beside the others' training, "
        f"which makes it slower by as much as they compute{advice}",
        flush=True,
    )


def _job(given: dict[str, Any]) -> SearchJob:
    for name, expected in (("config", "a search configuration"), ("study", "a name")):
        if not given[name]:
            raise UsageError(f"--{name}: expected {expected}, received none")
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "optuna is not installed, which searches need: pip install 'effnetv2_tf[search]'"
        ) from error
    from effnetv2_tf.search.config import SearchJob, load_search

    config = load_search(given["config"], given["set"])
    budget = config.trials.number if given["trials"] is None else given["trials"]
    if budget < 1:
        raise UsageError(f"--trials: expected at least 1, received {budget}")
    output = Path(given["output"] or f"runs/{given['study']}")
    storage = given["storage"]
    if storage is None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--output: cannot write to {output}: {error}") from error
        database = str((output / "study.db").resolve())
        if any(character in database for character in _NOT_IN_ADDRESSES):
            raise UsageError(
                f"--output: expected a folder without {' '.join(_NOT_IN_ADDRESSES)} in its path, "
                f"which the study's database is addressed by, received {str(output)!r}; or give "
                "--storage"
            )
        storage = f"sqlite:///{database}"
    return SearchJob(config, given["study"], storage, output, budget)


def _report(session: Any) -> None:
    from effnetv2_tf.search.results import publish

    output, study = session.job.output, session.study
    summary = publish(
        output,
        study.get_trials(deepcopy=False),
        study.directions,
        space=session.space,
        recipe=session.recipe,
        classes=session.classes,
        channels=session.channels,
    )
    if summary.get("failed"):
        print(f"{summary['failed']} networks failed; --retry_failed trains them again")
    best = summary["best"]
    reward = "" if best["reward"] is None else f"reward {best['reward']:.4f}, "
    print(
        f"\nBest: trial {best['trial']}, {reward}accuracy {best['accuracy']:.2%} of the short "
        f"training, {best['parameters']:,} parameters\nArtefacts:"
    )
    for name, what in (
        ("trials.csv", "every trial"),
        ("summary.json", "the same, and the best"),
        ("rewards.png", "reward over the trials"),
        ("front.png", "accuracy against parameters, multiply-adds and step time"),
        ("best.png", "the best network"),
        ("best_cells.png", "its cells"),
        ("best.yaml", "its recipe: python -m effnetv2_tf.train --config=... --model_dir=..."),
    ):
        if (output / name).exists():
            print(f"  {output / name}: {what}")


if __name__ == "__main__":
    _FLAGS = _define_flags()
    programs.run(lambda: main({name: flag.value for name, flag in _FLAGS.items()}))
