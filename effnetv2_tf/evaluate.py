"""Evaluates a run: `python -m effnetv2_tf.evaluate --model_dir=... [--image_sizes=224,256]`."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from effnetv2_tf import programs

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of the run.", required=True)
_IMAGE_SIZES = flags.DEFINE_list(
    "image_sizes", None, "Sides in pixels, e.g. 224,256,288; the recipe's by default."
)
_IMAGES = flags.DEFINE_string("images", None, programs.IMAGES_HELP)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "last", programs.CHECKPOINT_HELP)
_RAW = flags.DEFINE_bool("raw_weights", False, "Evaluate the raw weights, not their averages.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the results; model_dir by default.")


def main() -> None:
    programs.check_output_folder(_OUTPUT)
    programs.check_not_empty(_IMAGES, "a folder or a CSV file")
    model_dir = Path(_MODEL_DIR.value)
    output = Path(_OUTPUT.value or model_dir)
    sizes = programs.parse_sizes("image_sizes", _IMAGE_SIZES.value)
    programs.import_tensorflow()
    from effnetv2_tf.training import build
    from effnetv2_tf.training.runs import open_run

    images = None if _IMAGES.value is None else Path(_IMAGES.value)
    run = open_run(model_dir, _CHECKPOINT.value, raw=_RAW.value, images=images)
    sizes = sizes or [build.evaluation_size(run.recipe)]
    print(
        f"{run.checkpoint.path} (step {run.checkpoint.step}, {run.weights} weights) on "
        f"{run.evaluation.info.name}"
    )
    results = _evaluate_sizes(run, sizes)
    write_results(run, results, output)


def _evaluate_sizes(run, sizes: list[int]) -> dict:
    from effnetv2_tf.training.runs import evaluate_run

    results = {}
    infer = _inference(run)
    print(f"{'size':>6} {'top-1':>8} {'top-5':>8} {'images':>8} {'images/s':>9}")
    for size in sizes:
        results[size] = result = evaluate_run(run, size, infer)
        speed = result.images_per_second
        print(
            f"{size:>6} {result.top_1:>8.2%} {result.top_5:>8.2%} {result.images:>8} "
            f"{'-' if speed is None else f'{speed:.1f}':>9}"
        )
    return results


def _inference(run):
    """The network folded, as for an export, which is faster; None where that is in doubt.

    A run in mixed precision is evaluated in that precision, and graphics cards have fast paths of
    their own for the network's layers.
    """
    import keras

    from effnetv2_tf import keras_compat
    from effnetv2_tf.prediction.inference import folded_inference

    if keras_compat.has_accelerator() or keras.mixed_precision.global_policy().name != "float32":
        return None
    return folded_inference(run.model)


def write_results(run, results: dict, output: Path) -> None:
    """Writes evaluation.json, and for every size the confusion matrix and each class's accuracy."""
    import json

    from effnetv2_tf.files import write_text
    from effnetv2_tf.reporting import confusion

    names = run.evaluation.info.class_names
    output.mkdir(parents=True, exist_ok=True)
    report = {
        "checkpoint": str(run.checkpoint.path),
        "step": run.checkpoint.step,
        "weights": run.weights,
        "data": run.evaluation.info.name,
        "sizes": {
            str(size): {"top_1": r.top_1, "top_5": r.top_5, "images": r.images}
            for size, r in results.items()
        },
    }
    write_text(output / "evaluation.json", json.dumps(report, indent=2) + "\n")
    for size, result in results.items():
        title = f"{run.recipe.name}, {size} px: {result.top_1:.2%}"
        picture = output / f"confusion_{size}.png"
        confusion.draw_confusion(result.confusion, names, picture, title)
        write_text(picture.with_suffix(".csv"), confusion.confusion_csv(result.confusion, names))
        classes = output / f"classes_{size}.csv"
        write_text(classes, confusion.classes_csv(result.confusion, names))
        print(f"Wrote {picture}, .csv and {classes}; most frequent mistakes:")
        for true, predicted, count in confusion.most_confused(result.confusion, names):
            print(f"  {true} taken for {predicted}: {count}")
    absent = confusion.classes_without_images(next(iter(results.values())).confusion, names)
    if absent:
        print(f"Note: there are no images of {programs.listed(absent)} to evaluate on")
    print(f"Wrote {output / 'evaluation.json'}")


if __name__ == "__main__":
    programs.run(main)
