"""`python -m effnetv2_tf.compound_search`: the list, the comparison, and one-line errors."""

import os
import subprocess
import sys

import pytest

TINY = (
    "--config=configs/quickstart.yaml",
    "--set=model.width=0.25",
    "--set=model.depth=0.25",
    "--set=model.head_filters=16",
)


def _run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "effnetv2_tf.compound_search", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )


def test_the_comparison():
    done = _run("--compare")
    assert done.returncode == 0, done.stderr
    assert "\nb7     7.05   7.27   6.21  1.958   2.0 +0.042  3.616   3.1 -0.516 " in done.stdout
    assert "width follows the rule in 7 of 7: b1, b2, b3, b4, b5, b6, b7\n" in done.stdout
    assert "depth follows the rule in 2 of 7: b1, b2\n" in done.stdout


def test_a_dry_run_lists_the_candidates():
    values = ("--alpha=1,1.2", "--beta=1.1,1.4", "--gamma=1,1.15", "--tolerance=0.1")
    done = _run(*TINY, *values, "--dry_run")
    assert done.returncode == 0, done.stderr
    head, columns, *rows = done.stdout.strip().splitlines()
    assert head.startswith("2 candidates, 2 different networks; unscaled: ")
    assert head.endswith(" M multiply-adds at 32 px")
    assert columns.split()[:3] == ["alpha", "beta", "gamma"]
    assert {tuple(row.split()[:7]) for row in rows} == {
        # alpha, beta, gamma, product, depth and width times 0.25, 32 px * 1.15 = 36.8 to 40
        ("1", "1.4", "1", "1.960", "0.250", "0.350", "32"),
        ("1.2", "1.1", "1.15", "1.920", "0.300", "0.275", "40"),
    }
    for row in rows:
        parameters, multiply_adds = row.split()[7:9]
        assert int(parameters.replace(",", "")) > 1000
        assert float(multiply_adds.replace(",", "")) > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config: expected a recipe"),
        (TINY, "--output: expected a folder"),
        ((*TINY, "--dry_run", "--alpha=0.9"), "grid: `alpha` must be a finite number of at least"),
        ((*TINY, "--dry_run", "--alpha=1,x"), "--alpha: expected numbers, received '1,x'"),
        ((*TINY, "--dry_run", "--step=0"), "grid: `step` must lie in (0, 1]"),
        (
            (*TINY, "--dry_run", "--alpha=1", "--beta=1", "--gamma=1"),
            "the nearest product is 1 (alpha 1, beta 1, gamma 1); a tolerance of 1 would take it",
        ),
        ((*TINY, "--dry_run", "--set=model.widht=2"), "widht: unknown key; did you mean 'width'"),
        (
            ("--config=configs/reduced_resolution_fashion_mnist.yaml", "--dry_run"),
            "reduced_resolution: expected none, received one: sizes that are scaled do not keep",
        ),
        (("--config=/no/such.yaml", "--dry_run"), "expected a recipe file"),
        ((*TINY, "--dry_rum"), "dry_rum"),
    ],
)
def test_wrong_use_is_one_line_and_2(arguments, message):
    done = _run(*arguments)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert done.stdout == ""


def test_another_phi_in_the_same_folder_is_refused(tmp_path):
    (tmp_path / "search.json").write_text('{"phi": 2.0}')
    done = _run(*TINY, f"--output={tmp_path}", "--alpha=2", "--beta=1", "--gamma=1")
    assert done.returncode == 2
    assert f"error: --output: {tmp_path} holds a search with another recipe" in done.stderr
    assert "phi" in done.stderr
