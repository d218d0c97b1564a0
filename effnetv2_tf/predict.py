"""Classes of images: `python -m effnetv2_tf.predict IMAGE... --model_dir=RUN`.

Images are files, or folders with all images below them. The network is that of a training
run (`--model_dir`), one with published ImageNet weights (`--model=lite0`), or a `.keras` file
(`--file`). Exit code 0; 1 if a file that was named, or every one that was found, could not be
read; 2 for wrong use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.files import no_file

if TYPE_CHECKING:
    from effnetv2_tf.prediction import Prediction, Predictor, Unreadable
    from effnetv2_tf.prediction.files import FoundImages

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of a training run.")
_MODEL = flags.DEFINE_string("model", None, "A network with ImageNet weights, e.g. lite0.")
_FILE = flags.DEFINE_string("file", None, "A .keras file.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "last", programs.CHECKPOINT_HELP)
_LABELS = flags.DEFINE_string(
    "labels", None, "Class names of a .keras file: a text file, one a line, or 'imagenet'."
)
_CROP = flags.DEFINE_enum(
    "crop", None, ["center", "none"], "Crop, for a .keras file; the network's own by default."
)
_INTERPOLATION = flags.DEFINE_enum(
    "interpolation", None, ["bilinear", "bicubic"], "Of resizing, for a .keras file; likewise."
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Side in pixels; the network's own.", 8)
_TOP = flags.DEFINE_integer("top", 5, "Classes shown for each image.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images computed at once.", 1)
_CSV = flags.DEFINE_string("csv", None, "The CSV file to write.")
_JSON = flags.DEFINE_string("json", None, "The JSON file to write.")
_SHEET = flags.DEFINE_string("sheet", None, "The PNG file to write: images with their classes.")

_MOST_ON_SHEET = 100


def main(names: list[str]) -> None:
    _check_request(names)
    programs.import_tensorflow()
    from effnetv2_tf.prediction.files import find_images

    found = find_images(names)
    predictor = _open()
    programs.show(f"{predictor.origin}, {predictor.preparation.image_size} px")
    results = list(
        _shown(predictor.predict(found.files, top=_TOP.value, batch_size=_BATCH_SIZE.value))
    )
    _write(predictor, results, found)
    _report(results, found)


def _check_request(names: Sequence[str]) -> None:
    """What can be told without TensorFlow, whose import takes seconds."""
    if not names:
        raise UsageError("expected at least one image file or folder, received none; see --help")
    given = [flag for flag in (_MODEL_DIR, _MODEL, _FILE) if flag.value is not None]
    if len(given) != 1:
        received = " and ".join(f"--{flag.name}" for flag in given) or "none"
        raise UsageError(f"expected one of --model_dir, --model, --file, received {received}")
    _check_no_flag_is_idle(given[0])
    if _MODEL.value is not None:
        from effnetv2_tf.models.names import find_spec

        try:
            find_spec(_MODEL.value)
        except UsageError as error:
            raise UsageError(f"--model: {error}") from error
    if _MODEL_DIR.value is not None:
        from effnetv2_tf.export.requests import check_run_folder

        check_run_folder(Path(_MODEL_DIR.value))
    if _FILE.value is not None and not Path(_FILE.value).is_file():
        raise UsageError(f"--file: expected a .keras file, {no_file(_FILE.value)}")
    for flag in (_CSV, _JSON, _SHEET):
        programs.check_output_file(flag)
    missing = [name for name in names if not Path(name).exists()]
    if len(missing) == len(names):
        raise UsageError(f"no such file or folder: {programs.listed(missing)}")


def _check_no_flag_is_idle(network: flags.FlagHolder) -> None:
    """Raises a UsageError for a flag that was given and would change nothing."""
    of_a_file: tuple[flags.FlagHolder, ...] = (_LABELS, _CROP, _INTERPOLATION)
    for flag, owner in ((_CHECKPOINT, _MODEL_DIR), *((flag, _FILE) for flag in of_a_file)):
        if flag.present and owner is not network:
            raise UsageError(
                f"--{flag.name}: expected with --{owner.name} alone, received it with "
                f"--{network.name}"
            )


def _open() -> Predictor:
    """The network that is asked for."""
    from effnetv2_tf.prediction import networks

    if _MODEL_DIR.value is not None:
        return networks.open_run(_MODEL_DIR.value, _CHECKPOINT.value, image_size=_IMAGE_SIZE.value)
    if _MODEL.value is not None:
        return networks.open_pretrained(_MODEL.value, _IMAGE_SIZE.value)
    labels = None if _LABELS.value is None else networks.read_labels(_LABELS.value)
    crop = cast(Literal["center", "none"] | None, _CROP.value)
    path = Path(_FILE.value or "")
    if path.with_name("recipe.yaml").is_file():
        print(
            f"Note: a .keras file does not tell how its images are prepared; "
            f"--model_dir={path.parent} prepares them as the run evaluated them"
        )
    interpolation = cast(Literal["bilinear", "bicubic"] | None, _INTERPOLATION.value)
    return networks.open_file(path, labels, _IMAGE_SIZE.value, crop, interpolation)


def _shown(results: Iterable[Prediction | Unreadable]) -> Iterable[Prediction | Unreadable]:
    """The same results, each printed when it is there."""
    from effnetv2_tf.prediction import Prediction

    for result in results:
        if isinstance(result, Prediction):
            scores = (f"  {score.probability:7.2%}  {score.name}" for score in result.classes)
            programs.show("\n".join([str(result.file), *scores]))
        else:
            programs.show(f"{result.file}: skipped: {result.reason}")
        yield result


def _write(
    predictor: Predictor, results: Sequence[Prediction | Unreadable], found: FoundImages
) -> None:
    """The files that are asked for."""
    from effnetv2_tf.files import write_text
    from effnetv2_tf.prediction.files import as_csv, as_json

    texts = (
        (_CSV.value, lambda: as_csv(results), "surrogateescape"),  # names as they are
        (_JSON.value, lambda: as_json(predictor, results, found.others), "backslashreplace"),
    )
    for name, text, errors in texts:
        if name is not None:
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text(), errors)
            print(f"Wrote {path}")
    if _SHEET.value is not None:
        _draw_sheet(predictor, results, Path(_SHEET.value))


def _draw_sheet(
    predictor: Predictor, results: Sequence[Prediction | Unreadable], path: Path
) -> None:
    from effnetv2_tf.prediction import Prediction, Unreadable
    from effnetv2_tf.reporting.contact_sheet import SheetEntry, draw_contact_sheet

    predictions = [result for result in results if isinstance(result, Prediction)]
    entries = []
    for prediction in predictions[:_MOST_ON_SHEET]:
        pixels = predictor.read(prediction.file)
        if not isinstance(pixels, Unreadable):
            classes = tuple((score.name, score.probability) for score in prediction.classes)
            entries.append(SheetEntry(pixels, prediction.file.name, classes))
    if not entries:
        print(f"No image could be read: {path} is not written")
        return
    count = f"{len(predictions)} images"
    if len(entries) < len(predictions):
        count = f"the first {len(entries)} of {count}"
    draw_contact_sheet(entries, path, f"{predictor.origin}: {count}")
    print(f"Wrote {path}")


def _report(results: Sequence[Prediction | Unreadable], found: FoundImages) -> None:
    """Says what was left out; fails if that was named by the user, or is everything."""
    from effnetv2_tf.prediction import Unreadable

    unreadable = [result for result in results if isinstance(result, Unreadable)]
    in_folders = [str(r.file) for r in unreadable if r.file not in found.named]
    if found.others:
        names = programs.listed(map(str, found.others))
        print(f"Skipped {len(found.others)} files without an image's extension: {names}")
    if in_folders:
        print(f"Skipped {len(in_folders)} unreadable images: {programs.listed(in_folders)}")
    failed = [f"{r.file} ({r.reason})" for r in unreadable if r.file in found.named]
    if failed:
        raise TrainingFailure(
            f"{len(failed)} of {len(found.named)} named files could not be read: "
            f"{programs.listed(failed)}"
        )
    if len(unreadable) == len(results):
        raise TrainingFailure(f"none of the {len(results)} images that were found could be read")


if __name__ == "__main__":
    programs.run_with_arguments(main)
