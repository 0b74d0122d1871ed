"""The numbers a run has for every layer, of a view that is at hand or read in a process of its own; and whether two agree.

No idea of studies. ``python -m actograph.study.reading RUN`` prints the numbers and what reading them took.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from actograph.show.activations import ActivationView
from actograph.show.run import open_run

Numbers: TypeAlias = Mapping[str, Sequence[float | None]]  # by name; None where JSON has no number
LOSS = "loss"
PROCESS_STATUS = Path("/proc/self/status")
KIB = 1024


def all_numbers(stats: ActivationView) -> dict[str, list[float]]:
    """Return mean, std and near-zero share of every layer at all steps, and the training loss."""
    numbers = {
        f"{layer} {name}": values.tolist()
        for layer in stats.names
        for name, values in stats.layer_stats(layer)._asdict().items()
    }
    return {**numbers, LOSS: stats.view.scalar(LOSS).values.tolist()}


@dataclass(frozen=True)
class Agreement:
    """How many numbers were compared, how many of them are not equal exactly, and by how much at most."""

    num: int
    num_unequal: int
    largest: float


def compared(a: Numbers, b: Numbers) -> Agreement:
    """Compare all numbers of a with those of b: exactly, NaN equal to NaN and to None; one that b lacks is unequal.

    >>> compared({"mean": [1.0, 2.0]}, {"mean": [1.0, 2.5]})
    Agreement(num=2, num_unequal=1, largest=0.5)
    """
    differences: list[float] = []
    for name, values in a.items():
        others = b.get(name, ())
        differences += [_difference(x, y) for x, y in zip(values, others, strict=False)]
        differences += [math.inf] * abs(len(values) - len(others))
    return Agreement(len(differences), sum(one != 0 for one in differences), max(differences, default=0.0))


def _difference(x: float | None, y: float | None) -> float:
    x, y = (None if one is None or math.isnan(one) else one for one in (x, y))
    if x == y:
        return 0.0
    if x is None or y is None or not math.isfinite(x - y):
        return math.inf
    return abs(x - y)


def peak_bytes() -> int | None:
    """Return the most memory this process has held; None where the system does not tell (all but Linux).

    Not ``getrusage``: what it tells begins, in a process made by another, with the memory of that one.
    """
    try:
        lines = PROCESS_STATUS.read_text().splitlines()
    except OSError:
        return None
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kibibytes[0] * KIB if kibibytes else None


def main(path: str) -> None:
    """Print the numbers of the run at ``path`` as JSON, beside what it took to get at them in this process."""
    began_s = time.perf_counter()
    numbers = all_numbers(open_run(path).activation_stats)
    told: dict[str, Any] = {
        "numbers": numbers,
        "read_s": time.perf_counter() - began_s,
        "has_torch": "torch" in sys.modules,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
