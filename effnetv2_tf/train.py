"""Trains a network from a recipe: `python -m effnetv2_tf.train --config=... --model_dir=...`.

Run the same command again to go on after an interruption.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from effnetv2_tf import programs

if TYPE_CHECKING:
    from effnetv2_tf.training.recipe import Recipe

_CONFIG = flags.DEFINE_string("config", None, "Recipe: a YAML file.", required=True)
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of the run.", required=True)
_SET = flags.DEFINE_multi_string(
    "set", [], "Overrides one key of the recipe, e.g. --set training.epochs=5; repeatable."
)
_TPU = flags.DEFINE_string("tpu", None, "TPU to train on: a name, 'local' or grpc://...")
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker"],
    "How to spread the work: auto takes the TPU if one is named, all GPUs if there are several.",
)
_DEVICES = flags.DEFINE_list("devices", None, "Devices for --strategy=mirrored, e.g. GPU:0,GPU:1.")
_PROGRESS = flags.DEFINE_enum("progress", "bar", ["bar", "lines", "none"], "Progress output.")


def main() -> None:
    programs.check_not_empty(_MODEL_DIR, "the folder of the run")
    from effnetv2_tf.training.recipe_files import load_recipe

    recipe = load_recipe(_CONFIG.value, _SET.value)
    programs.import_tensorflow()
    from effnetv2_tf.kernels import operations
    from effnetv2_tf.training.distribution import choose_strategy
    from effnetv2_tf.training.trainer import train

    for note in _notes(recipe):
        print(note)
    strategy, reason = choose_strategy(_STRATEGY.value, _TPU.value, _DEVICES.value)
    print(reason)
    if advice := operations.advice():
        print(advice)
    verbose = {"bar": 1, "lines": 2, "none": 0}[_PROGRESS.value]
    summary = train(recipe, Path(_MODEL_DIR.value), strategy, verbose)
    report(summary, Path(_MODEL_DIR.value))


def _notes(recipe: Recipe) -> Iterator[str]:
    """What a recipe does that its author may not have meant."""
    if recipe.model.weights is None:
        yield f"{recipe.model.name} begins with random weights (model.weights names others)."
    warmup, epochs = recipe.learning_rate.warmup_epochs, recipe.training.epochs
    if warmup >= epochs:
        yield (
            f"Note: learning_rate.warmup_epochs ({warmup:g}) is not below training.epochs "
            f"({epochs}): the learning rate never reaches its peak."
        )


def report(summary: dict, model_dir: Path) -> None:
    """Prints the result and where the artefacts are."""
    print(
        f"\nHeld-out top-1 accuracy: {summary['accuracy']:.2%} on "
        f"{summary['evaluation_images']} images of {summary['evaluated_on']} at "
        f"{summary['evaluation_size']} px"
    )
    print(
        f"Training took {summary['train_seconds']:.0f} s, "
        f"{summary['images_per_second']:.0f} images/s"
    )
    for split, bad in summary["bad_records"].items():
        if bad["count"]:
            print(f"Left out {bad['count']} bad {split} records: {', '.join(bad['names'])}")
    print("Artefacts:")
    for name, what in (
        ("model.keras", "the trained network, for effnetv2_tf.load_model"),
        ("checkpoints", "to go on training, and the best one"),
        ("history.csv", "every epoch"),
        ("curves.png", "the same as a picture"),
        ("summary.json", "the result"),
        ("recipe.yaml", "the recipe with every default"),
    ):
        print(f"  {model_dir / name}: {what}")


if __name__ == "__main__":
    programs.run(main)
