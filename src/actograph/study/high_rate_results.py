"""The numbers of `high-rate`: what each peak, constant rate and budget came to, and how two of them compare.

No idea of sentences or figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actograph.study.estimate import Estimate, difference_of, geometric_mean_of, mean_of, rate_of
from actograph.study.study import Results
from actograph.study.trial import Values

CYCLE, CONSTANT = "one cycle to", "constant"
LOW, HIGH = (
    0.1,
    3.0,
)  # rates over the setup's: the low one of the textbook's comparison, and a high one that mostly trains


@dataclass(frozen=True)
class Point:
    """What is compared: a kind of schedule, its highest rate over the setup's, and the epochs it was given."""

    kind: str
    factor: float
    budget: int


class Runs:
    """The trainings, found by `Point`. A constant rate's are read after any epoch, a cycle's only at their ends."""

    def __init__(self, results: Results, lr: float, budgets: Sequence[int]) -> None:
        self.lr, self.budgets = lr, list(budgets)
        self._values: dict[tuple[str, float, int], dict[int, Values]] = {}
        for one in results.outcomes:
            if one.error is None:
                told = one.trial.options
                key = (str(told["kind"]), float(told["factor"]), int(told["epochs"]))
                self._values.setdefault(key, {})[one.trial.seed] = one.values

    @property
    def full(self) -> int:
        """The largest budget."""
        return self.budgets[-1]

    def factors(self, kind: str, budget: int) -> list[float]:
        """Return the rates of which a training came through, ascending."""
        asked = budget if kind == CYCLE else self.full
        return sorted(factor for known, factor, epochs in self._values if (known, epochs) == (kind, asked))

    def rate(self, factor: float) -> str:
        """Return a rate as it stands in the variants' names."""
        return f"{factor * self.lr:.3g}"

    def trainings(self, point: Point) -> dict[int, Values]:
        """Return the whole trainings that a point is read from, by seed."""
        epochs = point.budget if point.kind == CYCLE else self.full
        return self._values.get((point.kind, point.factor, epochs), {})

    def numbers(self, point: Point, name: str) -> dict[int, float]:
        """Return one number by seed, as it is after the point's epochs; ``gap`` is validation minus training loss."""
        looks = {seed: one["looks"][point.budget - 1] for seed, one in self.trainings(point).items()}
        if name == "gap":
            return {seed: look["valid_loss"] - look["train_loss"] for seed, look in looks.items()}
        return {seed: float(look[name]) for seed, look in looks.items()}

    def mean(self, point: Point, name: str) -> Estimate:
        """Estimate the mean of one number."""
        return mean_of(list(self.numbers(point, name).values()))

    def typical(self, point: Point, name: str) -> Estimate:
        """Estimate the typical size of a loss."""
        return geometric_mean_of(list(self.numbers(point, name).values()))

    def error(self, point: Point) -> Estimate:
        """Estimate the typical share of wrong answers; none wrong counts as half of the finest share that can be seen."""
        errors = {seed: 1 - one for seed, one in self.numbers(point, "accuracy").items()}
        least = min((one["num_samples"] for one in self.trainings(point).values()), default=1)
        return geometric_mean_of([max(error, 1 / (2 * least)) for error in errors.values()])

    def gain(self, a: Point, b: Point, *, num_looks: int = 1, name: str = "accuracy") -> Estimate:
        """Estimate by how much a is above b in one number, seeds paired."""
        return difference_of(self.numbers(a, name), self.numbers(b, name), num_looks=num_looks)

    def failed(self, factor: float, budget: int) -> tuple[int, int]:
        """Return how many trainings with one cycle failed, and of how many."""
        found = self.trainings(Point(CYCLE, factor, budget))
        return sum(bool(one["failed"]) for one in found.values()), len(found)

    def failure_rate(self, factor: float, budget: int) -> Estimate:
        """Estimate how often it fails."""
        return rate_of(*self.failed(factor, budget))

    def best(self, kind: str, budget: int) -> float | None:
        """Return the rate of the highest mean accuracy."""
        factors = self.factors(kind, budget)
        return max(
            factors, key=lambda one: self.mean(Point(kind, one, budget), "accuracy").value, default=None
        )

    def level_with(self, best: float, budget: int) -> list[float]:
        """Return the peaks next to the best, and it, that never failed and are not told from it; all are judged together."""
        factors = self.factors(CYCLE, budget)
        same = {
            factor: factor == best
            or (
                not self.failed(factor, budget)[0]
                and not self.gain(
                    Point(CYCLE, best, budget), Point(CYCLE, factor, budget), num_looks=len(factors) - 1
                ).excludes_zero
            )
            for factor in factors
        }
        at = first = last = factors.index(best)
        while first and same[factors[first - 1]]:
            first -= 1
        while last + 1 < len(factors) and same[factors[last + 1]]:
            last += 1
        assert first <= at <= last
        return factors[first : last + 1]

    def interaction(self) -> Estimate:
        """Estimate what high peak and cycle gain together beyond what each gains alone, with the full budget."""
        corner = {
            (kind, factor): self.numbers(Point(kind, factor, self.full), "accuracy")
            for kind in (CYCLE, CONSTANT)
            for factor in (LOW, HIGH)
        }
        seeds = set.intersection(*(set(one) for one in corner.values()))
        return mean_of(
            [
                corner[CYCLE, HIGH][seed]
                - corner[CYCLE, LOW][seed]
                - corner[CONSTANT, HIGH][seed]
                + corner[CONSTANT, LOW][seed]
                for seed in sorted(seeds)
            ],
            num_looks=3,  # with its two parts
        )

    def steps_to(self, kind: str, factor: float, target: float) -> dict[int, float]:
        """Return after how many steps each seed first had the accuracy, with whichever budget; infinite where never."""
        found: dict[int, float] = {}
        common = set(self.trainings(Point(kind, factor, self.full)))
        for budget in self.budgets if kind == CYCLE else [self.full]:
            for seed, one in self.trainings(Point(kind, factor, budget)).items():
                if seed in common:  # others had fewer budgets to reach it with
                    reached = [look["step"] for look in one["looks"] if look["accuracy"] >= target]
                    found[seed] = min([found.get(seed, math.inf), *reached])
        return found

    def at_equal_loss(self, factor: float, budget: int) -> Estimate:
        """Estimate how many times the validation loss of a cycle is that of the constant low rate at equal training loss.

        The low rate's is read off its epochs, straight lines between their logarithms; seeds whose training loss it never
        had do not count.
        """
        reference = self.trainings(Point(CONSTANT, LOW, self.full))
        ratios = []
        for seed, one in self.trainings(Point(CYCLE, factor, budget)).items():
            if seed not in reference:
                continue
            at = one["looks"][-1]
            expected = valid_loss_at(reference[seed]["looks"], at["train_loss"])
            if expected is not None:
                ratios.append(at["valid_loss"] / expected)
        return geometric_mean_of(ratios)


def valid_loss_at(looks: Sequence[Mapping[str, float]], train_loss: float) -> float | None:
    """Return the validation loss at which a training had this training loss; None where it never had.

    >>> looks = [{"train_loss": 1.0, "valid_loss": 1.0}, {"train_loss": 0.25, "valid_loss": 0.5}]
    >>> round(valid_loss_at(looks, 0.5), 3), valid_loss_at(looks, 0.1)
    (0.707, None)
    """
    train = np.array([look["train_loss"] for look in looks])
    valid = np.array([look["valid_loss"] for look in looks])
    if not (np.isfinite(train).all() and np.isfinite(valid).all()):
        return None
    for position in range(len(looks) - 1):
        high, low = train[position], train[position + 1]
        if low <= train_loss <= high and low < high:
            share = math.log(high / train_loss) / math.log(high / low)
            return float(valid[position] ** (1 - share) * valid[position + 1] ** share)
    return None
