"""Searches compound scaling's coefficients by training: `python -m effnetv2_tf.compound_search`.

`--config=... --output=...` trains every alpha, beta, gamma >= 1 of a grid with
alpha * beta^2 * gamma^2 ~ 2 (EfficientNet, arXiv 1905.11946, section 3.3) on the recipe; the
same command again goes on after an interruption. `--config=... --dry_run` lists the
candidates. `--compare` shows how far EfficientNet-B1 to B7 follow the rule.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError

if TYPE_CHECKING:
    from effnetv2_tf.models.compound_scaling import Coefficients
    from effnetv2_tf.training.recipe import Recipe

_CONFIG = flags.DEFINE_string("config", None, "Recipe that every candidate is trained by.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the search.")
_SET = flags.DEFINE_multi_string("set", [], "Overrides one key of the recipe; repeatable.")
_STEP = flags.DEFINE_float("step", 0.1, "Of the grid: 1, 1 + step, 1 + 2 step ...")
_TARGET = flags.DEFINE_float("target", 2.0, "What alpha * beta^2 * gamma^2 should be.")
_TOLERANCE = flags.DEFINE_float("tolerance", 0.1, "By how much it may differ.")
_PHI = flags.DEFINE_float("phi", 1.0, "Depth grows alpha^phi times, and so on.")
_VALUES = {
    name: flags.DEFINE_list(name, None, f"Values of {name} to try, e.g. 1,1.15,1.3; not the grid's")
    for name in ("alpha", "beta", "gamma")
}
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "List the candidates and end.")
_RETRY_FAILED = flags.DEFINE_bool("retry_failed", False, "Train failed candidates again.")
_COMPARE = flags.DEFINE_bool("compare", False, "Compare the rule with B1 to B7 and end.")


def main() -> None:
    if _COMPARE.value:
        _compare()
        return
    if _CONFIG.value is None:
        raise UsageError("--config: expected a recipe, received none; or give --compare")
    programs.check_output_folder(_OUTPUT)
    if _OUTPUT.value is None and not _DRY_RUN.value:
        raise UsageError("--output: expected a folder, received none; or give --dry_run")
    from effnetv2_tf.training.recipe_files import load_recipe

    recipe = load_recipe(_CONFIG.value, _SET.value)
    grid = _grid()
    programs.import_tensorflow()
    import tensorflow as tf

    # This process only counts and keeps the records: the candidates need the memory of GPUs.
    tf.config.set_visible_devices([], "GPU")
    if _DRY_RUN.value:
        _list(recipe, grid)
    else:
        _search(recipe, grid, Path(_OUTPUT.value or ""))


def _grid() -> tuple[Coefficients, ...]:
    from effnetv2_tf.models.compound_scaling import scaling_grid

    given = {f"{name}s": _numbers(name, flag.value) for name, flag in _VALUES.items()}
    try:
        return scaling_grid(
            step=_STEP.value, target=_TARGET.value, tolerance=_TOLERANCE.value, **given
        )
    except ValueError as error:
        raise UsageError(f"grid: {error}") from error


def _numbers(name: str, texts: list[str] | None) -> list[float] | None:
    if texts is None:
        return None
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise UsageError(f"--{name}: expected numbers, received {','.join(texts)!r}") from error


def _list(recipe: Recipe, grid: tuple[Coefficients, ...]) -> None:
    """Prints the candidates with their parameters and multiply-adds."""
    from dataclasses import asdict

    from effnetv2_tf.models.compound_scaling import Coefficients
    from effnetv2_tf.reporting.scaling_search import scaling_table
    from effnetv2_tf.training import build, scaling_candidates

    candidates = scaling_candidates.make_candidates(recipe, grid, _PHI.value)
    networks = {c.name: c for c in scaling_candidates.first_of_each_network(candidates).values()}
    source = build.open_sources(recipe).train
    classes, channels = source.info.num_classes, build.channels_of(recipe, source)
    results = {
        name: scaling_candidates.waiting_result(candidate, classes, channels)
        for name, candidate in networks.items()
    }
    rows = [asdict(r) for r in scaling_candidates.results_in_order(candidates, results)]
    (unscaled,) = scaling_candidates.make_candidates(recipe, [Coefficients(1, 1, 1)])
    base = scaling_candidates.waiting_result(unscaled, classes, channels)
    print(
        f"{len(candidates)} candidates, {len(networks)} different networks; unscaled: "
        f"{base.parameters:,} parameters, {base.multiply_adds / 1e6:,.1f} M multiply-adds at "
        f"{base.image_size} px"
    )
    print(scaling_table(rows))


def _search(recipe: Recipe, grid: tuple[Coefficients, ...], output: Path) -> None:
    from effnetv2_tf.reporting.scaling_search import scaling_table
    from effnetv2_tf.training.scaling_search import ScalingSearch

    search = ScalingSearch(recipe, grid, output, phi=_PHI.value, retry_failed=_RETRY_FAILED.value)
    summary = search.run()
    best = summary["best"]
    print(f"\n{scaling_table(summary['results'])}\n")
    print(
        f"Best: alpha {best['alpha']:g}, beta {best['beta']:g}, gamma {best['gamma']:g}: "
        f"{best['accuracy']:.2%} of the images that decided it, one seed"
    )
    if summary["failed"]:
        print(f"{summary['failed']} candidates failed; --retry_failed trains them again")
    print("Artefacts:")
    for name, what in (
        ("results.csv", "every candidate"),
        ("summary.json", "the same, and the best"),
        ("scaling_search.png", "accuracy against alpha, beta, gamma and multiply-adds"),
        ("candidates", "an ordinary run for each"),
    ):
        print(f"  {output / name}: {what}")


def _compare() -> None:
    from effnetv2_tf.models.published_scaling import comparison_table, published_scaling

    rows = published_scaling()
    print(
        "EfficientNet-B1 to B7 beside depth 1.2^phi, width 1.1^phi, size 224 * 1.15^phi, with the"
    )
    print("phi that gives each published size. 'By hand': not the rule's number when rounded to")
    print("the published steps of 0.1, 0.1 and 4 px.\n")
    print(comparison_table(rows))
    for name in ("width", "depth"):
        following = [row.variant for row in rows if name not in row.set_by_hand]
        print(f"{name} follows the rule in {len(following)} of {len(rows)}: {', '.join(following)}")


if __name__ == "__main__":
    programs.run(main)
