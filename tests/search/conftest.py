"""Searches whose trials are only pretended: quick, and with known rewards."""

from __future__ import annotations

import pytest

from effnetv2_tf.search.config import SearchJob, load_search
from effnetv2_tf.search.decisions import Decision


@pytest.fixture
def make_job(tmp_path):
    """A job of the tiny digits search; arguments are overrides such as `trials.number=3`."""

    def make(*overrides, study="tiny", budget=None):
        config = load_search("configs/search_v2_digits.yaml", overrides)
        storage = f"sqlite:///{tmp_path / 'study.db'}"
        output = tmp_path if study == "tiny" else tmp_path / study
        return SearchJob(config, study, storage, output, budget or config.trials.number)

    return make


@pytest.fixture
def pretend():
    """Stands in for a trial's process: tells a measurement, returns an accuracy."""
    return Pretended()


class Pretended:
    """Larger networks are more accurate; keeps the tasks it was given."""

    def __init__(self):
        self.tasks = []

    def __call__(self, task, limits, listen):
        self.tasks.append(task)
        layers = sum(stage.repeats for stage in task.recipe.model.stages)
        listen(
            {
                "parameters": 1000 * layers,
                "multiply_adds": 10_000 * layers,
                "step_seconds": 0.01 * layers,
                "reference_step_seconds": 0.02,
            }
        )
        for epoch in (1, 2, 3):
            listen({"epoch": epoch, "accuracy": self.accuracy(task, layers) * epoch / 3})
        return {"accuracy": self.accuracy(task, layers), "train_seconds": 1.0}

    def accuracy(self, task, layers):
        return layers / 8


@pytest.fixture
def ten_decisions():
    """Ten decisions of four choices; `reward(choices)` is the share that hits a hidden target."""
    return [Decision(f"d{i}", ("a", "b", "c", "d")) for i in range(10)]


@pytest.fixture
def hidden_target():
    return dict(zip((f"d{i}" for i in range(10)), "dbacacdbba", strict=True))
