"""Search configurations: shipped ones load, wrong ones are one line that names the key."""

from pathlib import Path

import pytest

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.genotypes import NASNET_A
from effnetv2_tf.search.build import build_reward, build_space
from effnetv2_tf.search.cell_space import CellSpace
from effnetv2_tf.search.config import load_recipes, load_search
from effnetv2_tf.search.rewards import Measurement
from effnetv2_tf.training import build

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("search_*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_configuration_loads_and_makes_a_space(path):
    config = load_search(path)
    recipe, proxy = load_recipes(config)
    space = build_space(config, proxy)
    assert config.name == path.stem
    assert config.trials.number < space.size
    assert space.backbone_point() is not None or not config.trials.start_with_backbone
    drop_rates = {"dropout_rate", "drop_path_rate"}
    assert recipe.model.model_dump(exclude=drop_rates) == proxy.model.model_dump(exclude=drop_rates)
    assert proxy.training.epochs < recipe.training.epochs


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("space.blocks=[]", "space.blocks: expected at least one choice, received none: the space"),
        ("space.kernel_sizes=[3, 3]", "space.kernel_sizes: expected choices that differ"),
        ("space.kind=stage", "space.kind: .*did you mean 'stages'"),
        ("space.kernels=[3]", "space.kernels: unknown key; did you mean 'kernel_sizes'"),
        ("trials.number=0", "trials.number: .*greater than or equal to 1, received 0"),
        ("sampler={population: 3, sample: 4}", r"sample: expected at most population \(3\)"),
        ("step_time={rounds: 6, most_rounds: 5}", r"most_rounds: expected at least rounds \(6\)"),
        (
            "space.operations=[identity]",
            "operations: expected with kind 'cells' alone, received it",
        ),
        (
            "reward={kind: flops, step_time_exponent: -0.1}",
            "step_time_exponent: expected with kind 'training_aware' alone, received it with 'fl",
        ),
        ("reward.step_time_exponent=0.07", "less than or equal to 0, received 0.07"),
        ("proxy={model.width: 2}", "proxy: model.width: expected no key of the network"),
        (
            "reward.kind=multi_objective",
            None,
        ),
        (
            "sampler.kind=controler",
            "sampler.kind: .*did you mean 'controller'",
        ),
    ],
)
def test_wrong_values_are_named(override, message):
    if message is None:
        with pytest.raises(UsageError, match="sampler.kind: expected 'random', 'tpe' or 'nsga2'"):
            load_search("configs/search_v2_digits.yaml", [override, "sampler.kind=controller"])
        return
    with pytest.raises(UsageError, match=message):
        load_search("configs/search_v2_digits.yaml", [override])


def test_trials_that_could_never_be_ended_early():
    path = "configs/search_v2_digits.yaml"
    config = load_search(path, ["trials.pruning={}", "proxy.training.evaluate_every_epochs=6"])
    with pytest.raises(UsageError, match=r"evaluate_every_epochs: expected less .* \(6\) with tri"):
        load_recipes(config)


def test_an_override_of_the_proxy_is_of_one_key():
    path = "configs/search_v2_digits.yaml"
    given = load_search(path).proxy
    changed = load_search(path, ["proxy.learning_rate.per_256=0.5", "overrides.seed=3"])
    assert changed.proxy == {**given, "learning_rate.per_256": 0.5}
    recipe, proxy = load_recipes(changed)
    before = load_recipes(load_search(path))[1]
    assert proxy.learning_rate == before.learning_rate.model_copy(update={"per_256": 0.5})
    assert recipe.seed == proxy.seed == 3


def test_weights_fit_one_network_alone():
    config = load_search("configs/search_v2_digits.yaml", ["overrides={model.weights: x.h5}"])
    with pytest.raises(UsageError, match=r"model\.weights: expected none, received 'x\.h5'"):
        load_recipes(config)


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("configs/search_v2_digits.yaml", "cells", "model.name to be one of nasnet-mobile, nas"),
        ("configs/search_cells_digits.yaml", "stages", "model.name: expected an EfficientNet here"),
    ],
)
def test_a_space_over_the_wrong_kind_of_network(path, kind, message):
    config = load_search(path, [f"space={{kind: {kind}}}"])
    with pytest.raises(UsageError, match=message):
        build_space(config, load_recipes(config)[1])


def test_the_cells_search_begins_with_its_recipes_cells():
    config = load_search("configs/search_cells_digits.yaml")
    _, proxy = load_recipes(config)
    space = build_space(config, proxy)
    assert space.backbone_point() == proxy.model.genotype.genotype
    reward = build_reward(config, proxy, num_classes=10, channels=1)
    parameters = build.build_model(proxy, 10, 1).count_params()
    measured = {"accuracy": 0.9, "parameters": parameters, "multiply_adds": 1}
    seconds = {"step_seconds": 0.1, "reference_step_seconds": 0.1}
    assert reward(Measurement(**measured, **seconds)) == pytest.approx((0.9,))
    # Cells that are not in the space, or NASNet-A's, which pass on states that blocks use.
    assert CellSpace(3, backbone=proxy.model.genotype.genotype).backbone_point() is None
    assert CellSpace(5, backbone=NASNET_A).backbone_point() is None
