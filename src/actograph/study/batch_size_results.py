"""The numbers of `batch-size`: of each size the best rate, paces, and noise scales.

No idea of sentences or figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from actograph.study.estimate import Estimate, geometric_mean_of, mean_of
from actograph.study.study import Results

MEMORY, PACE = "memory", "pace"  # trials that are no trainings
EPOCHS, STEPS, TIME = BUDGETS = ("epochs", "steps", "time")  # what two sizes can have equal amounts of
SAME, ROOT, LINEAR = "same", "root", "linear"  # rules for the rate
HALF, DOUBLE = "half", "double"


@dataclass(frozen=True)
class Sizes:
    """The outcomes by budget and batch size; of several rates the one whose mean accuracy is best."""

    results: Results
    base: int
    best: Mapping[str, Mapping[int, str]]  # variant by budget and size, sizes rising

    @classmethod
    def of(cls, results: Results, base: int) -> Sizes:
        """Look for the best rate of each."""
        best: dict[str, dict[int, str]] = {}
        for budget in BUDGETS:
            by_size: dict[int, list[str]] = {}
            for variant, options in trainings(results).items():
                size = int(options["size"])
                if options["budget"] == budget or size == base:  # the base has as much of everything
                    by_size.setdefault(size, []).append(variant)
            best[budget] = {
                size: max(by_size[size], key=lambda one: results.mean(one, "accuracy").value)
                for size in sorted(by_size)
            }
        return cls(results, base, best)

    def accuracy(self, budget: str, size: int, *, name: str = "accuracy") -> Estimate:
        """Estimate the accuracy of a size."""
        return self.results.mean(self.best[budget][size], name)

    def difference(self, budget: str, a: int, b: int, num_looks: int) -> Estimate:
        """Estimate by how much size a is more accurate than size b."""
        return self.results.difference(
            self.best[budget][a], self.best[budget][b], "accuracy", num_looks=num_looks
        )

    def rate(self, budget: str, size: int) -> float:
        """Return the rate of the best variant."""
        return next(iter(self.results.of(self.best[budget][size]).values()))["lr"]  # type: ignore[no-any-return]


def trainings(results: Results) -> dict[str, Mapping[str, Any]]:
    """Return the variants that are trainings, with their options."""
    return {
        one.trial.variant: one.trial.options
        for one in results.outcomes
        if "size" in one.trial.options and one.error is None
    }


def paces_of(results: Results) -> dict[int, Estimate]:
    """Estimate the samples a second of each size over the seeds, each the median of its rounds."""
    by_size: dict[int, list[float]] = {}
    for values in results.of(PACE).values():
        for size, rounds in values["paces"].items():
            by_size.setdefault(int(size), []).append(statistics.median(rounds))
    return {size: mean_of(by_size[size]) for size in sorted(by_size)}


def noise_of(results: Results) -> list[dict[int, Mapping[str, Any]]]:
    """Return what was measured at each point of the training, by seed."""
    points: list[dict[int, Mapping[str, Any]]] = []
    for variant in trainings(results):
        for seed, values in results.of(variant).items():
            for position, one in enumerate(values["noise"]):
                if position == len(points):
                    points.append({})
                points[position][seed] = one
    return points


def noise_scale(measured: Iterable[Mapping[str, Any]]) -> Estimate:
    """Estimate the typical noise scale over the seeds; unknown where one of them has none."""
    return geometric_mean_of([one["scale"] for one in measured])
