"""NASNet's space of cells: which states each block combines, and by which operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effnetv2_tf.models.genotypes import INPUT_STATES, OPERATIONS, Block, Cell, Genotype, Operation
from effnetv2_tf.search.decisions import Choice, Decision, Space, check_not_empty
from effnetv2_tf.training.networks import model_spec
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import parse_recipe

CELLS = ("normal", "reduction")


class CellSpace(Space[Genotype]):
    """NASNet's space (arXiv 1707.07012, section 3.1): a normal and a reduction cell.

    Each of a cell's blocks picks two hidden states (of the two cells before, or of a block
    before) and an operation for each; the results are added, and what no block uses is
    concatenated at the end.

    Args:
      blocks: of each cell, 5 in the paper.
      operations: to choose from, the paper's thirteen.
      backbone: the cells to begin with, if they are in the space; NASNet-A's are not, since
        their outputs name states that blocks use.

    Raises:
      ValueError: if there are no blocks or operations.
    """

    def __init__(
        self,
        blocks: int = 5,
        operations: Sequence[Operation] = OPERATIONS,
        backbone: Genotype | None = None,
    ) -> None:
        self.blocks = blocks
        self._backbone = backbone
        decisions: list[Decision] = []
        for cell in CELLS:
            for number in range(blocks):
                states = tuple(range(INPUT_STATES + number))
                for side in ("left", "right"):
                    name = f"{cell}.block{number + 1}.{side}"
                    decisions.append(Decision(f"{name}_state", states))
                    decisions.append(Decision(f"{name}_op", tuple(operations)))
        self._decisions = tuple(decisions)
        check_not_empty(self._decisions, "CellSpace")

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self._decisions

    def decode(self, choices: Mapping[str, Choice]) -> Genotype:
        self.check(choices)
        return Genotype(**{name: self._cell(name, choices) for name in CELLS})

    def _cell(self, name: str, choices: Mapping[str, Choice]) -> Cell:
        blocks = []
        for number in range(1, self.blocks + 1):
            prefix = f"{name}.block{number}"
            left, right = (
                (int(choices[f"{prefix}.{side}_state"]), choices[f"{prefix}.{side}_op"])
                for side in ("left", "right")
            )
            blocks.append(Block(*left, *right))  # type: ignore[arg-type]
        return Cell(tuple(blocks))

    def encode(self, point: Genotype) -> dict[str, Choice]:
        choices: dict[str, Choice] = {}
        for name in CELLS:
            cell: Cell = getattr(point, name)
            if cell.output_states != Cell(cell.blocks).output_states:
                raise ValueError(
                    f"CellSpace: the {name} cell's `outputs` must be the states that no block "
                    f"uses, {Cell(cell.blocks).output_states}. Received: {cell.output_states}."
                )
            for number, block in enumerate(cell.blocks, start=1):
                values = vars(block).items()
                choices |= {f"{name}.block{number}.{side}": value for side, value in values}
        self.check(choices)
        return choices

    def recipe(self, point: Genotype, recipe: Recipe) -> Recipe:
        """`recipe`, which must be for a NASNet, with these cells; the stacks' widths stay."""
        tree = recipe.model_dump()
        filters = model_spec(recipe.model).filters  # type: ignore[union-attr]
        tree["model"] |= {
            "genotype": point.as_values(),
            "filters": filters,
            "penultimate_filters": None,
        }
        return parse_recipe(tree, recipe.name)

    def backbone_point(self) -> Genotype | None:
        if self._backbone is None:
            return None
        try:
            self.encode(self._backbone)
        except ValueError:
            return None
        return self._backbone
