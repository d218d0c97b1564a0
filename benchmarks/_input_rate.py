"""The rate of an input pipeline, measured alike for all of them. Needs no library."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any


def images_per_second(batches: Iterator[Any], seconds: float, warm_up: float) -> float:
    """Draws whole batches for so many seconds, one at least, after some to warm up.

    A fresh iterator has nothing in stock, and while it is drawn from without a pause nothing
    piles up.
    """
    began = time.perf_counter()
    next(batches)
    while time.perf_counter() - began < warm_up:
        next(batches)
    count, began = 0, time.perf_counter()
    while not count or time.perf_counter() - began < seconds:
        batch = next(batches)
        count += len(batch)
    return count / (time.perf_counter() - began)
