"""Python's cyclic garbage collector, kept still where a great many objects are made to stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """No search for reference cycles within the block; afterwards as before.

    Importing TensorFlow, building a network and tracing its training step make hundreds of
    thousands of objects that live on. The collector looks through all of them several times
    meanwhile and finds next to nothing, in an eighth of the time from process start to the first
    training step (docs/performance.md).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
