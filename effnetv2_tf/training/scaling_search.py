"""A small grid search for compound scaling's alpha, beta and gamma: every candidate is trained.

EfficientNet (arXiv 1905.11946), section 3.3, step 1: at phi = 1, those coefficients under
alpha * beta^2 * gamma^2 ~ 2 that make the most accurate network.

The folder of a search has recipe.yaml and search.json (what was asked for),
candidates/<name>/ (an ordinary run each, with train.log and, once it has ended, result.json),
and, written anew after every candidate, results.csv, summary.json and scaling_search.png.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.files import write_text
from effnetv2_tf.models.compound_scaling import Coefficients
from effnetv2_tf.reporting.numbers import short_duration
from effnetv2_tf.reporting.scaling_search import draw_scaling_search, ranked
from effnetv2_tf.training import build
from effnetv2_tf.training.interruptions import only_run_in
from effnetv2_tf.training.isolated_run import LOG_NAME, train_isolated
from effnetv2_tf.training.monitors import rows_to_csv
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import dump_recipe
from effnetv2_tf.training.run_summary import git_revision, versions
from effnetv2_tf.training.scaling_candidates import (
    Candidate,
    Result,
    first_of_each_network,
    make_candidates,
    results_in_order,
    waiting_result,
)

SEARCH_NAME = "search.json"
RESULT_NAME = "result.json"


class ScalingSearch:
    """Trains the candidates one after the other, going on where an earlier search stopped.

    All candidates have the recipe's seed, so they see the same images in the same order. The
    accuracy that decides is that on the recipe's evaluation split: for an unbiased figure of
    the winner, evaluate it on images that took no part.

    Args:
      recipe: what each candidate is trained by; its network is the one at phi = 0.
      grid: the coefficients to try; it may change from session to session.
      output: the search's folder.
      phi: of the candidates.
      retry_failed: whether candidates that failed before are trained again.
      train: trains a recipe in a folder, going on where it stopped, and returns the summary.

    Raises:
      UsageError: if the recipe, the data or the folder cannot be used.
    """

    def __init__(
        self,
        recipe: Recipe,
        grid: Sequence[Coefficients],
        output: Path,
        *,
        phi: float = 1.0,
        retry_failed: bool = False,
        train: Callable[[Recipe, Path], dict[str, Any]] = train_isolated,
    ) -> None:
        self.recipe = recipe
        self.output = Path(output)
        self.phi = phi
        self.candidates = make_candidates(recipe, grid, phi)
        self._retry_failed = retry_failed
        self._train = train
        self._check_folder()
        source = build.open_sources(recipe).train
        self._classes, self._channels = source.info.num_classes, build.channels_of(recipe, source)
        for candidate in self.candidates:
            build.build_schedule(candidate.recipe, source.info.num_examples)

    def run(self) -> dict[str, Any]:
        """Trains what is not trained yet; returns the summary.

        Raises:
          UsageError: if the folder cannot be written to, or another search runs in it.
          TrainingFailure: if no candidate could be trained.
          RunStopped: if asked to stop; the same search goes on where it was.
        """
        self._claim_folder()
        with only_run_in(self.output, "--output", "another search runs"):
            return self._run()

    def _run(self) -> dict[str, Any]:
        first_of = first_of_each_network(self.candidates)
        networks = [c for c in self.candidates if first_of[c.name] is c]
        results: dict[str, Result] = {}
        for candidate in self.candidates:  # whichever of equal networks an earlier grid had
            recorded = self._recorded(candidate)
            if recorded is not None:
                results.setdefault(first_of[candidate.name].name, recorded)
        waiting = [c for c in networks if c.name not in results]
        print(
            f"{len(self.candidates)} candidates, {len(networks)} different networks: "
            f"{len(results)} done before, {len(waiting)} to train"
        )
        summary = self._publish(results)
        began = time.perf_counter()
        for number, candidate in enumerate(waiting, start=1):
            results[candidate.name] = self._train_one(candidate, f"{number} of {len(waiting)}")
            summary = self._publish(results)
            if number < len(waiting):
                seconds = (time.perf_counter() - began) / number * (len(waiting) - number)
                print(f"  about {short_duration(seconds)} left", flush=True)
        if summary["best"] is None:
            first = next(iter(results.values()))
            raise TrainingFailure(
                f"none of the {len(networks)} networks could be trained; {first.candidate}: "
                f"{first.reason}"
            )
        return summary

    def _train_one(self, candidate: Candidate, number: str) -> Result:
        """Trains a candidate and records what came of it."""
        result = waiting_result(candidate, self._classes, self._channels)
        folder = self._folder(candidate)
        values = ", ".join(f"{k} {v:g}" for k, v in asdict(candidate.coefficients).items())
        print(
            f"[{number}] {values}: {result.parameters:,} parameters, "
            f"{result.multiply_adds / 1e6:,.1f} M multiply-adds at {result.image_size} px; "
            f"see {folder / LOG_NAME}",
            flush=True,
        )
        try:
            summary = self._train(candidate.recipe, folder)
        except (TrainingFailure, UsageError) as error:
            result = replace(result, status="failed", reason=str(error))
            print(f"  failed: {error}")
        else:
            accuracy, seconds = summary["accuracy"], summary["train_seconds"]
            result = replace(result, status="finished", accuracy=accuracy, train_seconds=seconds)
            print(f"  {accuracy:.2%} after {short_duration(seconds)} of training")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / RESULT_NAME, json.dumps(asdict(result), indent=2) + "\n")
        return result

    def _folder(self, candidate: Candidate) -> Path:
        return self.output / "candidates" / candidate.name

    def _recorded(self, candidate: Candidate) -> Result | None:
        """The result of an earlier session, or None if the candidate is to be trained."""
        path = self._folder(candidate) / RESULT_NAME
        if not path.is_file():
            return None
        try:
            result = Result(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: damaged ({error}); remove it to train again") from error
        return None if result.status == "failed" and self._retry_failed else result

    def _publish(self, results: dict[str, Result]) -> dict[str, Any]:
        """Writes results.csv, summary.json and the picture; returns the summary."""
        rows = [asdict(result) for result in results_in_order(self.candidates, results)]
        best = next((row for row in ranked(rows) if row["accuracy"] is not None), None)
        summary = {
            "recipe": self.recipe.name,
            "phi": self.phi,
            "candidates": len(self.candidates),
            "finished": sum(row["status"] == "finished" for row in rows),
            "failed": sum(row["status"] == "failed" for row in rows),
            "best": best,
            "results": rows,
            "seed": self.recipe.seed,
            "versions": versions(),
            "git_revision": git_revision(),
        }
        write_text(self.output / "results.csv", rows_to_csv(rows))
        write_text(self.output / "summary.json", json.dumps(summary, indent=2) + "\n")
        done = f"{len(rows)} of {len(self.candidates)} candidates"
        title = f"{self.recipe.name}, phi {self.phi:g}: {done}"
        draw_scaling_search(rows, self.output / "scaling_search.png", title)
        return summary

    def _check_folder(self) -> None:
        """Refuses a folder that holds something else than a search by this recipe and phi."""
        path = self.output / SEARCH_NAME
        if not path.is_file():
            if (self.output / "recipe.yaml").exists():
                raise UsageError(
                    f"--output: {self.output} holds a training run; choose another folder"
                )
            return
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path}: damaged; choose another folder, or remove it") from error
        asked = self._asked()
        changed = sorted(k for k in saved.keys() | asked.keys() if saved.get(k) != asked.get(k))
        if changed:
            raise UsageError(
                f"--output: {self.output} holds a search with another recipe: "
                f"{', '.join(changed)} differ; choose another folder, or remove it"
            )

    def _claim_folder(self) -> None:
        """Makes the folder and writes what is asked for."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            write_text(self.output / SEARCH_NAME, json.dumps(self._asked(), indent=2) + "\n")
            write_text(self.output / "recipe.yaml", dump_recipe(self.recipe))
        except OSError as error:
            raise UsageError(f"--output: cannot write to {self.output}: {error}") from error

    def _asked(self) -> dict[str, Any]:
        """What decides the candidates' results: plain values by dotted key."""
        return {"phi": self.phi, **_flat(self.recipe.decisive_values())}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        values |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return values
