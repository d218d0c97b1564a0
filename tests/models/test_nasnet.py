"""NASNet networks: the paper's costs, any image size, round trips, errors."""

import dataclasses
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import effnetv2_tf
from effnetv2_tf.models.flops import count_flops, stage_table
from effnetv2_tf.models.genotypes import OPERATIONS, Block, Cell, Genotype
from effnetv2_tf.models.layers import NASNetCell
from effnetv2_tf.models.nasnet import build_nasnet, without_auxiliary_head
from effnetv2_tf.models.nasnet_specs import NASNET_LARGE, NASNET_MOBILE, NASNETS, NASNetSpec

# Every operation on the older and on the newer input.
EVERY_OPERATION = Cell(
    tuple(Block(i % 2, op, (i + 1) % 2, OPERATIONS[i - 3]) for i, op in enumerate(OPERATIONS))
)
TINY_CELL = Cell((Block(0, "sep_conv_3x3", 1, "max_pool_3x3"), Block(2, "identity", 1, "conv_1x1")))
TINY = NASNetSpec(
    name="tiny",
    cells_per_stack=1,
    penultimate_filters=32,
    genotype=Genotype(TINY_CELL, TINY_CELL),
    stem_filters=8,
    stem_reductions=1,
)


def pixels(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("f")


def parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.weights)


def test_costs_of_mobile():
    model = effnetv2_tf.NASNetMobile()
    assert parameters(model) == 5_326_716
    assert count_flops(model, 224) == pytest.approx(564e6, rel=0.02)
    assert sum(row.parameters for row in stage_table(model, 224)) == 5_326_716


@pytest.mark.slow
def test_costs_of_large():
    model = effnetv2_tf.NASNetLarge()
    assert parameters(model) == 88_949_818
    assert count_flops(model, 331) == pytest.approx(23.8e9, rel=0.02)


@pytest.mark.parametrize(
    ("spec", "widths", "count"),
    [(NASNET_MOBILE, (11, 22, 44), 16), (NASNET_LARGE, (42, 84, 168), 22)],
)
def test_rows(spec, widths, count):
    """Section 4.1 and table 2: N cells in each of three stacks, widths doubling."""
    assert NASNETS[spec.name] is spec
    assert (spec.filters // 4, spec.filters // 2, spec.filters) == widths
    assert spec.cell_count == count
    rates = spec.drop_path_rates(0.3)
    assert rates == pytest.approx(list(0.3 * (np.arange(count) + 1) / count))


def test_drop_rates_of_the_built_cells():
    model = build_nasnet(dataclasses.replace(TINY, drop_path_rate=0.3, dropout_rate=0.1), classes=2)
    cells = [layer for layer in model.layers if isinstance(layer, NASNetCell)]
    assert [c.name for c in cells] == [
        "stem_cell1", "stack1_cell1", "reduction1", "stack2_cell1", "reduction2", "stack3_cell1",
    ]  # fmt: skip
    assert [c.drop_path_rate for c in cells] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    assert model.get_layer("dropout").rate == 0.1
    other = build_nasnet(TINY, classes=2, drop_path_rate=0.6, dropout_rate=0.4)
    assert other.get_layer("stack3_cell1").drop_path_rate == pytest.approx(0.6)
    assert other.get_layer("dropout").rate == 0.4


@pytest.mark.parametrize("skip_reduction", [False, True])
def test_which_states_a_cell_after_a_reduction_takes(skip_reduction):
    spec = dataclasses.replace(TINY, skip_reduction=skip_reduction)
    model = build_nasnet(spec, classes=2)
    cell = model.get_layer("stack2_cell1")
    current, previous = cell.input
    assert current is model.get_layer("reduction1").output
    expected = "stem_cell1" if skip_reduction else "stack1_cell1"
    assert previous is model.get_layer(expected).output
    assert cell.previous_size == "double"


@pytest.mark.slow
@pytest.mark.parametrize("stem_reductions", [0, 2])
def test_any_genotype_at_any_size(stem_reductions):
    spec = dataclasses.replace(
        TINY,
        genotype=Genotype(EVERY_OPERATION, EVERY_OPERATION),
        penultimate_filters=len(EVERY_OPERATION.output_states) * 16,
        stem_reductions=stem_reductions,
    )
    model = build_nasnet(spec, classes=3)
    for sides in ((32, 32), (37, 45), (64, 33)):
        outputs = np.asarray(model(pixels(2, *sides, 3)))
        np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5, err_msg=str(sides))
        fixed = build_nasnet(spec, classes=3, input_shape=(*sides, 3))
        fixed.set_weights(model.get_weights())
        np.testing.assert_allclose(
            fixed(pixels(2, *sides, 3)), outputs, rtol=1e-4, err_msg=str(sides)
        )


def test_costs_are_those_of_the_built_layers():
    """By hand: the tiny network's first cell, on 32 px."""
    spec = dataclasses.replace(TINY, stem_stride=1)
    rows = {row.name: row for row in stage_table(build_nasnet(spec, classes=2), 32)}
    # One output and a multiplier of 2 in three stacks: 32 / 4 = 8, and half of it before them.
    width = 4
    project = 32 * 32 * 8 * width
    separable = 16 * 16 * 2 * (9 * width + width * width)
    pool_projection = conv_1x1 = 16 * 16 * 8 * width
    cell = rows["stem_cell1"]
    assert cell.multiply_adds == project + separable + pool_projection + conv_1x1
    assert cell.block == "cell" and cell.output_size == (16, 16)


def test_odd_sizes_as_the_network_of_that_size():
    model = build_nasnet(TINY, classes=3)
    for sides in ((37, 45), (64, 33)):
        fixed = build_nasnet(TINY, classes=3, input_shape=(*sides, 3))
        fixed.set_weights(model.get_weights())
        x = pixels(2, *sides, 3)
        np.testing.assert_allclose(model(x), fixed(x), rtol=1e-4, err_msg=str(sides))


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_without_the_top(pooling):
    model = build_nasnet(TINY, include_top=False, pooling=pooling, input_shape=(None, None, 1))
    shape = np.asarray(model(pixels(2, 63, 63, 1))).shape
    assert shape == ((2, 4, 4, 32) if pooling is None else (2, 32))


def test_preprocessing_is_between_minus_1_and_1():
    model = build_nasnet(TINY, classes=2, classifier_activation=None)
    plain = build_nasnet(TINY, classes=2, classifier_activation=None, include_preprocessing=False)
    plain.set_weights(model.get_weights())
    x = pixels(2, 32, 32, 3)
    np.testing.assert_allclose(model(x), plain(x / 127.5 - 1), rtol=1e-3, atol=1e-5)


def test_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = build_nasnet(TINY, classes=3)
    outputs = model(pixels(2, 33, 33, 3), training=True)
    assert outputs.dtype == "float32"
    assert model.get_layer("stack1_cell1").compute_dtype == "bfloat16"


_RELOAD = """
import sys, numpy as np, keras, effnetv2_tf
model = effnetv2_tf.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


@pytest.mark.slow
def test_saved_file_in_a_fresh_process(tmp_path):
    model = build_nasnet(dataclasses.replace(TINY, drop_path_rate=0.2), classes=3)
    x = pixels(2, 37, 45, 3)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("model.keras", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", _RELOAD, *files], check=True, timeout=300)
    np.testing.assert_allclose(np.load(files[2]), model(x), rtol=1e-4, atol=1e-6)


def test_config_round_trip():
    model = build_nasnet(dataclasses.replace(TINY, drop_path_rate=0.2), classes=3)
    copy = model.__class__.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    x = pixels(2, 37, 45, 3)
    np.testing.assert_allclose(copy(x), model(x), rtol=1e-5, atol=1e-6)
    assert copy.get_layer("stack3_cell1").drop_path_rate == pytest.approx(0.2)


def test_auxiliary_head():
    spec = dataclasses.replace(TINY, auxiliary_head=True)
    model = build_nasnet(spec, classes=3)
    x = pixels(2, 33, 40, 3)
    main, auxiliary = model(x)
    assert main.shape == auxiliary.shape == (2, 3)
    deployed = without_auxiliary_head(model)
    np.testing.assert_allclose(deployed(x), main, rtol=1e-5)
    assert parameters(deployed) == parameters(build_nasnet(TINY, classes=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells_per_stack": 0}, "`cells_per_stack` must be a positive integer. Received: 0"),
        ({"penultimate_filters": 40}, "`penultimate_filters` must be a multiple of"),
        ({"stem_stride": 3}, "`stem_stride` must be 1 or 2"),
        ({"stem_reductions": -1}, "`stem_reductions` must be 0 or a positive integer"),
        ({"stem_reductions": 9}, "lower `stem_reductions`"),
        ({"drop_path_rate": 1.0}, "`drop_path_rate` must lie in [0, 1)"),
    ],
)
def test_specs_that_cannot_be(changes, message):
    genotype = Genotype(EVERY_OPERATION, EVERY_OPERATION)
    base = dataclasses.replace(TINY, genotype=genotype, penultimate_filters=13 * 16)
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "`classes` must be a positive integer"),
        ({"input_shape": (32, 32)}, "`input_shape` must be"),
        ({"pooling": "sum"}, "`pooling` must be one of"),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_nasnet(TINY, **arguments)


def test_auxiliary_head_needs_the_top():
    with pytest.raises(ValueError, match="`include_top` must be True"):
        build_nasnet(dataclasses.replace(TINY, auxiliary_head=True), include_top=False)
    features = build_nasnet(TINY, include_top=False)
    with pytest.raises(ValueError, match="no layer 'classifier'"):
        without_auxiliary_head(features)
