"""Book-keeping of examples that cannot be used: counted and named, never silently dropped."""

from __future__ import annotations

import re
import threading

NAMED_RECORDS = 20  # how many bad records a report names
_SAYS_WHY = re.compile(r"#\d+ \(.+\)$")


class TooManyBadRecords(ValueError):
    """More of the data is unusable than the user accepts."""


class BadRecords:
    """Thread-safe collector of bad records.

    A record is counted once however often it is met, because every epoch meets it again.

    Args:
        max_share: largest accepted share of bad records among `total_examples`, in [0, 1].
        total_examples: number of records looked at, good and bad together. It may be set later.

    Raises:
        ValueError: if `max_share` is outside [0, 1].
    """

    def __init__(self, max_share: float = 0.01, total_examples: int = 0) -> None:
        if not 0.0 <= max_share <= 1.0:
            raise ValueError(
                f"max_share: expected a share in [0, 1], received {max_share}; "
                "max_bad_share=0.01 accepts one bad record in a hundred"
            )
        self.max_share = max_share
        self.total_examples = total_examples
        self._reasons: dict[str, str] = {}
        self._refused: set[bytes] = set()
        self._lock = threading.Lock()

    def add(self, name: str, reason: str) -> None:
        """Notes the record `name`; of several reasons for one name the first is kept.

        The reason is empty if the name says it.
        """
        with self._lock:
            self._reasons.setdefault(name, reason)

    def add_image(self, name: str) -> None:
        """Notes a record without an image that can be decoded.

        Where a source of records knows better what is wrong, that stands behind the record's
        number: "train-0#7 (not exactly one label)".
        """
        self.add(name, "" if _SAYS_WHY.search(name) else "not a whole image")

    def refuse(self, name: str) -> None:
        """Notes an image whose damage shows only when it is decoded: it must not be.

        Pipelines that are built from now on leave it out.

        Args:
          name: of the record, with what is no UTF-8 in it escaped by surrogates.
        """
        raw = name.encode(errors="surrogateescape")
        self.add(raw.decode(errors="replace"), "cannot be decoded")
        with self._lock:
            self._refused.add(raw)

    @property
    def refused(self) -> list[bytes]:
        """The names that `refuse` was given."""
        with self._lock:
            return sorted(self._refused)

    @property
    def count(self) -> int:
        """Number of different bad records."""
        with self._lock:
            return len(self._reasons)

    def reasons(self) -> dict[str, str]:
        """What is wrong, by the names of all bad records, in the order in which they were found."""
        with self._lock:
            return dict(self._reasons)

    def names(self) -> tuple[str, ...]:
        """Names of the first 20 bad records, in the order in which they were found."""
        return tuple(name for name, _ in self._first())

    def reports(self) -> tuple[str, ...]:
        """The first 20 bad records as "name (reason)"."""
        return tuple(f"{name} ({reason})" if reason else name for name, reason in self._first())

    def check(self) -> None:
        """Raises `TooManyBadRecords` if the share of bad records exceeds `max_share`."""
        count = self.count
        if count <= self.max_share * self.total_examples:
            return
        named = ", ".join(self.reports()[:3])
        more = f" and {count - 3} more" if count > 3 else ""
        raise TooManyBadRecords(
            f"{count} of {self.total_examples} records are bad, expected at most "
            f"{self.max_share:.2%}: {named}{more}; repair or remove them, or raise max_bad_share"
        )

    def _first(self) -> list[tuple[str, str]]:
        with self._lock:
            return list(self._reasons.items())[:NAMED_RECORDS]
