"""Spaces: points and choices are two spellings of the same, and recipes build the network."""

import numpy as np
import pytest
import yaml

from effnetv2_tf.models.families import SPECS
from effnetv2_tf.models.genotypes import Block, Cell, Genotype
from effnetv2_tf.models.nasnet import build_nasnet
from effnetv2_tf.models.nasnet_specs import NASNetSpec
from effnetv2_tf.models.stage_costs import spec_stages, totals
from effnetv2_tf.search.cell_space import CellSpace
from effnetv2_tf.search.decisions import Decision
from effnetv2_tf.search.samplers import random_point
from effnetv2_tf.search.spaces import FusingPoint, FusingSpace, StageChoice, StageSpace
from effnetv2_tf.training import build
from effnetv2_tf.training.recipe_files import dump_recipe, load_recipe, parse_recipe

B0 = SPECS["efficientnetv2-b0"]
B4 = SPECS["efficientnet-b4"]


@pytest.fixture(params=[StageSpace(B0), FusingSpace(B4), CellSpace(3)], ids=lambda s: type(s))
def space(request):
    return request.param


def test_decode_and_encode_are_inverse(space):
    rng = np.random.default_rng(0)
    for _ in range(20):
        choices = random_point(space.decisions, rng)
        point = space.decode(choices)
        assert space.encode(point) == choices
        assert hash(point) == hash(space.decode(choices))


def test_the_stage_space_is_the_papers():
    space = StageSpace(B0)
    assert [d.name for d in space.decisions[:4]] == [
        "stage1.block",
        "stage1.layers",
        "stage1.kernel_size",
        "stage1.expansion",
    ]
    assert [d.choices for d in space.decisions[4:8]] == [
        ("mbconv", "fused"),
        (1, 2, 3),  # B0's second stage has 2 blocks
        (3, 5),
        (1, 4, 6),
    ]
    assert space.decisions[1].choices == (1, 2)
    assert space.size == (2 * 2 * 2 * 3) * (2 * 3 * 2 * 3) ** 5


@pytest.mark.parametrize(
    "name", ["efficientnetv2-b0", "efficientnetv2-b3", "efficientnet-b4", "efficientnet-lite4"]
)
def test_the_backbone_is_a_point_of_its_space(name):
    spec = SPECS[name]
    space = StageSpace(spec)
    again = space.spec(space.backbone_point())
    assert totals(spec_stages(again)) == totals(spec_stages(spec))


def test_a_backbone_with_other_choices_is_no_point():
    assert StageSpace(B0, kernel_sizes=[5]).backbone_point() is None


def test_a_point_keeps_channels_and_strides_and_puts_squeeze_excite_where_v2_has_it():
    space = StageSpace(B0)
    choices = {d.name: d.choices[-1] for d in space.decisions}  # everything fused
    choices["stage2.block"] = "mbconv"
    stages = space.spec(space.decode(choices)).stages
    assert [s.filters for s in stages] == [s.filters for s in B0.stages]
    assert [s.stride for s in stages] == [s.stride for s in B0.stages]
    assert [s.se_ratio for s in stages] == [0, 0.25, 0, 0, 0, 0]
    assert {(s.kernel_size, s.expansion) for s in stages} == {(5, 6)}


def test_a_points_recipe_is_yaml_that_train_reads_and_builds_the_point():
    recipe = load_recipe("configs/quickstart.yaml")
    space = StageSpace(build.network_spec(recipe.model))
    point = space.decode(random_point(space.decisions, np.random.default_rng(3)))
    tree = yaml.safe_load(dump_recipe(space.recipe(point, recipe)))
    spec = build.network_spec(parse_recipe(tree).model)
    assert (
        tuple(StageChoice(s.block, s.repeats, s.kernel_size, s.expansion) for s in spec.stages)
        == point.stages
    )
    assert spec.depth == 1.0
    assert spec.width == 0.5
    model = build.build_model(parse_recipe(tree), num_classes=10, channels=1)
    parameters, _ = totals(spec_stages(spec, 32, classes=10, channels=1))
    assert model.count_params() == parameters


def test_the_fusing_ablation_of_b4_comes_near_the_papers_parameters():
    space = FusingSpace(B4)
    millions = [totals(spec_stages(space.spec(FusingPoint(n)), 380))[0] / 1e6 for n in (0, 3, 5, 7)]
    # Table 3 of arXiv 2104.00298: 19.3, 20.0, 43.4, 132.
    assert millions == pytest.approx([19.3, 20.0, 43.4, 132], rel=0.06)
    assert space.spec(FusingPoint(0)) == B4


def test_the_fusing_recipe_has_the_depth_of_the_backbone():
    recipe = load_recipe(
        "configs/quickstart.yaml", ["model.depth=1.4", "model.name=efficientnet-b0"]
    )
    backbone = build.network_spec(recipe.model)
    fused = FusingSpace(backbone).recipe(FusingPoint(0), recipe)
    assert totals(spec_stages(build.network_spec(fused.model))) == totals(spec_stages(backbone))


def test_cells_have_nasnets_choices():
    space = CellSpace()
    by_name = {d.name: d.choices for d in space.decisions}
    assert len(by_name) == 2 * 5 * 4
    assert by_name["normal.block1.left_state"] == (0, 1)
    assert by_name["reduction.block5.right_state"] == (0, 1, 2, 3, 4, 5)
    assert len(by_name["normal.block3.left_op"]) == 13


def test_a_point_of_the_cell_space_builds_a_nasnet():
    space = CellSpace(2)
    genotype = space.decode(random_point(space.decisions, np.random.default_rng(1)))
    outputs = len(genotype.normal.output_states)
    spec = NASNetSpec("searched", 1, 4 * 2 * outputs, genotype, stem_filters=4, stem_reductions=0)
    model = build_nasnet(spec, classes=5)
    assert model.output_shape == (None, 5)
    assert model(np.zeros((1, 32, 32, 3), "float32")).numpy().sum() == pytest.approx(1, abs=1e-4)


def test_a_point_of_the_cell_space_is_a_recipe_whose_stacks_keep_their_width():
    recipe = parse_recipe(
        {
            **load_recipe("configs/quickstart.yaml").model_dump(exclude={"model"}),
            "model": {"name": "nasnet-mobile", "penultimate_filters": 528, "cells_per_stack": 2},
        }
    )
    space = CellSpace(3)
    rng = np.random.default_rng(2)
    for _ in range(5):
        genotype = space.decode(random_point(space.decisions, rng))
        tree = yaml.safe_load(dump_recipe(space.recipe(genotype, recipe)))
        spec = build.model_spec(parse_recipe(tree).model)
        assert spec.genotype == genotype
        assert (spec.filters, spec.cells_per_stack) == (22, 2)


def test_a_cell_that_passes_on_a_used_state_is_outside_the_space():
    block = Block(0, "identity", 1, "conv_3x3")
    genotype = Genotype(Cell((block,), outputs=(0, 2)), Cell((block,)))
    with pytest.raises(ValueError, match=r"normal cell's `outputs` .* \(2,\).*\(0, 2\)"):
        CellSpace(1).encode(genotype)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StageSpace(B0, blocks=[]), "`choices` of 'stage1.block' is empty"),
        (lambda: StageSpace(B0, layers=[]), "`choices` of 'stage1.layers' is empty"),
        (lambda: FusingSpace(B4, []), "`choices` of 'fused_stages' is empty"),
        (lambda: FusingSpace(B4, [0, 8]), "must lie in 0 .. 7"),
        (lambda: FusingSpace(B0, [0, 1]), r"Received Fused-MBConv in stages \[1, 2, 3\]"),
        (lambda: CellSpace(0), "the space is empty: expected at least one decision"),
        (lambda: Decision("x", (1, 1)), "must differ"),
    ],
)
def test_an_empty_space_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage1.kernel_size": 7}, r"'stage1.kernel_size' must be one of \(3, 5\). Received: 7"),
        (
            {"stage1.kernel": 3},
            "unknown decision 'stage1.kernel'; did you mean 'stage1.kernel_size'",
        ),
    ],
)
def test_choices_outside_the_space_are_refused(change, message):
    space = StageSpace(B0)
    with pytest.raises(ValueError, match=message):
        space.decode({**space.encode(space.backbone_point()), **change})
