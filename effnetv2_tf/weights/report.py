"""What became of every tensor of a weights file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from effnetv2_tf.models.specs import Preprocessing

Action = Literal["loaded", "reshaped", "left out"]


@dataclass(frozen=True)
class TensorRow:
    """One tensor of the source.

    Attributes:
      path: of the model's variable that took it, e.g. `stage1_block1/expand/kernel`; empty
        if none did.
      tensor: its name in the source.
      shape: in the source.
      action: `"loaded"` as it is, `"reshaped"` (another layout or type), `"left out"`.
      reason: what was changed, or why it was left out.
    """

    path: str
    tensor: str
    shape: tuple[int, ...]
    action: Action
    reason: str = ""


@dataclass(frozen=True)
class WeightReport:
    """What an import did: a row for every tensor of the source, none is skipped without one.

    Attributes:
      source: where the weights come from, e.g. `"timm"`.
      path: of the file, or what stands for it.
      rows: the model's variables in the network's order, then what was left out.
      notes: what else was set on the model, or must be known to use it: preprocessing,
        epsilon of the batch norms.
      preprocessing: what the weights were trained with, if known.
      batch_norm_epsilon: likewise.
    """

    source: str
    path: str
    rows: tuple[TensorRow, ...]
    notes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    batch_norm_epsilon: float | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[TensorRow]:
        return iter(self.rows)

    def count(self, action: Action) -> int:
        """Number of tensors with this action."""
        return sum(row.action == action for row in self.rows)

    def summary(self) -> str:
        """One line: the source and how many tensors were loaded, reshaped and left out."""
        return (
            f"{self.source}, {self.path}: {self.count('loaded')} tensors loaded, "
            f"{self.count('reshaped')} reshaped, {self.count('left out')} left out."
        )

    def __str__(self) -> str:
        """The table, a row for every tensor, then the notes and the summary."""
        header = ("variable", "tensor", "shape", "action", "reason")
        cells = [header] + [
            (row.path or "-", row.tensor, _shape_text(row.shape), row.action, row.reason)
            for row in self.rows
        ]
        widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        return "\n".join([*lines, *self.notes, self.summary()])


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
