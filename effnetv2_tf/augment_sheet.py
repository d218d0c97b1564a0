"""Draws images as the network will see them: `python -m effnetv2_tf.augment_sheet --config=...`."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from effnetv2_tf import programs

_CONFIG = flags.DEFINE_string("config", None, "Recipe: a YAML file.", required=True)
_OUTPUT = flags.DEFINE_string("output", "augment_sheet.png", "The PNG file to write.")
_IMAGES = flags.DEFINE_integer("images", 8, "Images in each row.", lower_bound=1)
_SET = flags.DEFINE_multi_string("set", [], "Overrides one key of the recipe; repeatable.")


def main() -> None:
    programs.check_output_file(_OUTPUT)
    from effnetv2_tf.training.recipe_files import load_recipe

    recipe = load_recipe(_CONFIG.value, _SET.value)
    programs.import_tensorflow()
    from effnetv2_tf.reporting.augment_sheet import draw_augment_sheet
    from effnetv2_tf.training import build

    source = build.open_sources(recipe).train
    schedule = build.build_schedule(recipe, source.info.num_examples)
    pipeline = build.build_training_pipeline(recipe, source)
    path = Path(_OUTPUT.value)
    draw_augment_sheet(pipeline, schedule, _IMAGES.value, path, recipe.name)
    print(f"Wrote {path}")


if __name__ == "__main__":
    programs.run(main)
