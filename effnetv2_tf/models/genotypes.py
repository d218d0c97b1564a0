"""Cells of NASNet as data: which states a block combines, by which operations.

Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", arXiv
1707.07012, section 3.1: a network repeats two cells, a normal one that keeps the size of its
feature maps and a reduction cell that halves it. A cell is a short list of blocks; each picks
two hidden states and an operation for each, and adds the results to a new hidden state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from effnetv2_tf.errors import suggestion

Operation = Literal[
    "identity",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dilated_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
# State 0 is the output of the cell before, state 1 that of the cell before that one.
INPUT_STATES = 2


@dataclass(frozen=True)
class Block:
    """Two hidden states, an operation on each, and their sum as a new hidden state.

    Attributes:
      left_state: 0 for the output of the cell before, 1 for that of the cell before that one,
        2 for the cell's first block, and so on.
      left_op: one of `OPERATIONS`.
      right_state: as `left_state`; may be the same.
      right_op: as `left_op`.
    """

    left_state: int
    left_op: Operation
    right_state: int
    right_op: Operation

    def __post_init__(self) -> None:
        for name in ("left_op", "right_op"):
            value = getattr(self, name)
            if value not in OPERATIONS:
                known = ", ".join(OPERATIONS)
                hint = suggestion(value, OPERATIONS) if isinstance(value, str) else ""
                raise ValueError(
                    f"Block: `{name}` must be one of {known}. Received: {value!r}{hint or '.'}"
                )

    @property
    def operands(self) -> tuple[tuple[int, Operation], tuple[int, Operation]]:
        """The two states with their operations."""
        return (self.left_state, self.left_op), (self.right_state, self.right_op)


@dataclass(frozen=True)
class Cell:
    """A cell: its blocks, and which states its output concatenates.

    Attributes:
      blocks: in order; block i gives state i + 2.
      outputs: states that are concatenated, in this order; None for all that no block uses,
        as the paper has it.
    """

    blocks: tuple[Block, ...]
    outputs: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError("Cell: `blocks` is empty; expected at least one Block.")
        for index, block in enumerate(self.blocks):
            for name in ("left_state", "right_state"):
                self._check_state(f"block {index}: `{name}`", getattr(block, name), index)
        if self.outputs is None:
            return
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise ValueError(
                "Cell: `outputs` must name at least one state and none twice; None stands for "
                f"all unused states. Received: {self.outputs}."
            )
        for state in self.outputs:
            self._check_state("`outputs`", state, len(self.blocks))

    def _check_state(self, what: str, state: Any, blocks_before: int) -> None:
        last = INPUT_STATES + blocks_before - 1
        if isinstance(state, int) and not isinstance(state, bool) and 0 <= state <= last:
            return
        raise ValueError(
            f"Cell: {what} must be a state that exists by then, 0 to {last} (0 and 1 are the "
            f"cell's inputs, 2 its first block). Received: {state!r}."
        )

    @property
    def output_states(self) -> tuple[int, ...]:
        """The states that the cell's output concatenates."""
        if self.outputs is not None:
            return self.outputs
        used = {state for block in self.blocks for state, _ in block.operands}
        return tuple(s for s in range(INPUT_STATES + len(self.blocks)) if s not in used)

    def as_values(self) -> dict[str, Any]:
        """Plain values, for a file."""
        values = asdict(self)
        values["blocks"] = list(values["blocks"])
        values["outputs"] = None if self.outputs is None else list(self.outputs)
        return values

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Cell:
        """What `as_values` gave.

        Raises:
          ValueError: for values that are no cell, see `Block` and `Cell`.
        """
        outputs = values.get("outputs")
        return cls(
            blocks=tuple(_block(block) for block in values["blocks"]),
            outputs=None if outputs is None else tuple(outputs),
        )


def _block(values: Mapping[str, Any]) -> Block:
    expected = ("left_state", "left_op", "right_state", "right_op")
    if set(values) != set(expected):
        raise ValueError(f"Block: expected the keys {expected}. Received: {tuple(values)}.")
    return Block(**values)


@dataclass(frozen=True)
class Genotype:
    """The two cells that make a network.

    Attributes:
      normal: keeps height and width.
      reduction: halves them.
    """

    normal: Cell
    reduction: Cell

    def as_values(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {"normal": self.normal.as_values(), "reduction": self.reduction.as_values()}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Genotype:
        """What `as_values` gave.

        Raises:
          ValueError: for values that are no cells, see `Cell`.
        """
        return cls(Cell.from_values(values["normal"]), Cell.from_values(values["reduction"]))


def _cell(rows: Sequence[tuple[int, Operation, int, Operation]], outputs: Sequence[int]) -> Cell:
    return Cell(tuple(Block(*row) for row in rows), tuple(outputs))


# Figure 4 of the paper. Its networks, and the published weights, also pass on state 1 of the
# normal cell, which blocks use: hence the outputs are spelled out.
NASNET_A = Genotype(
    normal=_cell(
        (
            (0, "sep_conv_5x5", 1, "sep_conv_3x3"),
            (1, "sep_conv_5x5", 1, "sep_conv_3x3"),
            (0, "avg_pool_3x3", 1, "identity"),
            (1, "avg_pool_3x3", 1, "avg_pool_3x3"),
            (0, "sep_conv_3x3", 0, "identity"),
        ),
        outputs=(1, 2, 3, 4, 5, 6),
    ),
    reduction=_cell(
        (
            (0, "sep_conv_5x5", 1, "sep_conv_7x7"),
            (0, "max_pool_3x3", 1, "sep_conv_7x7"),
            (0, "avg_pool_3x3", 1, "sep_conv_5x5"),
            (3, "identity", 2, "avg_pool_3x3"),
            (2, "sep_conv_3x3", 0, "max_pool_3x3"),
        ),
        outputs=(3, 4, 5, 6),
    ),
)
