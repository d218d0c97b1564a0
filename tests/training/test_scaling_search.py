"""A search over compound scaling's coefficients: trained, interrupted, failed, refused."""

from __future__ import annotations

import csv
import json

import keras
import pytest

from effnetv2_tf.errors import RunStopped, TrainingFailure, UsageError
from effnetv2_tf.models.compound_scaling import Coefficients, scaling_grid
from effnetv2_tf.models.flops import count_flops
from effnetv2_tf.reporting.scaling_search import ranked, scaling_table
from effnetv2_tf.training import build
from effnetv2_tf.training.recipe_files import dump_recipe, parse_recipe
from effnetv2_tf.training.scaling_candidates import (
    first_of_each_network,
    make_candidates,
    scaled_recipe,
    waiting_result,
)
from effnetv2_tf.training.scaling_search import ScalingSearch
from effnetv2_tf.training.trainer import Trainer

WIDER, LARGER = Coefficients(1, 2, 1), Coefficients(1, 1, 2)
WIDER_NAME, LARGER_NAME = "alpha1_beta2_gamma1", "alpha1_beta1_gamma2"
STEPS = 1437 // 128


def _recipe(**sections):
    return parse_recipe(
        {
            "name": "small",
            "seed": 1,
            "model": {
                "name": "efficientnetv2-b0",
                "stem_filters": 8,
                "stem_stride": 1,
                "head_filters": 16,
                "stages": [{"block": "fused", "expansion": 1, "filters": 8, "repeats": 1}],
                **sections.pop("model", {}),
            },
            "data": {
                "source": "digits",
                "augmentation": {"crop": "none", "flip": False, "policy": "none"},
                "eval_crop": "none",
                **sections.pop("data", {}),
            },
            "training": {"epochs": 1, "batch_size": 128, "ema_decay": None},
            "progressive": {"stages": 1, "image_size": [8, 8], **sections.pop("progressive", {})},
            "checkpoints": {"every_steps": 4},
            **sections,
        }
    )


class Sessions:
    """Trains in this process and counts; may interrupt, fail or only pretend."""

    def __init__(self, interrupt=None, failing=(), accuracies=()):
        self.trained = []
        self.interrupt = interrupt
        self.failing = failing
        self.accuracies = dict(accuracies)

    def __call__(self, recipe, model_dir):
        self.trained.append(model_dir.name)
        if model_dir.name in self.failing:
            raise TrainingFailure("no luck")
        if model_dir.name in self.accuracies:
            return {"accuracy": self.accuracies[model_dir.name], "train_seconds": 2.5}
        trainer = Trainer(recipe, model_dir, verbose=0)
        if model_dir.name == self.interrupt:
            trainer.callbacks.append(InterruptAt(6, trainer))
        return trainer.run()


class InterruptAt(keras.callbacks.Callback):
    """Ctrl-C after a step."""

    def __init__(self, step, trainer):
        super().__init__()
        self._step = step
        self._trainer = trainer

    def on_train_batch_end(self, batch, logs=None):
        if self._trainer.progressive.next_step == self._step:
            raise KeyboardInterrupt


def _rows(output):
    with (output / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_recipe_is_scaled():
    recipe = _recipe(
        model={"width": 1.5, "depth": 2.0},
        data={"eval_size": 20},
        progressive={"stages": 1, "image_size": [16, 24], "size_multiple": 8},
    )
    scaled = scaled_recipe(recipe, Coefficients(1.5, 1.2, 1.3), 2)
    assert scaled.model.depth == 4.5  # 2 * 1.5 ** 2
    assert scaled.model.width == 2.16  # 1.5 * 1.2 ** 2
    assert scaled.progressive.image_size == (24, 40)  # 27.04, 40.56 to multiples of 8
    assert scaled.data.eval_size == 32  # 33.8
    assert scaled.name == "small, alpha 1.5, beta 1.2, gamma 1.3"
    same = recipe.model_dump()
    for section, keys in (
        ("model", ("width", "depth")),
        ("progressive", ("image_size",)),
        ("data", ("eval_size",)),
    ):
        same[section] |= {key: scaled.model_dump()[section][key] for key in keys}
    assert scaled.model_dump() == {**same, "name": scaled.name}


def test_sizes_given_outright_are_scaled_too():
    recipe = _recipe(progressive={"stages": 1, "image_size": [8, 8], "image_sizes": [10]})
    scaled = scaled_recipe(recipe, LARGER, 1)
    assert scaled.progressive.image_sizes == (20,)
    assert build.evaluation_size(scaled) == 20


def test_parameters_and_multiply_adds_are_the_networks():
    (candidate,) = make_candidates(_recipe(), [WIDER])
    result = waiting_result(candidate, classes=10, channels=1)
    model = build.build_model(candidate.recipe, 10, 1)
    assert result.parameters == model.count_params()
    assert result.multiply_adds == count_flops(model, 8)
    assert (result.width, result.depth, result.product) == (2.0, 1.0, 4.0)
    assert result.status == "waiting"


def _assert_records_the_run(row, folder):
    run = json.loads((folder / "summary.json").read_text())
    assert float(row["accuracy"]) == run["accuracy"]
    assert int(row["parameters"]) == run["parameters"]
    assert int(row["image_size"]) == run["evaluation_size"]
    assert run["steps"] == STEPS


def test_trained_interrupted_and_gone_on(tmp_path, capsys):
    output, grid, pretended = tmp_path / "search", [LARGER, WIDER], {LARGER_NAME: 0.0}
    first = Sessions(interrupt=WIDER_NAME, accuracies=pretended)
    with pytest.raises(KeyboardInterrupt):
        ScalingSearch(_recipe(), grid, output, train=first).run()
    assert first.trained == [LARGER_NAME, WIDER_NAME]
    assert [row["candidate"] for row in _rows(output)] == [LARGER_NAME]
    capsys.readouterr()

    second = Sessions()
    summary = ScalingSearch(_recipe(), grid, output, train=second).run()
    assert second.trained == [WIDER_NAME]
    printed = capsys.readouterr().out
    assert "2 candidates, 2 different networks: 1 done before, 1 to train" in printed
    assert "Going on at step 4: epoch 1" in printed

    larger, wider = _rows(output)
    assert (larger["candidate"], larger["image_size"]) == (LARGER_NAME, "16")
    assert wider["candidate"] == WIDER_NAME
    _assert_records_the_run(wider, output / "candidates" / WIDER_NAME)
    assert summary["best"]["candidate"] == WIDER_NAME
    assert json.loads((output / "summary.json").read_text()) == summary
    assert (output / "scaling_search.png").read_bytes()[:4] == b"\x89PNG"

    third = Sessions()
    assert ScalingSearch(_recipe(), grid, output, train=third).run() == summary
    assert third.trained == []


def test_a_failed_candidate_does_not_end_the_search(tmp_path, capsys):
    accuracies = {WIDER_NAME: 0.75, LARGER_NAME: 0.5}
    sessions = Sessions(failing=(LARGER_NAME,), accuracies=accuracies)
    summary = ScalingSearch(_recipe(), [LARGER, WIDER], tmp_path, train=sessions).run()
    assert (summary["finished"], summary["failed"]) == (1, 1)
    assert summary["best"]["candidate"] == WIDER_NAME
    assert [(row["status"], row["reason"]) for row in _rows(tmp_path)] == [
        ("failed", "no luck"),
        ("finished", ""),
    ]
    printed = capsys.readouterr().out
    assert "failed: no luck" in printed
    assert "75.00% after 2 s of training" in printed
    assert "left" in printed

    again = Sessions(accuracies=accuracies)
    ScalingSearch(_recipe(), [LARGER, WIDER], tmp_path, train=again).run()
    assert again.trained == []
    retried = ScalingSearch(
        _recipe(), [LARGER, WIDER], tmp_path, train=again, retry_failed=True
    ).run()
    assert again.trained == [LARGER_NAME]
    assert (retried["finished"], retried["failed"]) == (2, 0)


def test_nothing_but_failures_is_a_failure(tmp_path):
    sessions = Sessions(failing=(WIDER_NAME, LARGER_NAME))
    with pytest.raises(TrainingFailure, match=f"none of the 2 networks .*{LARGER_NAME}: no luck"):
        ScalingSearch(_recipe(), [LARGER, WIDER], tmp_path, train=sessions).run()
    assert len(_rows(tmp_path)) == 2


def test_equal_networks_are_trained_once(tmp_path):
    grid = [LARGER, Coefficients(1, 1.01, 2), WIDER]  # 8 * 1.01 filters are 8
    candidates = make_candidates(_recipe(), grid)
    names = {key: value.name for key, value in first_of_each_network(candidates).items()}
    assert names == {
        LARGER_NAME: LARGER_NAME,
        "alpha1_beta1.01_gamma2": LARGER_NAME,
        WIDER_NAME: WIDER_NAME,
    }
    sessions = Sessions(accuracies={WIDER_NAME: 0.5, LARGER_NAME: 0.25})
    summary = ScalingSearch(_recipe(), grid, tmp_path, train=sessions).run()
    assert sessions.trained == [LARGER_NAME, WIDER_NAME]
    rows = summary["results"]
    assert [row["accuracy"] for row in rows] == [0.25, 0.25, 0.5]
    assert rows[1]["reason"] == f"same network as {LARGER_NAME}"
    assert (rows[1]["beta"], rows[1]["width"], rows[1]["product"]) == (1.01, 1.01, 4.0804)


def test_an_equal_network_of_an_earlier_grid_is_not_trained_again(tmp_path):
    equal, name = Coefficients(1, 1.01, 2), "alpha1_beta1.01_gamma2"  # 8 * 1.01 filters are 8
    sessions = Sessions(accuracies={name: 0.25})
    ScalingSearch(_recipe(), [equal], tmp_path, train=sessions).run()
    rows = ScalingSearch(_recipe(), [LARGER, equal], tmp_path, train=sessions).run()["results"]
    assert sessions.trained == [name]
    assert [row["accuracy"] for row in rows] == [0.25, 0.25]
    assert [row["beta"] for row in rows] == [1, 1.01]
    assert rows[0]["reason"] == f"same network as {name}" and not rows[1]["reason"]


def test_the_grid_may_grow_and_free_keys_may_change(tmp_path):
    accuracies = {WIDER_NAME: 0.5, LARGER_NAME: 0.25}
    ScalingSearch(_recipe(), [WIDER], tmp_path, train=Sessions(accuracies=accuracies)).run()
    sessions = Sessions(accuracies=accuracies)
    recipe = _recipe(name="renamed", checkpoints={"keep_last": 5})
    summary = ScalingSearch(recipe, [WIDER, LARGER], tmp_path, train=sessions).run()
    assert sessions.trained == [LARGER_NAME]
    assert summary["finished"] == 2


def test_the_folder_of_something_else_is_refused(tmp_path):
    sessions = Sessions(accuracies={WIDER_NAME: 0.5})
    search = ScalingSearch(_recipe(), [WIDER], tmp_path / "search", train=sessions)
    search.run()
    other = _recipe(seed=2, data={"options": {"test_share": 0.3}})
    with pytest.raises(UsageError, match=r"with another recipe: data\.options\.test_share, seed "):
        ScalingSearch(other, [WIDER], tmp_path / "search")
    with pytest.raises(UsageError, match=r"--output: .*search.* another recipe: phi differ"):
        ScalingSearch(_recipe(), [WIDER], tmp_path / "search", phi=2)
    result = tmp_path / "search" / "candidates" / WIDER_NAME / "result.json"
    result.write_text('{"candid')
    with pytest.raises(UsageError, match=r"result\.json: damaged .*remove it"):
        search.run()
    (tmp_path / "search" / "search.json").write_text('{"ph')
    with pytest.raises(UsageError, match=r"search\.json: damaged"):
        ScalingSearch(_recipe(), [WIDER], tmp_path / "search")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(dump_recipe(_recipe()))
    with pytest.raises(UsageError, match="holds a training run"):
        ScalingSearch(_recipe(), [WIDER], tmp_path / "run")


def test_what_cannot_be_searched():
    with pytest.raises(UsageError, match=r"model\.weights: expected none, received 'x\.h5'"):
        make_candidates(_recipe(model={"weights": "x.h5"}), [WIDER])
    with pytest.raises(UsageError, match="--phi: expected a number over 0 .* received -1"):
        make_candidates(_recipe(), [WIDER], phi=-1)
    with pytest.raises(UsageError, match="--phi: .* received nan"):
        make_candidates(_recipe(), [WIDER], phi=float("nan"))


def test_two_searches_in_one_folder_are_refused(tmp_path):
    class Second(Sessions):
        def __call__(self, recipe, model_dir):
            return ScalingSearch(_recipe(), [WIDER], tmp_path, train=Sessions()).run()

    search = ScalingSearch(_recipe(), [WIDER], tmp_path, train=Second())
    with pytest.raises(TrainingFailure, match="--output: another search runs in"):
        search.run()


def test_a_stop_is_no_failure(tmp_path):
    def stop(recipe, model_dir):
        raise RunStopped("Stopped by SIGTERM after step 3")

    with pytest.raises(RunStopped, match="after step 3"):
        ScalingSearch(_recipe(), [WIDER], tmp_path, train=stop).run()
    sessions = Sessions(accuracies={WIDER_NAME: 0.5})
    ScalingSearch(_recipe(), [WIDER], tmp_path, train=sessions).run()
    assert sessions.trained == [WIDER_NAME]


def test_data_that_cannot_be_used_end_the_search_at_once(tmp_path):
    with pytest.raises(UsageError, match="data: unknown kind of source"):
        ScalingSearch(_recipe(data={"source": "digit"}), [WIDER], tmp_path)
    assert not list(tmp_path.iterdir())


def _row(accuracy, cost, **values):
    named = {"alpha": 1.0, "beta": 1.0, "gamma": 2.0, "product": 4.0, "depth": 1.0, "width": 1.0}
    numbers = {"image_size": 16, "parameters": 1234, "multiply_adds": cost, "train_seconds": 1.0}
    return {**named, **numbers, "accuracy": accuracy, "reason": "", **values}


def test_the_best_is_the_most_accurate_then_the_cheapest():
    rows = [_row(None, 1), _row(0.5, 9), _row(0.5, 8), _row(0.25, 2), _row(0.0, 3)]
    assert [(row["accuracy"], row["multiply_adds"]) for row in ranked(rows)] == [
        (0.5, 8),
        (0.5, 9),
        (0.25, 2),
        (0.0, 3),
        (None, 1),
    ]
    failed = _row(None, 5_000_000, train_seconds=None, reason="no luck")
    lines = scaling_table([failed, _row(0.5, 8_000_000)]).splitlines()
    assert lines[1].split() == [
        "1",
        "1",
        "2",
        "4.000",
        "1.000",
        "1.000",
        "16",
        "1,234",
        "8.0",
        "50.00%",
        "1.0",
    ]
    assert lines[2].endswith("1,234          5.0        -        -  no luck")


@pytest.mark.slow
def test_candidates_in_processes_of_their_own(tmp_path):
    """Two are trained; the third's folder holds a run of another recipe, so it fails."""
    deeper, deeper_name = Coefficients(4, 1, 1), "alpha4_beta1_gamma1"
    broken = tmp_path / "candidates" / deeper_name
    broken.mkdir(parents=True)
    (broken / "recipe.yaml").write_text(dump_recipe(_recipe(seed=9)))
    (broken / "checkpoints").mkdir()
    (broken / "checkpoints" / "step-0000000001.npz").touch()
    summary = ScalingSearch(_recipe(), [deeper, LARGER, WIDER], tmp_path).run()
    failed, *trained = _rows(tmp_path)
    assert (failed["candidate"], failed["status"]) == (deeper_name, "failed")
    assert "holds a run of another recipe" in failed["reason"]
    assert [row["status"] for row in trained] == ["finished", "finished"]
    for row, sizes in zip(trained, ("16 px", "8 px"), strict=True):
        folder = tmp_path / "candidates" / row["candidate"]
        _assert_records_the_run(row, folder)
        assert f"Stage 1 of 1: {sizes}" in (folder / "train.log").read_text()
    assert summary["best"]["accuracy"] == max(float(row["accuracy"]) for row in trained)


def test_the_grid_of_a_search_has_the_papers_coefficients():
    candidates = make_candidates(_recipe(), scaling_grid(step=0.05))
    names = [candidate.name for candidate in candidates]
    assert "alpha1.2_beta1.1_gamma1.15" in names
    assert len(set(names)) == len(names)
