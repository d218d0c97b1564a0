"""Searchers: deterministic, rebuilt by replay, and better than chance where there is a pattern."""

import numpy as np
import optuna
import pytest

from effnetv2_tf.search.controller import Controller, ControllerSettings
from effnetv2_tf.search.decisions import Decision
from effnetv2_tf.search.evolution import EvolutionSampler
from effnetv2_tf.search.samplers import ControllerSampler, RandomSampler, distributions

optuna.logging.set_verbosity(optuna.logging.ERROR)


def _share(choices, target):
    return float(np.mean([choices[name] == value for name, value in target.items()]))


def _search(sampler, target, trials):
    """Rewards of a search without an engine: proposals learn from all before."""
    history = []
    for number in range(trials):
        choices = sampler.propose(history, np.random.default_rng([sampler._seed, number]))
        history.append((choices, _share(choices, target)))
    return [reward for _, reward in history]


def _study(sampler, decisions, target, trials, study=None):
    study = study or optuna.create_study(direction="maximize")
    study.sampler = sampler
    for _ in range(trials):
        trial = study.ask(distributions(decisions))
        study.tell(trial, _share(trial.params, target))
    return study


@pytest.mark.slow
def test_the_controller_beats_random_search(ten_decisions, hidden_target):
    found = {
        kind: [_search(kind(ten_decisions, seed), hidden_target, 200) for seed in range(4)]
        for kind in (ControllerSampler, RandomSampler)
    }
    learned, chance = found[ControllerSampler], found[RandomSampler]
    # All four seeds above all four: with no difference one chance in 70.
    assert min(map(max, learned)) > max(map(max, chance))
    assert min(np.mean(rewards[-40:]) for rewards in learned) > 0.6
    assert np.mean(chance) == pytest.approx(0.25, abs=0.02)


def test_evolution_beats_random_search(ten_decisions, hidden_target):
    evolved = [
        max(_search(EvolutionSampler(ten_decisions, seed), hidden_target, 200)) for seed in range(5)
    ]
    chance = [
        max(_search(RandomSampler(ten_decisions, seed), hidden_target, 200)) for seed in range(5)
    ]
    assert min(evolved) > max(chance), f"evolution {evolved}, random {chance}"


def test_evolution_changes_one_decision_of_the_tournaments_winner(ten_decisions, hidden_target):
    sampler = EvolutionSampler(ten_decisions, population=4, sample=4)
    points = [{d.name: choice for d in ten_decisions} for choice in "dabcd"]
    # The oldest has the highest reward, but is no longer alive.
    history = list(zip(points, [9.0, 0.1, 0.2, 0.8, 0.3], strict=True))
    child = sampler.propose(history, np.random.default_rng(0))
    assert sum(child[name] != "c" for name in child) == 1


def test_evolution_refuses_a_tournament_larger_than_the_population(ten_decisions):
    with pytest.raises(ValueError, match=r"`sample` must lie in 1 .. 3 .*Received: 4"):
        EvolutionSampler(ten_decisions, population=3, sample=4)


@pytest.mark.parametrize(
    "make",
    [
        lambda d: RandomSampler(d, 7),
        lambda d: EvolutionSampler(d, 7, population=6, sample=3),
        lambda d: ControllerSampler(
            d, 7, ControllerSettings(units=8, embedding=4, batch_size=4, epochs=2)
        ),
    ],
    ids=["random", "evolution", "controller"],
)
def test_a_fresh_process_goes_on_as_the_old_one_would(make, ten_decisions, hidden_target):
    whole = _study(make(ten_decisions), ten_decisions, hidden_target, 14)
    first = _study(make(ten_decisions), ten_decisions, hidden_target, 9)
    resumed = _study(make(ten_decisions), ten_decisions, hidden_target, 5, first)
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]


def test_failed_trials_teach_nothing_and_trials_stopped_early_do(ten_decisions, hidden_target):
    sampler = EvolutionSampler(ten_decisions, population=2, sample=2)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for state, reward in (("fail", 1.0), ("pruned", 0.9), ("complete", 0.1)):
        trial = study.ask(distributions(ten_decisions))
        trial.set_user_attr("reward", reward)
        values = {"complete": 0.1}.get(state)
        trial_state = getattr(optuna.trial.TrialState, state.upper())
        study.tell(trial, values, state=trial_state)
    parent, child = study.trials[1], study.ask(distributions(ten_decisions))
    assert sum(child.params[name] != parent.params[name] for name in child.params) == 1


def test_an_untrained_controller_gives_every_choice_the_same_probability():
    controller = Controller([Decision("a", (1, 2)), Decision("b", (1, 2, 3))])
    points = np.array([(0, 0), (1, 2)])
    np.testing.assert_allclose(controller.log_probabilities(points), np.log([1 / 6, 1 / 6]), 1e-5)
    rng = np.random.default_rng(0)
    drawn = {controller.sample(rng) for _ in range(60)}
    assert drawn == {(a, b) for a in range(2) for b in range(3)}


def test_what_is_rewarded_becomes_likelier():
    controller = Controller([Decision("a", (1, 2)), Decision("b", (1, 2, 3))])
    points = np.array([(0, 0), (1, 2)])
    controller.learn(points, np.array([0.2, 0.3]))
    worse, better = controller.log_probabilities(points)
    assert better > np.log(1 / 6) > worse


def test_the_baseline_is_an_exponential_moving_average():
    controller = Controller([Decision("a", (1, 2))], ControllerSettings(baseline_decay=0.9))
    points = np.array([(0,), (1,)])
    controller.learn(points, np.array([1.0, 3.0]))  # begins at the mean, 2
    expected = 0.9 * (0.9 * 2.0 + 0.1 * 1.0) + 0.1 * 3.0
    assert controller._baseline == pytest.approx(expected)
