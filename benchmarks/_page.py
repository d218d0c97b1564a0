"""The page of all benchmarks, in Markdown, with its pictures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _measure import Comparison, number, show
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effnetv2_tf.files import write_text
from effnetv2_tf.reporting.files import save_figure

_HIGHER_IS_BETTER = ("images/s", "GFLOP/s")
_OURS, _THEIRS = "tab:blue", "0.6"
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
_COLOURS = {"reached": "tab:green", "missed": "tab:red"}
_HEAD = "| what | against | ours | peer | ours / peer | target | |\n|---|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Section:
    """One benchmark's part of the page.

    Attributes:
      name: short, for file names.
      title: heading.
      how: what was measured and how, a paragraph.
      command: that made it.
      result: what the script wrote, with `failed_since` if a later attempt failed, or
        `{"failed": reason}`; None if it was not run.
    """

    name: str
    title: str
    how: str
    command: str
    result: Mapping[str, Any] | None

    @property
    def comparisons(self) -> list[Comparison]:
        """Of the result, if there is one."""
        lines = (self.result or {}).get("comparisons", ())
        return [Comparison.from_dict(line) for line in lines]

    @property
    def picture(self) -> str:
        """The picture's file name."""
        return f"benchmark_{self.name}.png"


def write_page(sections: Sequence[Section], path: Path) -> None:
    """Writes the page, and the pictures into `pictures/` beside it."""
    pictures = path.parent / "pictures"
    for section in sections:
        if any(line.ours or line.theirs for line in section.comparisons):
            draw_section(section, pictures / section.picture)
    draw_summary(_judged(sections), pictures / "benchmark_summary.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page(sections))


def page(sections: Sequence[Section]) -> str:
    """The page's text."""
    judged = _judged(sections)
    parts = [
        "# Benchmarks",
        "Written by `python benchmarks/run_all.py`, which measures and renders this page. In each "
        "benchmark the contestants take turns; given are medians and, in brackets, the smallest "
        "and the largest value. A ratio is the median of the rounds' ratios, ours over the peer's, "
        "where a benchmark's own part says nothing else. Ratios carry over to other machines "
        "better than the figures themselves.",
        "\n".join(_about(sections)),
        f"Targets: {_count(judged)}{_without_result(sections)}",
        "![ratios against targets](pictures/benchmark_summary.png)",
        "\n".join([_HEAD, *map(_row, judged)]),
        *(_section(section) for section in sections),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _judged(sections: Sequence[Section]) -> list[Comparison]:
    return [line for section in sections for line in section.comparisons if line.target]


def _without_result(sections: Sequence[Section]) -> str:
    """A sentence about benchmarks that say nothing about their targets."""
    titles = [section.title for section in sections if not section.comparisons]
    return f" Without a result, see below: {', '.join(titles)}." if titles else ""


def _count(judged: Sequence[Comparison]) -> str:
    verdicts = [line.verdict for line in judged]
    kinds = sorted(set(verdicts), key=lambda kind: (kind != "reached", kind))
    return ", ".join(f"{verdicts.count(kind)} {kind}" for kind in kinds) + "."


def _about(sections: Sequence[Section]) -> list[str]:
    """Machines and versions, each once, and the days."""
    results = [section.result for section in sections if section.comparisons and section.result]
    machines = dict.fromkeys(_machine(result["machine"]) for result in results)
    versions: dict[str, dict[str, None]] = {}
    for result in results:
        for package, version in result["versions"].items():
            versions.setdefault(package, {})[version] = None
    days = sorted({result["date"].split()[0] for result in results})
    return [
        f"- Machine: {'; '.join(machines)}",
        "- Versions: "
        + ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items()),
        f"- Measured: {', '.join(days)}",
    ]


def _machine(about: Mapping[str, Any]) -> str:
    vectors = {"avx2": "AVX2", "avx512f": "AVX-512"}
    best = [vectors[name] for name in about["vector_instructions"]][-1:] or ["no AVX2"]
    cores = "1 core" if about["cores"] == 1 else f"{about['cores']} cores"
    return f"{cores} of {about['processor']} ({best[0]}), {about['system']}"


def _row(line: Comparison) -> str:
    ratio = "" if line.ratio is None else f"{number(line.ratio)}x"
    cells = [
        line.what,
        line.peer,
        f"{show(line.ours)} {line.unit}" if line.ours else "-",
        f"{show(line.theirs)} {line.unit}" if line.theirs else "-",
        ratio,
        str(line.target or ""),
        line.verdict,
    ]
    return "| " + " | ".join(cells) + " |"


def _section(section: Section) -> str:
    parts = [f"## {section.title}", section.how, f"`{section.command}`"]
    result = section.result
    if result is None:
        return "\n\n".join([*parts, "**Not run.**"])
    if "failed" in result:
        return "\n\n".join([*parts, f"**Failed**: {result['failed']}"])
    lines = section.comparisons
    busy = result.get("busy_cores_before")
    quiet = "" if busy is None else f"; {busy:.2f} cores were busy just before it"
    parts.append(f"{result['date']}{_revision(result.get('revision'))}{quiet}.")
    if "failed_since" in result:
        parts.append(f"**The last attempt failed**: {result['failed_since']}.")
    if any(line.ours or line.theirs for line in lines):
        parts.append(f"![{section.title}](pictures/{section.picture})")
    others = [_row(line) for line in lines if not line.target]
    parts.append("\n".join([_HEAD, *others]) if others else "")
    parts.append("\n".join(f"- {remark}" for remark in _remarks(lines)))
    return "\n\n".join(part for part in parts if part)


def _revision(found: Mapping[str, Any] | None) -> str:
    """Part of a sentence; empty if the revision is not known, as in older results."""
    if not found:
        return ""
    return f"; revision {found['commit'][:10]}{', with changes' if found['changed'] else ''}"


def _remarks(lines: Sequence[Comparison]) -> list[str]:
    """Notes and reasons, each once."""
    remarks: dict[str, None] = {}
    for line in lines:
        head = f"{line.what}, against {line.peer}"
        if line.note:
            remarks[f"{line.what}: {line.note}."] = None
        if line.missing:
            remarks[f"{head}: not installed ({line.missing})."] = None
        if line.failed:
            remarks[f"{head}: failed ({line.failed})."] = None
    return list(remarks)


def draw_summary(lines: Sequence[Comparison], path: Path) -> None:
    """How far each ratio is past its target: right of 1 is reached."""
    found = [line for line in lines if line.ratio is not None and line.target]
    figure = Figure(figsize=(10, 1.4 + 0.34 * len(found)), layout="constrained")
    axes = figure.subplots()
    for y, line in enumerate(reversed(found)):
        past = times_the_target(line)
        axes.barh(y, past - 1, left=1, color=_COLOURS[line.verdict], height=0.62)
        axes.annotate(
            f"{number(line.ratio)}x ({line.target})",
            (max(past, 1), y),
            textcoords="offset points",
            xytext=(5, 0),
            va="center",
            fontsize=8,
        )
    labels = [f"{line.what}\nagainst {line.peer}" for line in reversed(found)]
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.set_xscale("log")
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.set_xlim(_TICKS[0], 4 * _TICKS[-1])
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times the target (right of the line: reached)")
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path)


def times_the_target(line: Comparison) -> float:
    """1 where the target is just reached, more beyond it; within what the picture shows."""
    past = line.ratio / line.target.ratio
    if line.target.bound == "at most":
        past = 1 / max(past, 1e-9)
    return min(max(past, _TICKS[0]), _TICKS[-1])


def draw_section(section: Section, path: Path) -> None:
    """A panel for each quantity: medians as bars, every round as a dot."""
    panels: dict[tuple[str, str], list[Comparison]] = {}
    for line in section.comparisons:
        if line.ours or line.theirs:
            panels.setdefault((line.what, line.unit), []).append(line)
    heights = [1.1 + 0.42 * (1 + len(lines)) for lines in panels.values()]
    figure = Figure(figsize=(9, 0.4 + sum(heights)), layout="constrained")
    figure.suptitle(section.title)
    all_axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, ((what, unit), lines) in zip(all_axes, panels.items(), strict=True):
        _draw_bars(axes, lines)
        better = "higher" if unit in _HIGHER_IS_BETTER else "lower"
        axes.set_title(what, fontsize=9, loc="left")
        axes.set_xlabel(f"{unit}, {better} is better", fontsize=8)
    save_figure(figure, path)


def _draw_bars(axes: Axes, lines: Sequence[Comparison]) -> None:
    bars = [("ours", lines[0].ours, _OURS)]
    bars += [(line.peer, line.theirs, _THEIRS) for line in lines]
    bars = [(name, values, colour) for name, values, colour in bars if values]
    for y, (_, values, colour) in enumerate(reversed(bars)):
        median = statistics.median(values)
        axes.barh(y, median, color=colour, height=0.6)
        axes.plot(values, [y] * len(values), ".", color="black", markersize=3, alpha=0.6)
        axes.annotate(
            number(median),
            (max(values), y),
            textcoords="offset points",
            xytext=(5, 0),
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(bars)), [name for name, _, _ in reversed(bars)], fontsize=8)
    axes.margins(x=0.12)
    axes.grid(axis="x", alpha=0.3)
