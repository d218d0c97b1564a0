"""Cells as data: states, outputs, plain values, and errors."""

import json
import re

import pytest

from effnetv2_tf.models.genotypes import NASNET_A, OPERATIONS, Block, Cell, Genotype

BLOCK = Block(0, "sep_conv_3x3", 1, "identity")


def test_thirteen_operations():
    assert len(OPERATIONS) == len(set(OPERATIONS)) == 13


def test_unused_states_are_the_outputs():
    later = Block(2, "max_pool_3x3", 2, "conv_1x1")
    assert Cell((BLOCK,)).output_states == (2,)
    assert Cell((BLOCK, BLOCK)).output_states == (2, 3)
    assert Cell((BLOCK, later)).output_states == (3,)
    only_first = Block(0, "identity", 0, "identity")
    assert Cell((only_first,)).output_states == (1, 2)
    assert Cell((BLOCK, later), outputs=(3, 1)).output_states == (3, 1)


def test_nasnet_a():
    assert NASNET_A.normal.output_states == (1, 2, 3, 4, 5, 6)
    assert NASNET_A.reduction.output_states == (3, 4, 5, 6)
    assert len(NASNET_A.normal.blocks) == len(NASNET_A.reduction.blocks) == 5
    # Figure 4: what the reduction cell concatenates is what its blocks do not use, and more.
    unused = Cell(NASNET_A.reduction.blocks).output_states
    assert set(unused) <= set(NASNET_A.reduction.output_states)


def test_plain_values_round_trip_through_json():
    values = json.loads(json.dumps(NASNET_A.as_values()))
    assert Genotype.from_values(values) == NASNET_A
    assert hash(Genotype.from_values(values)) == hash(NASNET_A)
    assert Cell.from_values(json.loads(json.dumps(Cell((BLOCK,)).as_values()))) == Cell((BLOCK,))


@pytest.mark.parametrize("state", [2, 7, -1, True, 0.0, "1", None])
def test_a_state_that_does_not_exist_yet(state):
    message = f"block 0: `right_state` must be a state that exists by then, 0 to 1 .*{state!r}"
    with pytest.raises(ValueError, match=message):
        Cell((Block(0, "identity", state, "identity"),))


def test_a_later_block_may_use_an_earlier_one_only():
    Cell((BLOCK, Block(2, "identity", 0, "identity")))
    with pytest.raises(ValueError, match=r"block 1: `left_state`.* 0 to 2 .*Received: 3"):
        Cell((BLOCK, Block(3, "identity", 0, "identity")))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Block(0, "sepconv_3x3", 1, "identity"), "did you mean 'sep_conv_3x3'?"),
        (lambda: Block(0, "identity", 1, None), "`right_op` must be one of identity, "),
        (lambda: Cell(()), "`blocks` is empty"),
        (lambda: Cell((BLOCK,), outputs=()), "`outputs` must name at least one"),
        (lambda: Cell((BLOCK,), outputs=(2, 2)), "none twice"),
        (lambda: Cell((BLOCK,), outputs=(3,)), "`outputs` must be a state that exists"),
        (lambda: Cell.from_values({"blocks": [{"left": 0}]}), "expected the keys ('left_state'"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()
