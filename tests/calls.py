"""Count function calls per training step: deterministic, so that a test can hold a limit where a time would be noise."""

from __future__ import annotations

import cProfile
from collections.abc import Callable

FEW, MANY = 10, 60  # steps of the two runs; their difference leaves out what happens once a fit


def calls_per_step(run: Callable[[int], None]) -> float:
    """Return the Python and C function calls of one more step in ``run(num_steps)``, as cProfile counts them."""
    run(FEW)  # lazy imports and caches
    return (_calls(run, MANY) - _calls(run, FEW)) / (MANY - FEW)


def _calls(run: Callable[[int], None], num_steps: int) -> int:
    profile = cProfile.Profile()
    profile.enable()
    try:
        run(num_steps)
    finally:
        profile.disable()
    return sum(entry.callcount for entry in profile.getstats())
