"""Which results of benchmarks are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TORCH_FLAG = "--torch_python="


def is_fresh(result: Mapping[str, Any], arguments: Sequence[str]) -> bool:
    """Whether a result is what these arguments would give, as far as anybody can know.

    With a Python for them, missing PyTorch peers could be there now. Without one, a run would
    lose those that the result has, so what failed in it waits for a run with one.
    """
    if "comparisons" not in result:
        return False
    known, wanted = _split(result.get("arguments", ())), _split(arguments)
    if known[0] != wanted[0]:
        return False
    if known[1] and not wanted[1]:
        return True
    lines = result["comparisons"]
    again = any(line["failed"] or (line["missing"] and wanted[1]) for line in lines)
    return known == wanted and not again and "failed_since" not in result


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The other arguments, and that of PyTorch's Python."""
    torch = [text for text in arguments if text.startswith(TORCH_FLAG)]
    return [text for text in arguments if text not in torch], torch
