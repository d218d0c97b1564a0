"""A run's ids keep their names: data with other classes is refused, never evaluated or labelled."""

import json
import shutil

import pytest

from effnetv2_tf.data.sources import SourceInfo
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.loading import load_model_dir
from effnetv2_tf.training.checkpoints import CheckpointFolder, read_checkpoint, write_checkpoint
from effnetv2_tf.training.class_names import check_class_names
from effnetv2_tf.training.runs import open_run
from effnetv2_tf.training.trainer import Trainer

CLASSES = ("cat", "dog", "fox")
IMAGES_EACH = 4


class Trained:
    """A finished run, and its data in a folder that may be changed."""

    def __init__(self, folder, recipe):
        self.images, self.run, self.recipe = folder / "images", folder / "run", recipe

    @property
    def summary(self):
        return json.loads((self.run / "summary.json").read_text())

    def train(self):
        Trainer(self.recipe, self.run, verbose=0).run()

    def forget_names(self):
        """Makes the checkpoints those of an earlier version."""
        for path in CheckpointFolder(self.run / "checkpoints").by_step():
            checkpoint = read_checkpoint(path)
            metadata = {k: v for k, v in checkpoint.metadata.items() if k != "class_names"}
            write_checkpoint(path, checkpoint.arrays, metadata)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def trained(kept, tmp_path, write_classes, make_recipe):
    """Each test's own copy of one finished run."""
    options = {"directory": str(kept / "images"), "validation_share": 0.25}
    data = {"source": "image_folder", "options": options, "eval_split": "validation"}
    if not kept.joinpath("run").exists():
        write_classes(kept / "images", CLASSES, IMAGES_EACH)
        Trained(kept, make_recipe(data)).train()
    folder = tmp_path / "copy"
    shutil.copytree(kept, folder)
    text = (folder / "run" / "recipe.yaml").read_text()
    (folder / "run" / "recipe.yaml").write_text(text.replace(str(kept), str(folder)))
    data["options"] = {**options, "directory": str(folder / "images")}
    return Trained(folder, make_recipe(data))


def _rename(trained):
    (trained.images / "fox").rename(trained.images / "ant")


def _add(trained):
    shutil.copytree(trained.images / "fox", trained.images / "ape")


def _remove(trained):
    shutil.rmtree(trained.images / "fox")


OTHER_CLASSES = [
    (_rename, "ant, cat, dog"),
    (_add, "ape, cat, dog, fox"),
    (_remove, "cat, dog"),
]


@pytest.mark.parametrize(("change", "now"), OTHER_CLASSES, ids=["renamed", "added", "removed"])
def test_data_with_other_classes_is_not_evaluated(trained, change, now):
    change(trained)
    with pytest.raises(UsageError) as caught:
        open_run(trained.run)
    assert f"data: {trained.images}: classes {now} differ from the run's cat, dog, fox; " in str(
        caught.value
    )


@pytest.mark.parametrize("with_summary", [True, False])
def test_the_finished_run_keeps_its_summary(trained, with_summary):
    before = trained.summary
    if not with_summary:  # as in a run that was interrupted
        (trained.run / "summary.json").unlink()
    _rename(trained)
    with pytest.raises(UsageError, match="ant, cat, dog differ from the run's cat, dog, fox"):
        trained.train()
    assert (trained.run / "summary.json").exists() == with_summary
    if with_summary:
        assert trained.summary == before


def test_export_keeps_the_runs_labels(trained):
    (trained.run / "summary.json").unlink()
    _rename(trained)
    exportable = load_model_dir(trained.run)
    assert exportable.labels == CLASSES
    with pytest.raises(UsageError, match="ant, cat, dog differ from the run's cat, dog, fox"):
        exportable.images.held_out(exportable.preparation, 3)


def test_the_summary_tells_the_names_of_an_earlier_versions_run(trained):
    trained.forget_names()
    assert open_run(trained.run).evaluation.info.class_names == CLASSES
    _rename(trained)
    with pytest.raises(UsageError, match="ant, cat, dog differ from the run's cat, dog, fox"):
        open_run(trained.run)
    (trained.run / "summary.json").unlink()  # now nothing tells
    assert open_run(trained.run).evaluation.info.class_names == ("ant", "cat", "dog")


def test_a_damaged_summary_is_named_where_it_is_needed(trained):
    (trained.run / "summary.json").write_text('{"class_na')
    assert open_run(trained.run).evaluation.info.class_names == CLASSES
    trained.forget_names()
    with pytest.raises(UsageError, match=r"summary\.json: damaged: expected class_names"):
        open_run(trained.run)


NAMES = tuple(f"n{number:04d}" for number in range(1000))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("new", *NAMES[1:-1]),
            "its 999 classes differ from the run's 1000: new: new; missing: n0000, n0999",
        ),
        (NAMES[20:], "differ from the run's 1000: new: none; missing: n0000, n0001, n0002"),
        (NAMES[20:], "n0010, n0011 and 8 more; "),
        (
            (*NAMES[:5], NAMES[6], NAMES[5], *NAMES[7:]),
            "its 1000 classes are the run's in another order: class 5 is 'n0006', expected 'n0005'",
        ),
    ],
)
def test_of_many_classes_those_that_differ_are_named(names, expected):
    info = SourceInfo("many", 2000, len(names), names, channels=3, encoded=True)
    with pytest.raises(UsageError) as caught:
        check_class_names(info, NAMES)
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 300
    check_class_names(info, names)
