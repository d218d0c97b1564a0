"""A worker's trials: counted, recorded with what they failed of, made again when interrupted."""

from __future__ import annotations

import concurrent.futures
import csv
import threading
from dataclasses import replace

import filelock
import optuna
import pytest
from optuna.trial import TrialState

from effnetv2_tf.errors import RunStopped, TrainingFailure, UsageError
from effnetv2_tf.search import study as studies
from effnetv2_tf.search import trials as trials_of
from effnetv2_tf.search.build import build_sampler
from effnetv2_tf.search.results import publish
from effnetv2_tf.search.session import Session
from effnetv2_tf.training import build
from effnetv2_tf.training.isolated_run import LimitExceeded
from effnetv2_tf.training.recipe_files import load_recipe


def _work(job, try_task):
    session = Session(job, try_task=try_task)
    session.work()
    return session.study.trials


def _publish(session):
    return publish(
        session.job.output,
        session.study.trials,
        session.study.directions,
        space=session.space,
        recipe=session.recipe,
        classes=session.classes,
        channels=session.channels,
    )


def _rows(output):
    with (output / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("sampler", ["random", "evolution", "tpe"])
def test_a_search_from_the_backbone_to_the_best_recipe(
    make_job, pretend, tmp_path, sampler, capsys
):
    session = Session(make_job("trials.number=5", f"sampler.kind={sampler}"), try_task=pretend)
    session.work()
    summary = _publish(session)
    trials = session.study.trials
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 5
    assert session.space.decode(trials[0].params) == session.space.backbone_point()
    best = max(trials, key=lambda trial: trial.value)
    assert summary["best"]["trial"] == best.number
    found = build.network_spec(load_recipe(tmp_path / "best.yaml").model)
    assert found.stages == session.space.spec(session.space.decode(best.params)).stages
    # The winner's recipe is the whole one, not the trials'.
    assert load_recipe(tmp_path / "best.yaml").training.epochs == 30
    assert pretend.tasks[0].recipe.training.epochs == 6
    assert len(_rows(tmp_path)) == 5
    for name in ("rewards.png", "front.png", "best.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1 of 5] trial 0: reward ")
    assert lines[0].endswith(" left")
    assert not lines[4].endswith(" left")


def test_the_reward_is_beside_the_backbones(make_job, pretend):
    (backbone,) = _work(make_job("trials.number=1"), pretend)
    # 2 layers: accuracy 2 / 8, half the reference's step time, 2000 parameters.
    reference = Session(make_job("trials.number=1"))._evaluate._reward.reference_parameters
    expected = 0.25 * 1.0**-0.07 * (2000 / reference) ** -0.05
    assert backbone.value == pytest.approx(expected)


def test_a_failed_trial_has_its_reason_and_the_search_goes_on(make_job, pretend, tmp_path):
    def fails_at_first(task, limits, listen):
        if len(pretend.tasks) == 1:
            pretend.tasks.append(task)
            raise TrainingFailure("out of luck")
        return pretend(task, limits, listen)

    trials = _work(make_job("trials.number=4"), fails_at_first)
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    row = _rows(tmp_path)[1]
    assert (row["trial"], row["state"], row["reason"]) == ("1", "failed", "out of luck")


def test_a_fault_of_the_machine_does_not_use_up_the_budget(make_job, pretend):
    def fails(task, limits, listen):
        pretend.tasks.append(task)
        raise OSError("disk full")

    session = Session(make_job("trials.number=50"), try_task=fails)
    with pytest.raises(
        TrainingFailure, match="5 networks in a row failed of the same: .*disk full"
    ):
        session.work()
    assert len(pretend.tasks) == 5


def test_limits_and_other_reasons_do_not_end_a_search(make_job, pretend):
    def fails(task, limits, listen):
        pretend.tasks.append(task)
        number = len(pretend.tasks)
        if number % 3:
            raise LimitExceeded("ended after its time limit of 60 s")
        raise TrainingFailure(f"out of luck at {number}")

    assert len(_work(make_job("trials.number=16"), fails)) == 16


def test_a_network_that_failed_is_not_trained_again(make_job, pretend):
    def fails(task, limits, listen):
        pretend.tasks.append(task)
        raise LimitExceeded(f"too large: {len(pretend.tasks)}")

    space = ("space.layers=[1]", "space.kernel_sizes=[3]", "space.expansions=[4]")
    job = make_job("trials.number=12", *space, "space.blocks=[fused, mbconv]")
    trials = _work(job, fails)
    networks = {str(sorted(t.params.items())) for t in trials}
    assert len(pretend.tasks) == len(networks) <= 4
    again = [t for t in trials if "same_as" in t.user_attrs]
    assert len(again) == 12 - len(networks)
    for trial in again:
        assert (
            trial.user_attrs["reason"] == trials[trial.user_attrs["same_as"]].user_attrs["reason"]
        )


def test_a_known_failure_that_is_proposed_again_and_again_ends_no_search(make_job, pretend):
    def fails(task, limits, listen):
        pretend.tasks.append(task)
        raise TrainingFailure("the process was ended by signal SIGKILL")

    space = ("space.layers=[1]", "space.kernel_sizes=[3]", "space.expansions=[4]")
    trials = _work(make_job("trials.number=9", *space, "space.blocks=[fused]"), fails)
    assert len(trials) == 9 and len(pretend.tasks) <= 2


def test_if_all_fail_the_first_reason_is_told(make_job):
    def fails(task, limits, listen):
        raise OSError("disk full")

    session = Session(make_job("trials.number=2"), try_task=fails)
    session.work()
    with pytest.raises(TrainingFailure, match="none of 2 networks .*: OSError: disk full"):
        _publish(session)


def test_a_network_that_was_measured_is_not_trained_again(make_job, pretend):
    space = ("space.layers=[1]", "space.kernel_sizes=[3]", "space.expansions=[4]")
    trials = _work(make_job("trials.number=12", *space, "space.blocks=[fused, mbconv]"), pretend)
    assert len(trials) == 12
    networks = {tuple(sorted(t.params.items())) for t in trials}
    assert len(pretend.tasks) == len(networks) <= 4
    for trial in trials:
        same = trial.user_attrs.get("same_as")
        if same is not None:
            assert trials[same].params == trial.params
            assert trials[same].value == trial.value


def test_a_hopeless_trial_is_stopped_early_and_keeps_its_reward(make_job, pretend):
    heard = []

    def worse_and_worse(task, limits, listen):
        def listen_and_count(news):
            heard.append((task.folder.name, news.get("epoch")))
            listen(news)

        return pretend(task, limits, listen_and_count)

    pretend.accuracy = lambda task, layers: 0.8 / len(pretend.tasks)
    pruning = "trials.pruning={startup_trials: 2, warmup_epochs: 1}"
    trials = _work(make_job("trials.number=4", pruning), worse_and_worse)
    assert [t.state.name for t in trials] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    assert [epoch for name, epoch in heard if name == "00002"] == [None, 1]
    measured = trials[2].user_attrs["measurement"]
    assert measured["accuracy"] == pytest.approx(0.8 / 3 / 3)
    assert 0 < trials[2].user_attrs["reward"] < trials[1].value


def test_a_small_network_with_less_accuracy_is_not_hopeless(make_job, pretend):
    pretend.accuracy = lambda task, layers: 0.8 if len(pretend.tasks) < 3 else 0.78

    def costs(task, limits, listen):
        factor = 100 if len(pretend.tasks) < 2 else 1  # the first two are large and slow

        def listen_with_costs(news):
            if "parameters" in news:
                news |= {"parameters": news["parameters"] * factor, "step_seconds": 0.01 * factor}
            listen(news)

        return pretend(task, limits, listen_with_costs)

    pruning = "trials.pruning={startup_trials: 2, warmup_epochs: 1}"
    trials = _work(make_job("trials.number=3", pruning), costs)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 3
    assert trials[2].value > max(trials[0].value, trials[1].value)


def test_after_its_last_epoch_no_trial_is_stopped_early(make_job, pretend):
    # Worse than the others at every epoch; the pruner's warm-up ends with the last one.
    pretend.accuracy = lambda task, layers: 0.8 / len(pretend.tasks)
    pruning = "trials.pruning={startup_trials: 2, warmup_epochs: 3}"
    proxy = "proxy={training.epochs: 3, training.evaluate_every_epochs: 1}"
    trials = _work(make_job("trials.number=4", proxy, pruning), pretend)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 4


def test_known_networks_are_no_start_for_ending_others_early(make_job, pretend):
    pretend.accuracy = lambda task, layers: 0.8 / len(pretend.tasks)
    space = ("space.layers=[1]", "space.kernel_sizes=[3]", "space.expansions=[4]")
    pruning = "trials.pruning={startup_trials: 3, warmup_epochs: 1}"
    blocks = "space.blocks=[fused, mbconv]"
    trials = _work(make_job("trials.number=16", *space, blocks, pruning), pretend)
    trained = [t for t in trials if "same_as" not in t.user_attrs]
    assert trials.index(trained[2]) > 2, "no network was proposed twice among the first"
    assert [t.state.name for t in trained[:3]] == ["COMPLETE"] * 3
    assert all(t.state == TrialState.PRUNED for t in trained[3:])


def test_a_hopeless_network_is_not_trained_again(make_job, pretend):
    pretend.accuracy = lambda task, layers: 0.8 / len(pretend.tasks)
    space = ("space.layers=[1]", "space.kernel_sizes=[3]", "space.expansions=[4]")
    pruning = "trials.pruning={startup_trials: 1, warmup_epochs: 1}"
    trials = _work(
        make_job("trials.number=16", *space, "space.blocks=[fused, mbconv]", pruning), pretend
    )
    networks = {str(sorted(t.params.items())) for t in trials}
    assert len(pretend.tasks) == len(networks)
    again = [t for t in trials if t.state == TrialState.PRUNED and "same_as" in t.user_attrs]
    assert again
    for trial in again:
        first = trials[trial.user_attrs["same_as"]]
        assert first.params == trial.params
        assert first.user_attrs["reward"] == trial.user_attrs["reward"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RunStopped])
def test_an_interrupted_trial_is_made_again_in_its_folder(
    make_job, pretend, interruption, tmp_path
):
    def interrupted(task, limits, listen):
        if len(pretend.tasks) == 2:
            raise interruption("stop")
        return pretend(task, limits, listen)

    with pytest.raises(interruption):
        _work(make_job("trials.number=4"), interrupted)
    trials = _work(make_job("trials.number=4"), pretend)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 2 + ["FAIL"] + ["COMPLETE"] * 2
    lost, again = trials[2], trials[3]
    assert trials_of.is_set_aside(lost)
    assert again.params == lost.params
    assert again.user_attrs["retry_of"] == 2
    assert pretend.tasks[2].folder == tmp_path / "trials" / "00002"
    assert [row["trial"] for row in _rows(tmp_path)] == ["0", "1", "3", "4"]


@pytest.mark.parametrize("sampler", ["random", "evolution", "tpe"])
def test_an_interrupted_search_tries_the_networks_of_an_undisturbed_one(make_job, pretend, sampler):
    def interrupted(task, limits, listen):
        if len(pretend.tasks) == 2:
            raise KeyboardInterrupt
        return pretend(task, limits, listen)

    changes = ("trials.number=6", f"sampler.kind={sampler}", "sampler.population=3")
    changes = (*changes, "sampler.sample=2")
    whole = _work(make_job(*changes, study="whole"), pretend)
    pretend.tasks.clear()
    with pytest.raises(KeyboardInterrupt):
        _work(make_job(*changes, study="interrupted"), interrupted)
    resumed = _work(make_job(*changes, study="interrupted"), pretend)
    assert [t.params for t in trials_of.ended(resumed)] == [t.params for t in whole]


def test_what_is_proposed_does_not_depend_on_the_machine(make_job, pretend, monkeypatch):
    found = []
    for machine in ("a", "b"):
        monkeypatch.setattr("platform.node", lambda machine=machine: machine)
        job = make_job("trials.number=4", "sampler.kind=nsga2", "reward.kind=flops", study=machine)
        found.append([trial.params for trial in _work(job, pretend)])
    assert found[0] == found[1]
    assert len({str(params) for params in found[0]}) > 2


def test_failed_trials_are_made_again_on_request(make_job, pretend, tmp_path):
    def fails(task, limits, listen):
        raise TrainingFailure("out of memory")

    failed = _work(make_job("trials.number=2"), fails)
    session = Session(make_job("trials.number=2"), try_task=pretend)
    session.work()
    assert pretend.tasks == []
    assert studies.retry_failed(session.study) == 2
    session.work()
    assert [t.state.name for t in session.study.trials] == ["FAIL"] * 2 + ["COMPLETE"] * 2
    assert [t.params for t in session.study.trials[2:]] == [t.params for t in failed]
    assert [row["retry_of"] for row in _rows(tmp_path)] == ["0", "1"]
    assert studies.retry_failed(session.study) == 0


def test_a_retry_is_made_under_a_smaller_budget_too(make_job, pretend):
    def fails_later(task, limits, listen):
        if len(pretend.tasks) >= 3:
            raise LimitExceeded(f"too large: {task.folder.name}")
        return pretend(task, limits, listen)

    _work(make_job("trials.number=5"), fails_later)
    session = Session(make_job("trials.number=2"), try_task=pretend)
    assert session.retry_failed() == 2
    session.work()
    ended = trials_of.ended(session.study.trials)
    assert [t.state.name for t in ended] == ["COMPLETE"] * 5
    assert [t.user_attrs.get("retry_of") for t in ended] == [None, None, None, 3, 4]


def test_a_retry_that_was_given_up_does_not_hide_what_failed(make_job, pretend):
    def fails(task, limits, listen):
        raise TrainingFailure("out of memory")

    _work(make_job("trials.number=1"), fails)
    session = Session(make_job("trials.number=1"), try_task=pretend)
    session.retry_failed()
    session.study.tell(session.study.ask(), state=TrialState.FAIL)
    assert [t.number for t in trials_of.ended(session.study.trials)] == [0]
    session.study.enqueue_trial({}, user_attrs={"retry_of": 1})  # made again, as the first is
    assert [t.number for t in trials_of.counted(session.study.trials)] == [2]


def test_networks_that_failed_are_retried_once_and_those_proposed_again_take_it_over(
    make_job, pretend
):
    def fails(task, limits, listen):
        raise LimitExceeded("too large")

    space = ("space.layers=[1]", "space.kernel_sizes=[3]", "space.expansions=[4]")
    job = make_job("trials.number=9", *space, "space.blocks=[fused, mbconv]")
    failed = _work(job, fails)
    networks = {str(sorted(t.params.items())) for t in failed}
    session = Session(job, try_task=pretend)
    assert session.retry_failed() == len(networks) < 9
    session.work()
    ended = trials_of.ended(session.study.trials)
    assert [t.state.name for t in ended] == ["COMPLETE"] * 9
    assert len(pretend.tasks) == len(networks)
    assert sorted(str(t.params) for t in ended) == sorted(str(t.params) for t in failed)


def test_workers_that_begin_at_once_take_different_trials(make_job, pretend):
    sessions = [Session(make_job("trials.number=8"), try_task=pretend) for _ in range(3)]
    begin = threading.Barrier(3)

    def work(session):
        begin.wait()
        session.work()

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(work, sessions))
    trials = sessions[0].study.trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 8
    assert sorted(t.user_attrs["position"] for t in trials) == list(range(8))
    folders = [task.folder.name for task in pretend.tasks]
    assert len(set(folders)) == len(folders)


def test_a_study_whose_process_was_killed_at_once_begins_with_the_backbone(make_job, pretend):
    job = make_job("trials.number=2")
    optuna.create_study(study_name=job.study, storage=job.storage, directions=["maximize"])
    session = Session(job, try_task=pretend)
    session.work()
    first = session.space.decode(session.study.trials[0].params)
    assert first == session.space.backbone_point()


def test_a_study_of_others_is_left_alone(make_job):
    job = make_job("trials.number=2")
    theirs = optuna.create_study(study_name=job.study, storage=job.storage)
    theirs.enqueue_trial({"x": 1})
    with pytest.raises(UsageError, match="searches something else"):
        Session(job)


def test_a_trial_that_was_killed_before_its_choices_leaves_its_place(make_job, pretend):
    whole = _work(make_job("trials.number=4", study="whole"), pretend)
    job = make_job("trials.number=4", study="killed")
    session = Session(job, try_task=pretend)
    session.study.sampler = build_sampler(job.config, session.space)
    for number in range(3):
        trial = session.study.ask()
        trial.set_user_attr(trials_of.POSITION, number)
        if number != 1:
            session._evaluate.decide(trial)
        trial.set_user_attr(trials_of.WORKER, "elsewhere")
    session.study.tell(1, state=TrialState.FAIL)
    session.work()
    made = session.study.trials[3:]
    assert [t.params for t in made] == [whole[1].params, whole[3].params]


def test_a_process_that_was_killed_without_a_name_blocks_no_place(make_job, pretend):
    session = Session(make_job("trials.number=1"), try_task=pretend)
    session.study.ask()
    session.work()
    assert [t.state.name for t in session.study.trials] == ["FAIL", "COMPLETE"]


def test_what_a_dead_worker_left_is_made_again_and_what_a_live_one_does_is_not(
    make_job, pretend, tmp_path
):
    session = Session(make_job("trials.number=5"), try_task=pretend)
    workers = tmp_path / "workers"
    workers.mkdir()
    session.study.sampler = build_sampler(session.job.config, session.space)
    decisions = session.space.decisions
    for name in ("dead", "alive", "elsewhere"):
        trial = session.study.ask()
        for decision in decisions:
            trial.suggest_categorical(decision.name, decision.choices)
        trial.set_user_attr(trials_of.WORKER, name)
    for name in ("dead", "alive"):
        (workers / f"{name}.lock").touch()
    with filelock.FileLock(workers / "alive.lock"):
        session.work()
    trials = session.study.trials
    states = [trial.state.name for trial in trials]
    assert states == ["FAIL", "RUNNING", "RUNNING", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert trials[3].params == trials[0].params
    assert [file.name for file in workers.glob("*.lock")] == ["alive.lock"]
    assert len(trials_of.counted(trials)) == 5


def test_without_a_heartbeat_another_machines_trial_is_made_again(make_job, pretend, monkeypatch):
    session = Session(make_job("trials.number=1"), try_task=pretend)
    trial = session.study.ask()
    for decision in session.space.decisions:
        trial.suggest_categorical(decision.name, decision.choices)
    trial.set_user_attr(trials_of.WORKER, "elsewhere")
    session.work()
    assert len(session.study.trials) == 1
    stale = iter([[trial._trial_id], []])
    monkeypatch.setattr(session._storage, "_get_stale_trial_ids", lambda study: next(stale, []))
    session.work()
    assert [t.state.name for t in session.study.trials] == ["FAIL", "COMPLETE"]
    assert session.study.trials[1].params == trial.params


def test_a_worker_that_was_taken_for_dead_goes_on(make_job, pretend, capsys):
    def is_taken_for_dead(task, limits, listen):
        if not pretend.tasks:
            session.study.tell(0, state=TrialState.FAIL)
        return pretend(task, limits, listen)

    session = Session(make_job("trials.number=2"), try_task=is_taken_for_dead)
    session.work()
    assert [t.state.name for t in session.study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "Trial 0: set aside by another worker" in capsys.readouterr().out


def test_a_trial_that_failed_before_its_process_died_is_not_made_again(make_job, pretend):
    session = Session(make_job("trials.number=1"), try_task=pretend)
    trial = session.study.ask()
    trial.set_user_attr(trials_of.REASON, "too large")
    assert studies.fail(session.study, trial._cached_frozen_trial)
    assert not studies.fail(session.study, trial._cached_frozen_trial)
    studies.try_again(session.study, session.study.trials[0])
    assert len(session.study.trials) == 1
    session.work()
    assert pretend.tasks == []


def test_a_trial_too_many_is_given_up(make_job, pretend):
    session = Session(make_job("trials.number=2"), try_task=pretend)
    for _ in range(3):
        session.study.ask()
    assert [studies.is_surplus(session.study, n, 2) for n in range(3)] == [False, False, True]


def test_the_same_study_may_grow_but_not_search_something_else(make_job, pretend):
    _work(make_job("trials.number=2"), pretend)
    assert len(_work(make_job("trials.number=3", "sampler.kind=evolution"), pretend)) == 3
    with pytest.raises(UsageError, match="--study: 'tiny' is there and searches something else"):
        Session(make_job("proxy={training.epochs: 4}"))
    with pytest.raises(UsageError, match="searches something else"):
        Session(make_job("reward.parameters_exponent=-0.1"))
    with pytest.raises(UsageError, match="searches something else"):
        Session(make_job("step_time.clock=processor"))
    with pytest.raises(UsageError, match="searches something else"):
        Session(make_job("trials.inherit_weights=true"))


def test_what_decides_nothing_may_change_within_a_study(make_job, pretend):
    _work(make_job("trials.number=1"), pretend)
    free = ("proxy.checkpoints.keep_last=1", "proxy.data.max_bad_share=0.5")
    assert len(_work(make_job("trials.number=2", *free), pretend)) == 2


def test_a_folder_is_of_one_study(make_job, pretend):
    job = make_job("trials.number=1")
    _work(job, pretend)
    with pytest.raises(UsageError, match=r"--output: .* another search \(study 'tiny'\)"):
        Session(replace(make_job(study="other"), output=job.output))
    (job.output / "study.json").write_text("{")
    with pytest.raises(UsageError, match=r"study.json: damaged"):
        Session(job)


def test_a_folder_that_cannot_be_made_is_named(make_job, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--output: cannot write to .*file/below"):
        Session(replace(make_job("trials.number=1"), output=tmp_path / "file" / "below"))


def test_a_queued_trial_that_was_killed_at_once_keeps_its_choices(make_job, pretend):
    session = Session(make_job("trials.number=2"), try_task=pretend)
    trial = session.study.ask()  # the backbone, killed before it took over a choice
    session.study.tell(trial, state=TrialState.FAIL)
    studies.try_again(session.study, session.study.trials[0])
    session.work()
    backbone = session.space.encode(session.space.backbone_point())
    assert session.study.trials[1].params == backbone


def test_a_reward_without_times_lets_their_measurement_change(make_job, pretend):
    _work(make_job("trials.number=1", "reward.kind=flops"), pretend)
    Session(make_job("reward.kind=flops", "step_time.clock=processor"))


def test_weights_come_from_the_nearest_neighbour(make_job, pretend, tmp_path):
    def with_folder(task, limits, listen):
        task.folder.mkdir(parents=True)
        return pretend(task, limits, listen)

    trials = _work(make_job("trials.number=6", "trials.inherit_weights=true"), with_folder)
    assert pretend.tasks[0].inherit_from is None
    for trial, task in zip(trials[1:], pretend.tasks[1:], strict=True):
        nearest = trial.user_attrs["inherited_from"]
        assert task.inherit_from == tmp_path / f"trials/{nearest:05d}"

        def distance(other, trial=trial):
            return sum(other.params[k] != v for k, v in trial.params.items())

        others = trials[: trial.number]
        assert distance(trials[nearest]) == min(map(distance, others))


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_several_objectives(make_job, pretend, tmp_path, sampler):
    job = make_job("trials.number=5", "reward.kind=multi_objective", f"sampler.kind={sampler}")
    session = Session(job, try_task=pretend)
    session.work()
    summary = _publish(session)
    rows = _rows(tmp_path)
    front = [row for row in rows if row["on_front"] == "True"]
    best = max(float(row["accuracy"]) for row in rows)
    assert summary["best"]["accuracy"] == best == max(float(row["accuracy"]) for row in front)
    # Larger is more accurate and slower here: no network dominates one of another size.
    assert len(front) == len(rows)


def test_a_reward_without_times_measures_none(make_job, pretend):
    _work(make_job("trials.number=1", "reward.kind=flops"), pretend)
    assert pretend.tasks[0].backbone is None
