"""Training at a reduced size, then fine-tuning the last layers at the test size: one run."""

import keras
import numpy as np
import pytest

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.training import build
from effnetv2_tf.training.recipe_files import dump_recipe, load_recipe, parse_recipe
from effnetv2_tf.training.trainer import Trainer

STAGES = [
    {"block": "fused", "stride": 2, "expansion": 1, "filters": 8, "repeats": 1},
    {"block": "mbconv", "stride": 1, "expansion": 2, "filters": 8, "repeats": 1, "se_ratio": 0.25},
]
STEPS = 1437 // 256


def _tree(**changes):
    """Two epochs at 8 px and one at 12 px; `section={key: value}` replaces keys."""
    tree = {
        "name": "reduced",
        "model": {
            "name": "efficientnetv2-b0",
            "stem_filters": 8,
            "stem_stride": 1,
            "head_filters": 16,
            "stages": STAGES,
        },
        "data": {
            "source": "digits",
            "augmentation": {
                "crop": "pad",
                "flip": True,
                "policy": "none",
                "mixing": "both",
                "cutmix_lambda": 0.85,
            },
            "eval_size": 12,
            "eval_crop": "none",
            "eval_batch_size": 180,
        },
        "training": {"epochs": 2, "batch_size": 256, "ema_decay": 0.5, "ema_every": "epoch"},
        "progressive": {"stages": 1, "mixup_alpha": [0.1, 0.1]},
        "reduced_resolution": {"modulo": 4, "fine_tune_epochs": 1, "learning_rate_per_256": 0.002},
        "learning_rate": {"per_256": 0.01, "warmup_epochs": 0.5},
        "checkpoints": {"every_steps": 2},
    }
    for section, values in changes.items():
        tree[section] = {**tree[section], **values}
    return tree


def test_a_size_that_the_section_says_is_not_rounded():
    tree = _tree(data={"eval_size": 380}, reduced_resolution={"modulo": 32})
    assert parse_recipe(tree).progressive.last_size == 252
    tree["progressive"]["image_size"] = None
    assert parse_recipe(tree).progressive.last_size == 252


def test_a_rounded_size_that_does_not_fit_names_the_rounding():
    tree = _tree(data={"eval_size": 380}, reduced_resolution={"modulo": 32})
    tree["progressive"]["size_multiple"] = 8
    with pytest.raises(UsageError, match=r"received 256.*size_multiple \(8\) made 256 of 252"):
        parse_recipe(tree)


def test_a_modulo_that_is_no_multiple_of_the_total_stride():
    recipe = parse_recipe(_tree(reduced_resolution={"modulo": 3}))
    with pytest.raises(UsageError, match="modulo: expected a multiple of 2, the total stride of "):
        build.build_model(recipe, 10, 1)


class _Watch(keras.callbacks.Callback):
    """Weights at the epochs' beginnings and averages at their ends; stops before a step."""

    def __init__(self, trainer, stop_at=None):
        super().__init__()
        self.trainer, self.stop_at = trainer, stop_at
        self.weights = list(trainer.model.weights)  # freezing changes their order in Keras 2
        self.begins, self.raw_ends, self.averages = [], [], []

    def values(self):
        return [weight.numpy() for weight in self.weights]

    def on_epoch_begin(self, epoch, logs=None):
        self.begins.append(self.values())

    def on_epoch_end(self, epoch, logs=None):
        self.raw_ends.append(self.values())
        self.averages.append([average.numpy() for average in self.trainer.ema.averages])

    def on_train_batch_end(self, batch, logs=None):
        if self.trainer.progressive.next_step == self.stop_at:
            raise KeyboardInterrupt


def _run(folder, stop_at=None, **changes):
    keras.utils.set_random_seed(0)
    trainer = Trainer(parse_recipe(_tree(**changes)), folder, verbose=0)
    watch = _Watch(trainer, stop_at)
    trainer.callbacks.append(watch)
    trainer.run()
    return trainer, watch


def _changed(model, before, after):
    names = [keras_compat.variable_path(weight).split("/")[0] for weight in model.weights]
    pairs = zip(names, before, after, strict=True)
    return {name for name, old, new in pairs if not np.array_equal(old, new)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("reduced") / "run")


TOP = {"head", "head_norm", "classifier"}


def test_sizes_learning_rates_and_phases(whole):
    trainer, _ = whole
    rows = trainer.records.rows
    assert [row["image_size"] for row in rows] == [8, 8, 12]
    assert [row["phase"] for row in rows] == [0, 0, 1]
    assert [row["mixup_alpha"] for row in rows] == [0.1, 0.1, 0.0]
    assert rows[1]["learning_rate"] > 0.001
    assert rows[2]["learning_rate"] == pytest.approx(0.0, abs=1e-9)  # a cosine of its own
    first = float(trainer.model.optimizer._learning_rate(2 * STEPS))
    assert first == pytest.approx(0.002)
    assert all("val_accuracy" in row for row in rows)


def test_fine_tuning_begins_with_the_averages_and_moves_the_top_alone(whole):
    trainer, watch = whole
    for weight, average in zip(watch.begins[2], watch.averages[1], strict=True):
        np.testing.assert_array_equal(weight, average)
    end = trainer.model.get_weights()
    assert _changed(trainer.model, watch.begins[2], end) == TOP
    for weight, average in zip(end, watch.averages[2], strict=True):  # averaged no further
        np.testing.assert_allclose(weight, average, atol=1e-7)
    assert _changed(trainer.model, watch.averages[0], watch.averages[1]) > TOP


def test_fine_tuning_does_not_go_on_where_the_raw_weights_were_going(tmp_path):
    """With next to no learning rate of its own; the one before, at its end, is large."""
    _, watch = _run(
        tmp_path / "run",
        reduced_resolution={"learning_rate_per_256": 1e-12},
        learning_rate={"decay": "constant"},
    )
    for weight, begin in zip(watch.weights, watch.begins[2], strict=True):
        path = keras_compat.variable_path(weight)
        if "moving_" not in path:
            np.testing.assert_allclose(weight.numpy(), begin, atol=1e-7, err_msg=path)


def test_the_averages_of_epochs(whole):
    """Of the first epoch its weights, then half and half."""
    _, watch = whole
    for weight, average in zip(watch.begins[1], watch.averages[0], strict=True):
        np.testing.assert_allclose(weight, average, atol=1e-7)
    for raw, first, second in zip(watch.raw_ends[1], *watch.averages[:2], strict=True):
        np.testing.assert_allclose(second, 0.5 * first + 0.5 * raw, atol=1e-6)


@pytest.mark.parametrize(
    "stop_at",
    [
        STEPS + 3,
        pytest.param(2 * STEPS, marks=pytest.mark.slow),
        2 * STEPS + 1,  # goes on from the checkpoint at the switch
        2 * STEPS + 3,
    ],
)
def test_a_run_that_was_stopped_within_an_epoch(whole, tmp_path, stop_at):
    """Weights and averages are those of the run that was not stopped."""
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "run", stop_at)
    trainer, _ = _run(tmp_path / "run")
    uninterrupted, _ = whole
    assert len(trainer.records.rows) == 3
    pairs = [
        *zip(trainer.model.weights, uninterrupted.model.weights, strict=True),
        *zip(trainer.ema.averages, uninterrupted.ema.averages, strict=True),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)


@pytest.mark.slow
def test_the_last_block_too(tmp_path):
    trainer, watch = _run(tmp_path / "run", reduced_resolution={"fine_tune": 1})
    end = trainer.model.get_weights()
    assert _changed(trainer.model, watch.begins[2], end) == {*TOP, "stage2_block1"}


def test_more_blocks_than_there_are(tmp_path):
    recipe = parse_recipe(_tree(reduced_resolution={"fine_tune": 3}))
    message = "reduced_resolution.fine_tune: expected at most 2 blocks, all of them, received 3"
    with pytest.raises(UsageError, match=message):
        Trainer(recipe, tmp_path / "run", verbose=0)


def test_after_loaded_weights_and_growing_sizes():
    """Head first, then everything, at two sizes; then the top at the test size."""
    sizes = {"stages": 2, "image_size": [8, 12], "mixup_alpha": None}
    tree = {
        **_tree(data={"eval_size": 16}, progressive=sizes),
        "fine_tuning": {"head_epochs": 9, "batch_norm": "training"},
    }
    recipe = parse_recipe(tree)
    schedule = build.build_schedule(recipe, 1437)
    assert [stage.image_size for stage in schedule.stages] == [8, 12, 16]
    assert [stage.preprocessing for stage in schedule.stages] == ["training"] * 2 + ["evaluation"]
    assert parse_recipe(recipe.model_dump()) == recipe


def test_the_size_that_is_picked_is_written_out():
    recipe = parse_recipe(_tree())
    assert recipe.progressive.image_size == (8, 8)
    assert "image_size:\n  - 8\n  - 8\n" in dump_recipe(recipe)
    given = parse_recipe(_tree(data={"eval_size": 24}, reduced_resolution={"image_size": 20}))
    assert given.progressive.image_size == (20, 20)
    shipped = load_recipe("configs/reduced_resolution_fashion_mnist.yaml")
    assert shipped.progressive.image_size == (32, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"eval_size": None}},
            "recipe: reduced_resolution: expected data.eval_size, .* received none",
        ),
        (
            {"data": {"eval_size": None}, "progressive": {"image_size": [8, 8]}},
            "recipe: reduced_resolution: expected data.eval_size, .* received none",
        ),
        (
            {"reduced_resolution": {"fine_tune": "head"}},
            "reduced_resolution.fine_tune: expected top or a number of blocks .* received 'head'",
        ),
        (
            {"reduced_resolution": {"modulo": 32}},
            "reduced_resolution: data.eval_size: `test_size` 12 leaves no smaller size",
        ),
        (
            {"reduced_resolution": {"image_size": 10}},
            r"reduced_resolution.image_size: .* modulo 4 \(0\), received 10; the nearest is 8",
        ),
        (
            {"progressive": {"image_size": [8, 12]}},
            "reduced_resolution.image_size: .* smaller than the test size 12, .* received 12",
        ),
        (
            {"progressive": {"image_size": [8, 8], "size_multiple": 5}},
            "reduced_resolution.image_size: .* received 10; the nearest is 8",
        ),
        (
            {"progressive": {"image_size": [8, 8]}, "reduced_resolution": {"image_size": 4}},
            r"reduced_resolution.image_size: expected the size of .* \(8, by .*\), received 4",
        ),
        (
            {"progressive": {"cutmix_alpha": [0, 1]}},
            r"cutmix_lambda: expected no progressive.cutmix_alpha beside it, received \[0.0, 1.0\]",
        ),
        (
            {"data": {"augmentation": {"cutmix_lambda": 0.5}}},
            "cutmix_lambda: expected data.augmentation.mixing to be 'both', received 'either'",
        ),
        ({"training": {"ema_every": "epochs"}}, "ema_every: .*did you mean 'epoch'"),
    ],
)
def test_bad_recipes(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_recipe(_tree(**changes))
    assert "\n" not in str(caught.value)
