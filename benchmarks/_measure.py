"""What the benchmarks share: taking turns, comparing, and the JSON file of a result."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from _worker import Environment, NotInstalled, Worker, WorkerFailed
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import TrainingFailure, UsageError, suggestion
from effnetv2_tf.files import write_text
from effnetv2_tf.git import ask_git

# For workers of a peer as its users have it: TensorFlow decides by the processor whether oneDNN is
# on (without AVX512-VNNI and the like it is off), where this package's programs switch it on.
TENSORFLOWS_OWN_SETTINGS: Environment = {"TF_ENABLE_ONEDNN_OPTS": None}
PAUSE_SECONDS = 0.2  # after a turn: threads of some libraries go on spinning for a while
_PACKAGES = ("effnetv2_tf", "tensorflow", "keras", "onnxruntime", "ai-edge-litert", "numpy")


@dataclass(frozen=True)
class Target:
    """What ours / theirs is to be."""

    bound: Literal["at least", "at most"]
    ratio: float

    def __str__(self) -> str:
        return f"{self.bound} {self.ratio:.3g}x"


@dataclass(frozen=True)
class Comparison:
    """Ours against one peer.

    Attributes:
      what: was measured, with model, image size and batch size.
      peer: against whom.
      unit: of the values.
      ours: one value a round.
      theirs: likewise; empty if there are none.
      target: of the ratio; None for a line without one.
      note: what a reader must know.
      missing: why the peer is not there, if it is not installed.
      failed: why there is no ratio, if something went wrong.
    """

    what: str
    peer: str
    unit: str
    ours: Sequence[float] = ()
    theirs: Sequence[float] = ()
    target: Target | None = None
    note: str = ""
    missing: str = ""
    failed: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over theirs: the median of the rounds' ratios, if the rounds are pairs.

        None without values, or with one that is not positive: a difference of times may be none.
        """
        if not (self.ours and self.theirs and all(x > 0 for x in (*self.ours, *self.theirs))):
            return None
        if len(self.ours) != len(self.theirs):
            return statistics.median(self.ours) / statistics.median(self.theirs)
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def verdict(self) -> str:
        """`reached`, `missed`, or why it cannot be said."""
        if self.missing:
            return "peer not installed"
        if self.failed or not self.theirs:
            return "failed"
        if self.ours and self.ratio is None:
            return "no ratio"
        if self.target is None:
            return ""
        if self.ratio is None:
            return "missed"
        at_least = self.target.bound == "at least"
        reached = self.ratio >= self.target.ratio if at_least else self.ratio <= self.target.ratio
        return "reached" if reached else "missed"

    def __str__(self) -> str:
        head = f"{self.what}, against {self.peer}"
        if self.missing or self.failed:
            return f"{head}: {self.verdict}: {self.missing or self.failed}"
        ratio = "none" if self.ratio is None else number(self.ratio)
        goal = f", target {self.target}: {self.verdict}" if self.target else ""
        return f"{head}: {show(self.ours)} and {show(self.theirs)} {self.unit}; ratio {ratio}{goal}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with what follows from them."""
        return {**asdict(self), "ratio": self.ratio, "verdict": self.verdict}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """The inverse of `as_dict`."""
        known = {name: values[name] for name in cls.__dataclass_fields__}
        target = known["target"]
        return cls(**{**known, "target": Target(**target) if target else None})


def show(values: Sequence[float]) -> str:
    """Median and spread, in three digits or more: `12.3 (11.9 to 13.0)`."""
    if not values:
        return "-"
    median = statistics.median(values)
    if len(values) == 1:
        return number(median)
    low, high = number(min(values), like=median), number(max(values), like=median)
    return f"{number(median)} ({low} to {high})"


def number(value: float, like: float | None = None) -> str:
    """A value with three significant digits or more, as many decimals as `like` would get."""
    size = abs(value if like is None else like)
    return f"{value:.{max(0, 2 - math.floor(math.log10(size))) if size else 0}f}"


@dataclass
class Rounds:
    """Contestants by name, ours among them, their values, and why some have none."""

    values: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    turns: dict[str, Callable[[], float]] = field(default_factory=dict)

    def enter(self, name: str, prepare: Callable[[], Callable[[], float]]) -> None:
        """Adds a contestant: `prepare()` gives what is called, and returns a value, each round."""
        print(f"  {name}: getting ready", file=sys.stderr, flush=True)
        self._try(name, lambda: self.turns.update({name: prepare()}))

    def run(self, count: int, pause: float = PAUSE_SECONDS) -> None:
        """Rounds in which all take their turns, so that other load meets all alike."""
        for _ in range(count):
            for name in list(self.turns):
                self._try(name, lambda name=name: self._take(name))
                time.sleep(pause)

    def compare(self, ours: str, peer: str, **about: Any) -> Comparison:
        """The comparison of two contestants; `about`: further fields of `Comparison`."""
        failures = [f"{n}: {self.failed[n]}" for n in (ours, peer) if n in self.failed]
        return Comparison(
            peer=peer,
            ours=self.values.get(ours, []),
            theirs=self.values.get(peer, []),
            missing=self.missing.get(ours, "") or self.missing.get(peer, ""),
            failed="; ".join(failures),
            **about,
        )

    def _take(self, name: str) -> None:
        value = self.turns[name]()
        self.values.setdefault(name, []).append(value)

    def _try(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
            return
        except NotInstalled as error:
            self.missing[name] = str(error)
        except WorkerFailed as error:
            self.failed[name] = str(error)
        self.turns.pop(name, None)
        self.values.pop(name, None)
        print(f"  {name}: {self.missing.get(name) or self.failed[name]}", file=sys.stderr)


class Workers(ExitStack):
    """Workers that all end with this context."""

    def start(
        self, script: str, python: str | None = None, environment: Environment = None
    ) -> Worker:
        """A new one; arguments as `Worker`'s."""
        return self.enter_context(Worker(script, python, environment))

    def start_torch(self) -> Worker:
        """One in the Python of `--torch_python`.

        Raises:
          NotInstalled: without the flag.
        """
        if flags.FLAGS.torch_python is None:
            raise NotInstalled("--torch_python names no Python with torch, torchvision and timm")
        return self.start("_torch_worker.py", flags.FLAGS.torch_python)


def torch_versions() -> dict[str, str]:
    """Of the PyTorch peers' packages, or that they are not installed."""
    try:
        with Workers() as workers:
            return workers.start_torch().ask("versions")
    except (NotInstalled, WorkerFailed):
        return {"torch, torchvision, timm": "not installed"}


def define_flags(rounds: int, torch: bool = False) -> None:
    """The flags that benchmarks have in common: --rounds, --output, --torch_python."""
    flags.DEFINE_integer("rounds", rounds, "Measurements of each side, taking turns.", 1)
    flags.DEFINE_string("output", None, "JSON file for the result.")
    if torch:
        flags.DEFINE_string(
            "torch_python",
            None,
            "A Python that has torch, torchvision and timm, such as another environment's "
            "bin/python. Without it those peers are reported as not installed.",
        )


def run(main: Callable[[], None], result_flag: str = "output") -> None:
    """As `programs.run`, but the flag of the result is checked before anything is measured."""

    def checked() -> None:
        check_result_file(flags.FLAGS[result_flag])
        main()

    programs.run(checked)


def check_result_file(flag: Any) -> None:
    """Makes the folder of the file that a flag (an absl flag holder) names.

    Raises:
      UsageError: if the name is that of no file, or of one that cannot be written.
    """
    programs.check_output_file(flag)
    if flag.value is None:
        return
    folder = Path(flag.value).absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(
            f"--{flag.name}: expected a file in a folder that can be written to, received "
            f"{flag.value!r}: {error.strerror}"
        ) from error


def check_names(flag: Any, known: Collection[str]) -> None:
    """Raises a UsageError if a name in a list flag (an absl flag holder) is not among `known`."""
    for name in flag.value:
        if name not in known:
            raise UsageError(
                f"--{flag.name}: expected some of {programs.listed(known)}, received {name!r}"
                f"{suggestion(name, known)}"
            )


def finish(comparisons: Sequence[Comparison], **details: Any) -> None:
    """Prints the comparisons, and writes them to --output with what `write_result` adds.

    Args:
      comparisons: the lines.
      details: further results, and `versions` of peers, in plain values.

    Raises:
      TrainingFailure: if one has no values of ours because they failed; all is written before.
    """
    for comparison in comparisons:
        print(comparison)
    if flags.FLAGS.output:
        write_result(Path(flags.FLAGS.output), comparisons, **details)
    for comparison in comparisons:
        if comparison.failed and not comparison.ours:
            raise TrainingFailure(f"{comparison.what}: {comparison.failed}")


def write_result(path: Path, comparisons: Sequence[Comparison], **details: Any) -> None:
    """Writes comparisons and details with date, revision, machine and versions."""
    report = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "revision": revision(),
        "machine": machine(),
        "versions": {**versions(), **details.pop("versions", {})},
        "comparisons": [comparison.as_dict() for comparison in comparisons],
        **details,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(report, indent=1) + "\n")


def revision(folder: Path = Path(__file__).parent) -> dict[str, Any] | None:
    """The Git revision of the checkout, and whether files differ from it; None without one.

    Those in docs do not count: rendering the page changes it. `training.run_summary` knows the
    revision too, but imports TensorFlow, which many benchmarks leave to other processes.
    """
    commit = ask_git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = ask_git(folder, "status", "--porcelain", "--", ":/", ":(top,exclude)docs")
    return {"commit": commit, "changed": bool(changes)}


def machine() -> dict[str, Any]:
    """The processor, and how many of its cores may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = {name.strip(): value for name, _, value in (line.partition(":") for line in lines)}
    vectors = [name for name in ("avx2", "avx512f") if name in fields.get("flags", "").split()]
    return {
        "processor": fields.get("model name", platform.processor()).strip(),
        "vector_instructions": vectors,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_cores(seconds: float) -> float | None:
    """How many cores were at work on average, anybody's, while this process slept so long."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    readings = []
    for pause in (seconds, 0.0):
        user, nice, system, idle, waiting, *rest = map(int, stat.read_text().split()[1:9])
        readings.append((user + nice + system + sum(rest), idle + waiting))
        time.sleep(pause)
    busy, idle = (after - before for before, after in zip(*readings, strict=True))
    return round((os.cpu_count() or 1) * busy / max(busy + idle, 1), 2)


def versions() -> dict[str, str]:
    """Of Python and the packages of this environment, without importing them."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
