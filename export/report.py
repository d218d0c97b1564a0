"""The report of an export: JSON, a printed table and a picture."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnetv2_tf.export.runtimes import THREADS
from effnetv2_tf.export.verification import Verdict
from effnetv2_tf.files import write_text
from effnetv2_tf.reporting.files import save_figure
from effnetv2_tf.training.run_summary import versions

REPORT_FILE = "export_report.json"
PICTURE_FILE = "export_report.png"


@dataclass(frozen=True)
class Report:
    """What an export made and found.

    Attributes:
      metadata: see `Exportable.metadata`.
      checked_on: what the images were.
      verdicts: one for each artefact.
      notes: for the user.
    """

    metadata: dict[str, Any]
    checked_on: str
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every artefact may be used."""
        return all(verdict.ok for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "ok": self.ok,
            "network": self.metadata["name"],
            "origin": self.metadata["origin"],
            "checked_on": self.checked_on,
            "artefacts": [verdict.as_dict() for verdict in self.verdicts],
            "notes": list(self.notes),
            "preparation": self.metadata["preparation"],
            "threads": THREADS,
            "machine": {"processor": processor(), "system": platform.platform()},
            "versions": versions(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    def table(self) -> str:
        """For the terminal: one line for each artefact."""
        header = ("artefact", "status", "MB", "load s", "ms/image", "max diff", self._judged_by)
        rows = [header, *(_row(verdict) for verdict in self.verdicts)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = []
        for row in rows:
            first, second, *numbers = row
            cells = [first.ljust(widths[0]), second.ljust(widths[1])]
            cells += [n.rjust(w) for n, w in zip(numbers, widths[2:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    @property
    def _judged_by(self) -> str:
        """What the artefacts are judged by; all are of one network."""
        found = [c for verdict in self.verdicts for c in verdict.comparisons]
        return found[0].judged_by if found else "top-1 agreement"

    def write(self, folder: Path) -> None:
        """Writes the JSON file and, if any artefact could be run, the picture."""
        write_text(folder / REPORT_FILE, json.dumps(self.as_dict(), indent=2) + "\n")
        if any(verdict.comparisons for verdict in self.verdicts):
            _draw(self, folder / PICTURE_FILE)


def discard_report(folder: Path) -> None:
    """Removes the report that an earlier export left, if any."""
    for name in (REPORT_FILE, PICTURE_FILE):
        (folder / name).unlink(missing_ok=True)


def _row(verdict: Verdict) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    compared = verdict.comparisons
    return (
        verdict.artefact.name,
        verdict.status,
        f"{verdict.megabytes:.2f}",
        number(verdict.load_seconds, ".2f"),
        number(verdict.latency_ms, ".2f"),
        number(max((c.max_difference for c in compared), default=None), ".2g"),
        compared[0].agreement_text(compared[0].agreement) if compared else "-",
    )


def processor() -> str:
    """Name and count of the CPUs, for reports."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} logical CPUs" if names else platform.processor()


def _draw(report: Report, path: Path) -> None:
    """Size, latency and difference of every artefact, side by side."""
    from matplotlib.figure import Figure

    verdicts = [verdict for verdict in report.verdicts if verdict.comparisons]
    names = [verdict.artefact.name for verdict in verdicts]
    differences = [max(c.max_difference for c in v.comparisons) for v in verdicts]
    panels = (
        ("size, MB", [v.megabytes for v in verdicts], "{:.2f}", False),
        ("latency of one image, ms", [v.latency_ms or 0 for v in verdicts], "{:.2f}", False),
        ("largest difference from Keras", [max(d, 1e-9) for d in differences], "{:.1e}", True),
    )
    figure = Figure(figsize=(12, 1.5 + 0.4 * max(1, len(names))), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    colors = ["tab:blue" if verdict.ok else "tab:red" for verdict in verdicts]
    for axis, (title, values, form, logarithmic) in zip(axes, panels, strict=True):
        bars = axis.barh(names, values, color=colors)
        axis.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=8)
        axis.set_title(title, fontsize=10)
        if logarithmic:
            axis.set_xscale("log")
        axis.margins(x=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.suptitle(f"{report.metadata['name']}, checked on {report.checked_on}", fontsize=11)
    save_figure(figure, path, dpi=110)
