"""Recipes: every shipped one loads and builds; whatever is wrong is said in one line."""

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from effnetv2_tf.errors import UsageError
from effnetv2_tf.training import build
from effnetv2_tf.training.learning_rates import FollowedBy, WarmUpDecay
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import (
    dump_recipe,
    load_recipe,
    packaged_recipes,
    parse_recipe,
)

CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
    if not path.name.startswith("search_")  # of `effnetv2_tf.search`: no recipes
]
GOOD = """
name: small
model: {name: efficientnetv2-b0}
data: {source: digits}
training: {epochs: 8, batch_size: 64}
progressive: {image_size: [16, 32]}
"""


def _recipe_file(folder, text=GOOD):
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_recipe_loads_and_builds(path, tiny_network):
    recipe = load_recipe(path)
    schedule = build.build_schedule(recipe, num_examples=1_281_167)
    optimizer = build.build_optimizer(recipe, schedule, tiny_network())
    spec = build.network_spec(recipe.model)
    reduced = recipe.reduced_resolution
    assert schedule.epochs == recipe.training.epochs + (reduced.fine_tune_epochs if reduced else 0)
    assert schedule.stages[-1].image_size <= build.evaluation_size(recipe)
    assert isinstance(optimizer._learning_rate, FollowedBy if reduced else WarmUpDecay)
    assert spec.stages
    assert recipe.name == path.stem


def test_there_are_shipped_recipes():
    assert {path.name for path in CONFIGS} == set(packaged_recipes())
    assert "quickstart.yaml" in packaged_recipes()


def test_a_shipped_recipe_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("configs/quickstart.yaml").name == "quickstart"
    assert load_recipe("quickstart.yaml").name == "quickstart"


def test_dump_and_load_are_inverse(tmp_path):
    recipe = load_recipe("configs/quickstart.yaml", ["training.class_weights={0: 1, 7: 2.5}"])
    text = dump_recipe(recipe)
    assert load_recipe(_recipe_file(tmp_path, text)) == recipe
    assert "final_share: 0.0" in text  # defaults are written out


def test_overrides(tmp_path):
    recipe = load_recipe(
        _recipe_file(tmp_path),
        [
            "training.epochs=5",
            "learning_rate.per_256=1e-2",
            "progressive.image_size=[8, 24]",
            "training.ema_decay=null",
            "data.augmentation.flip=false",
            "name=a=b",
        ],
    )
    assert recipe.training.epochs == 5
    assert recipe.learning_rate.per_256 == 0.01
    assert recipe.progressive.image_size == (8, 24)
    assert recipe.training.ema_decay is None
    assert recipe.data.augmentation.flip is False
    assert recipe.name == "a=b"


# Changes by --set, and what the message must hold.
WRONG = [
    ("training.epoch=5", ["training.epoch: unknown key", "did you mean 'epochs'?"]),
    ("trainning.epochs=5", ["trainning: unknown key", "did you mean 'training'?"]),
    ("data.augmentation.flipp=1", ["data.augmentation.flipp: unknown key", "'flip'"]),
    ("model.zzzz=1", ["model.zzzz: unknown key", "known: name, weights, new_classifier"]),
    ("training.epochs=many", ["training.epochs: ", "integer", "received 'many'"]),
    ("training.epochs=2.5", ["training.epochs: ", "integer", "received 2.5"]),
    ("training.epochs=0", ["training.epochs: ", "greater than or equal to 1", "received 0"]),
    ("training.epochs=null", ["training.epochs: ", "received None"]),
    ("progressive.stages=true", ["progressive.stages: ", "received True"]),
    ("training.ema_decay=1.5", ["training.ema_decay: ", "less than 1", "received 1.5"]),
    ("training.precision=bfloat16", ["training.precision: ", "did you mean 'mixed_bfloat16'"]),
    ("progressive.stages=9", ["progressive.stages: expected at most training.epochs (8)", "9"]),
    ("progressive.image_size=[7, 32]", ["progressive.image_size: ", "at least 8 pixels", "7"]),
    ("progressive.image_size=32", ["progressive.image_size: ", "received 32"]),
    ("progressive.image_size=[8, 9, 10]", ["progressive.image_size", "received"]),
    ("progressive.image_sizes=[8, 4]", ["progressive.image_sizes: expected 4 numbers"]),
    ("progressive.dropout_rate=[0, 1]", ["progressive.dropout_rate.1: ", "less than 1"]),
    ("progressive.crop_area_max=[0, 1]", ["progressive.crop_area_max.0: ", "greater than 0"]),
    ("learning_rate.per_256=.inf", ["learning_rate.per_256: ", "finite"]),
    ("learning_rate.per_256=-1", ["learning_rate.per_256: ", "greater than 0", "received -1"]),
    ("learning_rate.decay=cosin", ["learning_rate.decay: ", "did you mean 'cosine'?"]),
    ("model.stages=[{block: fused, filers: 8, repeats: 1}]", ["model.stages.0."]),
    ("data.channels=2", ["data.channels: ", "1 or 3", "received 2"]),
    ("data.num_classes=1", ["data.num_classes: ", "greater than or equal to 2"]),
    ("model=5", ["model: ", "received 5"]),
    ("training.epochs.x=5", ["--set training.epochs.x: 'epochs' is no section"]),
    ("training.epochs", ["--set: expected section.key=value, received 'training.epochs'"]),
    ("training.epochs=[1", ["--set training.epochs: not valid YAML: '[1'"]),
    ("name=2020-13-45", ["--set name: not valid YAML: '2020-13-45': month"]),
    ("seed=0b_", ["--set seed: not valid YAML: '0b_': invalid literal"]),
    ('seed=!!int ""', ["--set seed: not valid YAML: '!!int \"\"': "]),
    ("name=!!timestamp x", ["--set name: not valid YAML: '!!timestamp x': "]),
    ("seed=4294967296", ["seed: ", "less than or equal to 4294967295", "received 4294967296"]),
    ("model={name: a, name: efficientnetv2-b0}", ["--set model: not valid YAML", "stands twice"]),
    (".=3", ["--set: expected section.key=value, received '.=3'"]),
    ("training..epochs=3", ["--set: expected section.key=value, received 'training..epochs=3'"]),
    ("=3", ["--set: expected section.key=value, received '=3'"]),
    ("training.epochs=1e3", ["training.epochs: ", "received '1e3'; YAML takes", "write 1000"]),
    ("training.epochs=1.5e3", ["received '1.5e3'; YAML takes 1.5e3 for text: write 1500"]),
    ("model=5", ["model: expected a mapping of keys to values, received 5"]),
    ("data.augmentation.crop_area=[1.0, 0.08]", ["crop_area: expected the smallest, then the"]),
    ("data.augmentation.crop_area=[2, 3]", ["crop_area.0: ", "less than or equal to 1", "2"]),
    (
        "data.augmentation.crop_aspect_ratio=[2, 0.5]",
        ["crop_aspect_ratio: expected the smallest, then the largest, received [2.0, 0.5]"],
    ),
    ("model.preprocessing={mean: [1, 2], std: [1, 2]}", ["model.preprocessing: ", "1 or 3 num"]),
    ("model.preprocessing={mean: [], std: []}", ["model.preprocessing: ", "1 or 3 numbers"]),
    ("training.class_weights={a: 2}", ["training.class_weights: expected balanced, or", "'a': 2"]),
    ("training.class_weights={-1: 2}", ["training.class_weights: ", "class numbers", "{-1: 2}"]),
    ("training.class_weights={0: -1}", ["training.class_weights: ", "from 0 up", "{0: -1}"]),
    ("training.class_weights=balanc", ["training.class_weights: expected balanced", "'balanc'"]),
]


@pytest.mark.parametrize(("override", "parts"), WRONG, ids=[w[0] for w in WRONG])
def test_what_is_wrong_is_said_in_one_line(tmp_path, override, parts):
    with pytest.raises(UsageError) as caught:
        load_recipe(_recipe_file(tmp_path), [override])
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.augmentation.crop=pad", "progressive.crop_area_max=[0.5, 1]"],
            r"progressive\.crop_area_max: expected data\.augmentation\.crop to be "
            r"'random_resized', received 'pad'",
        ),
        (
            ["progressive.crop_area_min=[0.4, 0.8]", "progressive.crop_area_max=[0.6, 0.7]"],
            r"crop_area_min: expected at most the largest .* stage \(0\.7\), received 0\.8",
        ),
    ],
)
def test_scheduled_crops_must_be_possible(tmp_path, overrides, message):
    with pytest.raises(UsageError, match=message):
        load_recipe(_recipe_file(tmp_path), overrides)


@pytest.mark.parametrize("key", ["name", "model.name", "data.source", "progressive.image_size"])
def test_a_missing_key_is_named(tmp_path, key):
    tree = yaml.safe_load(GOOD)
    *parents, last = key.split(".")
    node = tree[parents[0]] if parents else tree
    del node[last]
    path = _recipe_file(tmp_path, yaml.safe_dump(tree))
    with pytest.raises(UsageError, match=f"recipe.yaml: {key}: expected a value.*missing"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: a\nmodel: {name: b\ndata: x", r"recipe\.yaml, line 3: not valid YAML"),
        ("name: a\n\tmodel: b", r"recipe\.yaml, line 2: not valid YAML"),
        ("", "expected a mapping of sections, received nothing"),
        ("- a\n- b", "expected a mapping of sections, received list"),
        ("[" * 5000, "recipe.yaml: not valid YAML: maximum recursion depth exceeded"),
        ("name: 2020-13-45", "not valid YAML: month must be in"),
        ("name: a\0b", "not valid YAML"),
        (b"\xff\xfe\x00\xd8\x01", "not valid YAML|not a text file"),
        (b"name: caf\xe9\n", "not valid YAML|not a text file"),
        ("name: a\nname: b\n", r"line 2: not valid YAML: 'name' stands twice"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, content, message):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_tree_that_is_none():
    with pytest.raises(UsageError, match="^recipe: expected a mapping .*, received None$"):
        parse_recipe(None)


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(UsageError, match=r"does not exist; did you mean 'quickstart\.yaml'"):
        load_recipe(tmp_path / "quickstrat.yaml")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [
    f"{section}.{key}" if hasattr(field.annotation, "model_fields") else section
    for section, field in Recipe.model_fields.items()
    for key in getattr(field.annotation, "model_fields", [""])
]


@settings(max_examples=150)
@given(key=st.sampled_from(KEYS), value=PLAIN)
@example(key="model.new_classifier", value=True)
def test_any_value_anywhere_loads_or_is_a_usage_error(key, value):
    tree = yaml.safe_load(GOOD)
    section, _, name = key.partition(".")
    if name:
        tree.setdefault(section, {})[name] = value
    else:
        tree[section] = value
    try:
        recipe = parse_recipe(tree)
    except UsageError as error:
        assert key in str(error)
        assert "\n" not in str(error)
        return
    text = dump_recipe(recipe)
    assert dump_recipe(parse_recipe(yaml.safe_load(text))) == text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=efficientnetv2-b9", "model.name: unknown network.*did you mean"),
        ("model.name=resnet50", "model.name: unknown network 'resnet50'; known: efficientnetv2"),
    ],
)
def test_an_unknown_network(tmp_path, override, message):
    with pytest.raises(UsageError, match=message):
        build.network_spec(load_recipe(_recipe_file(tmp_path), [override]).model)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.name=rmsprp", "optimizer.name: unknown optimizer 'rmsprp'; did you mean"),
        ("optimizer.options={rh: 0.9}", "optimizer.options: .*rh"),
    ],
)
def test_an_unknown_optimizer_or_option(tmp_path, override, message, tiny_network):
    recipe = load_recipe(_recipe_file(tmp_path), [override])
    with pytest.raises(UsageError, match=message):
        build.build_optimizer(recipe, build.build_schedule(recipe, 1000), tiny_network())


def test_more_images_in_a_batch_than_there_are(tmp_path):
    recipe = load_recipe(_recipe_file(tmp_path), ["training.batch_size=5000"])
    with pytest.raises(UsageError, match=r"progressive: `batch_size`.*\(1437\).*5000"):
        build.build_schedule(recipe, 1437)


@pytest.mark.parametrize(
    ("overrides", "mode"),
    [
        ([], "max"),
        (["checkpoints.monitor=val_top_5_accuracy"], "max"),
        (["checkpoints.monitor=val_loss"], "min"),
        (["checkpoints.monitor=val_loss", "checkpoints.mode=max"], "max"),
    ],
)
def test_the_best_loss_is_the_smallest(tmp_path, overrides, mode):
    assert load_recipe(_recipe_file(tmp_path), overrides).checkpoints.mode == mode


@pytest.mark.parametrize(
    ("override", "l2", "undecayed"),
    [
        ("name=rmsprop", 1e-5, False),
        ("name=Nadam", 1e-5, False),
        ("name=adamw", 0.0, True),
        ("name=Lion, weight_decay: 0.1", 0.0, True),
        ("name=rmsprop, options: {weight_decay: 0.1}", 0.0, True),
        ("name=adamw, l2: 0.25", 0.25, True),
    ],
)
def test_weights_are_decayed_in_one_way_and_norms_in_none(
    tmp_path, tiny_network, override, l2, undecayed
):
    section = "optimizer={" + override.replace("=", ": ") + "}"
    recipe = load_recipe(_recipe_file(tmp_path), [section])
    model = tiny_network()
    schedule = build.build_schedule(recipe, 1000)
    optimizer = build.build_optimizer(recipe, schedule, model)
    assert optimizer.l2 == l2
    left_out = [v for v in model.trainable_variables if not optimizer._use_weight_decay(v)]
    expected = [v for v in model.trainable_variables if len(v.shape) < 2] if undecayed else []
    assert [v.name for v in left_out] == [v.name for v in expected]


@pytest.mark.parametrize("name", ["Optimizer", "LossScaleOptimizer", "MultiOptimizer"])
def test_what_is_no_optimizer_by_itself(tmp_path, tiny_network, name):
    recipe = load_recipe(_recipe_file(tmp_path), [f"optimizer.name={name}"])
    with pytest.raises(UsageError, match=f"optimizer.name: unknown optimizer '{name}'"):
        build.build_optimizer(recipe, build.build_schedule(recipe, 1000), tiny_network())
