"""`unmeasured`: coverage rests while a training is made that a test only reads.

No idea of what is done meanwhile. Tracing makes such trainings take twice as long and more, and what records them has tests
of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import coverage


@contextmanager
def unmeasured() -> Iterator[None]:
    """Stop whatever coverage is in progress, and go on with it at the end; also as a decorator."""
    stopped: list[coverage.Coverage] = []
    while (measuring := coverage.Coverage.current()) is not None:  # a worker of xdist has one below its own
        measuring.stop()
        stopped.append(measuring)
    try:
        yield
    finally:
        for measuring in reversed(stopped):
            measuring.start()
