"""Shows what a network is: `python -m effnetv2_tf.describe --model=efficientnetv2-s`.

Stages, sizes, parameters and multiply-adds as a table, with `--picture` as a picture too;
without a model, all networks in one table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError
from effnetv2_tf.files import no_file

if TYPE_CHECKING:
    from effnetv2_tf.description import Description

LIST = "list"

_MODEL = flags.DEFINE_string("model", None, f"Name of a network; {LIST!r} shows all.")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of a training run, instead.")
_FILE = flags.DEFINE_string("file", None, "A .keras file, instead.")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Image side in pixels; by default the size of evaluation.", 1
)
_PICTURE = flags.DEFINE_string("picture", None, "The PNG file to write.")
_JSON = flags.DEFINE_bool("json", False, "Prints JSON instead of a table.")


def main() -> None:
    programs.check_output_file(_PICTURE)
    description = _describe()
    if description is None:
        _print_list()
        return
    print(json.dumps(description.as_dict(), indent=2) if _JSON.value else description.text())
    if _PICTURE.value is not None:
        from effnetv2_tf.reporting.architecture import draw_architecture

        path = Path(_PICTURE.value)
        draw_architecture(description.stages, path, description.title)
        if not _JSON.value:
            print(f"Wrote {path}")


def _describe() -> Description | None:
    """The network that is asked for; None for the list of all."""
    given = [flag for flag in (_MODEL, _MODEL_DIR, _FILE) if flag.value is not None]
    if len(given) > 1:
        names = " and ".join(f"--{flag.name}" for flag in given)
        raise UsageError(f"expected one of --model, --model_dir, --file, received {names}")
    if _MODEL_DIR.value is not None:
        from effnetv2_tf.export.requests import check_run_folder

        check_run_folder(Path(_MODEL_DIR.value))
        programs.import_tensorflow()
        from effnetv2_tf.description import describe_run

        return describe_run(_MODEL_DIR.value, _IMAGE_SIZE.value)
    if _FILE.value is not None:
        if not Path(_FILE.value).is_file():
            raise UsageError(f"--file: expected a .keras file, {no_file(_FILE.value)}")
        programs.import_tensorflow()
        from effnetv2_tf.description import describe_file

        return describe_file(_FILE.value, _IMAGE_SIZE.value)
    if _MODEL.value in (None, LIST):
        for flag in (_PICTURE, _IMAGE_SIZE):
            if flag.value is not None:
                raise UsageError(f"--{flag.name}: expected with --model=NAME, received none")
        return None
    from effnetv2_tf.description import describe_spec
    from effnetv2_tf.models.names import find_nasnet, find_spec

    nasnet = find_nasnet(_MODEL.value)
    if nasnet is not None:
        programs.import_tensorflow()
        from effnetv2_tf.description import describe_nasnet

        return describe_nasnet(nasnet, _IMAGE_SIZE.value)
    try:
        return describe_spec(find_spec(_MODEL.value), _IMAGE_SIZE.value)
    except UsageError as error:
        raise UsageError(f"--model: {error}") from error


def _print_list() -> None:
    from effnetv2_tf.description import list_text, list_values
    from effnetv2_tf.models.families import SPECS
    from effnetv2_tf.models.nasnet_specs import NASNETS

    if _JSON.value:
        print(json.dumps(list_values([*SPECS.values(), *NASNETS.values()]), indent=2))
        return
    print(list_text(SPECS.values()))
    print(f"\n{', '.join(NASNETS)}: --model=NAME, which builds them, shows their costs")


if __name__ == "__main__":
    programs.run(main)
