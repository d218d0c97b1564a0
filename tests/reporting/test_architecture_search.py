"""The pictures of a search: they are written, and failed trials do not hinder them."""

import pytest

from effnetv2_tf.models.genotypes import NASNET_A
from effnetv2_tf.reporting.architecture_search import draw_front, draw_rewards, draw_searchers
from effnetv2_tf.reporting.cells import draw_genotype


def _row(trial, state="finished", reward=0.5, **values):
    return {
        "trial": trial,
        "state": state,
        "reward": reward,
        "accuracy": reward,
        "parameters": 1000 * (trial + 1),
        "multiply_adds": 10,
        "step_seconds": 0.1,
        **values,
    }


@pytest.mark.parametrize("step_seconds", [0.1, None])
def test_rewards_and_front(tmp_path, step_seconds):
    failed = dict.fromkeys(("accuracy", "parameters", "multiply_adds", "step_seconds"))
    rows = [
        _row(0, step_seconds=step_seconds),
        _row(1, "failed", None, **failed),
        _row(2, "stopped early", 0.2),
        _row(3, reward=0.7, step_seconds=step_seconds),
    ]
    draw_rewards(rows, tmp_path / "rewards.png", "title")
    draw_front(rows, tmp_path / "front.png", "title")
    for name in ("rewards.png", "front.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_searchers(tmp_path):
    runs = {"random": [[0.1, 0.3, 0.2], [0.2, 0.1, 0.4]], "evolution": [[0.5, 0.1, 0.6]]}
    draw_searchers(runs, tmp_path / "searchers.png", "title")
    assert (tmp_path / "searchers.png").read_bytes().startswith(b"\x89PNG")


def test_cells_of_a_genotype(tmp_path):
    draw_genotype(NASNET_A, tmp_path / "cells.png", "title")
    assert (tmp_path / "cells.png").read_bytes().startswith(b"\x89PNG")
