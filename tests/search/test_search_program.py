"""`python -m effnetv2_tf.search`: one-line errors; a whole search, killed and gone on with."""

import csv
import os
import subprocess
import sys

import pytest

from effnetv2_tf.training.recipe_files import load_recipe

CONFIG = "--config=configs/search_v2_digits.yaml"


def _start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "effnetv2_tf.search", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def _run(*arguments):
    with _start(*arguments) as process:
        out, err = process.communicate(timeout=900)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config: expected a search configuration, received none"),
        ((CONFIG,), "--study: expected a name, received none"),
        ((CONFIG, "--study=s", "--trials=0"), "--trials: expected at least 1, received 0"),
        ((CONFIG, "--study=s", "--set=trials.number=0"), "trials.number: "),
        ((CONFIG, "--study=s", "--set=space.blocks=[]"), "space.blocks: expected at least one"),
        (("--config=/no/such.yaml", "--study=s"), "--config: expected"),
    ],
)
def test_wrong_use_is_one_line_and_2(arguments, message, tmp_path):
    code, out, err = _run(*arguments, f"--output={tmp_path}")
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert out == ""


@pytest.mark.parametrize("name", ["q?x=1", "a%20b", "{0}"])
def test_a_folder_that_no_address_can_hold(name, tmp_path):
    code, _, err = _run(CONFIG, "--study=s", f"--output={tmp_path / name}")
    assert code == 2
    assert "--output: expected a folder without ? % { } in its path" in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("sqlite:////no/such/folder/s.db", "--storage: sqlite:////no/such/folder/s.db cannot be"),
        ("nonsense", "--storage: expected a URL such as sqlite:///search.db"),
        ("postgresql://me:secret@127.0.0.1:1/s", "--storage: postgresql://me:***@127.0.0.1:1/s"),
    ],
)
def test_a_storage_that_cannot_be_reached(storage, message, tmp_path):
    code, _, err = _run(CONFIG, "--study=s", f"--output={tmp_path}", f"--storage={storage}")
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert message in last
    assert "secret" not in err


@pytest.mark.slow
def test_a_search_is_killed_and_goes_on_with_two_workers(tmp_path):
    arguments = (CONFIG, "--study=digits", f"--output={tmp_path}", "--trials=3")
    with _start(*arguments) as process:
        assert process.stdout.readline().startswith("digits: 576 networks in the space, 3 trials")
        assert process.stdout.readline().startswith("Note: the networks are chosen by the test")
        assert process.stdout.readline().startswith("[1 of 3] trial 0: reward 0.")
        process.kill()
    code, out, err = _run(*arguments, "--workers=2")
    assert code == 0, err
    assert "\nBest: trial " in out
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["finished"] * 3
    assert all(float(row["step_seconds"]) > 0 for row in rows)
    assert {float(row["reference_step_seconds"]) for row in rows} == {
        float(rows[0]["step_seconds"])
    }
    best = load_recipe(tmp_path / "best.yaml")
    assert best.training.epochs == 30
    assert best.name == "quickstart, searched"


@pytest.mark.slow
def test_cells_are_searched_and_the_best_recipe_is_a_nasnets(tmp_path):
    config = "--config=configs/search_cells_digits.yaml"
    short = (
        "--set=proxy={training.epochs: 1, progressive.stages: 1, progressive.image_size: [8, 8]}"
    )
    code, out, err = _run(config, "--study=cells", f"--output={tmp_path}", "--trials=3", short)
    assert code == 0, err
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["finished"] * 3
    first = rows[0]  # the recipe's own cells
    assert first["step_seconds"] == first["reference_step_seconds"]
    assert float(first["reward"]) == pytest.approx(float(first["accuracy"]))
    assert first["normal.block1.left_op"] == "sep_conv_3x3"
    chosen = max(rows, key=lambda row: float(row["reward"]))
    best = load_recipe(tmp_path / "best.yaml")
    assert best.training.epochs == 30
    assert best.model.genotype.reduction.blocks[1].right_op == chosen["reduction.block2.right_op"]
    assert "Note: the networks are chosen by the test split" in out
    assert f"{tmp_path / 'best_cells.png'}: its cells" in out
    assert (tmp_path / "best_cells.png").read_bytes().startswith(b"\x89PNG")
