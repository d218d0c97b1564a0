"""Controller, evolution and random search on the same budget, with several seeds; one picture.

    python benchmarks/search.py --output=runs/searchers
    python benchmarks/search.py --output=runs/searchers_digits --reward=digits --trials=30

`--reward=table` is a made-up table over EfficientNetV2's space: every choice has a gain, every
pair of neighbouring decisions another, so nothing is trained. `--reward=digits` trains the
networks of configs/search_v2_digits.yaml, with `--set` as in a search, one after the other in
this process and each once: what was measured is kept in measured.json, with its settings, which
all searches share, and the same command goes on after an interruption.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from _measure import check_names, revision
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.files import write_text

CONFIG = "configs/search_v2_digits.yaml"
_OUTPUT = flags.DEFINE_string("output", "runs/searchers", "Folder of results and picture.")
_REWARD = flags.DEFINE_enum("reward", "table", ["table", "digits"], "What is searched for.")
_TRIALS = flags.DEFINE_integer("trials", 200, "Of each search.", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Searches of each kind.", lower_bound=1)
_SET = flags.DEFINE_multi_string("set", [], "Overrides one key of the search; repeatable.")
_SEARCHERS = flags.DEFINE_list("searchers", ["controller", "evolution", "random"], "Who searches.")

Reward = Callable[[Mapping[str, int | str]], float]


def table_reward(names: list[str]) -> Reward:
    """A fixed table: gains of choices, and of pairs of neighbours, in [0, 1] on average 0.5."""

    def gain(*parts: object) -> float:
        digest = hashlib.sha256(repr(parts).encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32

    def reward(choices: Mapping[str, int | str]) -> float:
        singles = [gain(name, choices[name]) for name in names]
        pairs = [gain(a, choices[a], b, choices[b]) for a, b in itertools.pairwise(names)]
        return float(np.mean([*singles, *singles, *pairs]))

    return reward


def read_measured(path: Path, settings: Mapping[str, Any]) -> dict[str, float]:
    """The rewards in measured.json, if it is there.

    Raises:
      UsageError: if they were measured with other settings.
    """
    if not path.is_file():
        return {}
    measured = json.loads(path.read_text(encoding="utf-8"))
    if measured.get("settings") != settings:
        raise UsageError(
            f"--output: expected a folder of the same settings (--set), {path} has rewards of "
            "others; choose another folder"
        )
    return measured["rewards"]


class DigitsReward:
    """Trains a network of the digits search and keeps its reward; 0 for one that fails."""

    def __init__(self, output: Path) -> None:
        from effnetv2_tf.search.build import build_reward, build_space
        from effnetv2_tf.search.config import load_recipes, load_search
        from effnetv2_tf.search.step_time import Timing

        # A time would differ from run to run.
        config = load_search(CONFIG, ["reward.kind=flops", *_SET.value])
        _, self._proxy = load_recipes(config)
        self.space = build_space(config, self._proxy)
        self._reward = build_reward(config, self._proxy, num_classes=10, channels=1)
        self._timing = Timing()
        self._output = output
        self._path = output / "measured.json"
        settings = {"proxy": self._proxy, "space": config.space, "reward": config.reward}
        self._settings = {name: part.model_dump(mode="json") for name, part in settings.items()}
        self._known = read_measured(self._path, self._settings)
        self._save()  # an interrupted training is of these settings, too

    def __call__(self, choices: Mapping[str, int | str]) -> float:
        key = ",".join(f"{name}={choice}" for name, choice in sorted(choices.items()))
        if key not in self._known:
            # A name of its own: a run that was interrupted is gone on with, by whoever asks for it.
            name = hashlib.sha256(key.encode()).hexdigest()[:16]
            self._known[key] = self._train(choices, self._output / "trials" / name)
            self._save()
        return self._known[key]

    def _save(self) -> None:
        measured = {"settings": self._settings, "rewards": self._known}
        write_text(self._path, json.dumps(measured, indent=1) + "\n")

    def _train(self, choices: Mapping[str, int | str], folder: Path) -> float:
        import keras

        from effnetv2_tf.search.rewards import Measurement
        from effnetv2_tf.search.trial_process import TrialTask, try_recipe

        recipe = self.space.recipe(self.space.decode(choices), self._proxy)
        task = TrialTask(recipe, folder, None, self._timing, self._output / "step_times.json")
        keras.backend.clear_session()
        costs: dict = {}
        try:
            result = try_recipe(task, lambda news: None if "epoch" in news else costs.update(news))
        except TrainingFailure as error:
            print(f"{folder}: {error}")
            return 0.0
        return self._reward(Measurement(accuracy=result["accuracy"], **costs))[0]


def search(kind: str, seed: int, trials: int, space, reward: Reward) -> list[float]:
    """The rewards of a search, in the order of its trials."""
    from effnetv2_tf.search.build import build_sampler
    from effnetv2_tf.search.config import load_search
    from effnetv2_tf.search.samplers import distributions

    overrides = [*_SET.value, f"sampler.kind={kind}", f"seed={seed}"]
    sampler = build_sampler(load_search(CONFIG, overrides), space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rewards = []
    for _ in range(trials):
        trial = study.ask(distributions(space.decisions))
        rewards.append(reward(trial.params))
        study.tell(trial, rewards[-1])
    return rewards


def main() -> None:
    programs.check_output_folder(_OUTPUT)
    programs.import_tensorflow()
    from effnetv2_tf.models.families import SPECS
    from effnetv2_tf.reporting.architecture_search import draw_searchers
    from effnetv2_tf.search.spaces import StageSpace

    check_names(_SEARCHERS, ("controller", "evolution", "random", "tpe"))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    output = Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    if _REWARD.value == "digits":
        reward = DigitsReward(output)
        space = reward.space
    else:
        space = StageSpace(SPECS["efficientnetv2-b0"])
        reward = table_reward([decision.name for decision in space.decisions])
    runs: dict[str, list[list[float]]] = {}
    for kind in _SEARCHERS.value:
        runs[kind] = []
        for seed in range(_SEEDS.value):
            runs[kind].append(search(kind, seed, _TRIALS.value, space, reward))
            print(f"{kind}, seed {seed}: best of {_TRIALS.value}: {max(runs[kind][-1]):.4f}")
    report = {"revision": revision(), "rewards": runs}
    write_text(output / "rewards.json", json.dumps(report) + "\n")
    title = f"{space.size:,} networks, reward: {_REWARD.value}"
    draw_searchers(runs, output / "searchers.png", title)
    print(f"{output / 'searchers.png'}: best reward so far")


if __name__ == "__main__":
    programs.run(main)
