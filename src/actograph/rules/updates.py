"""`Updates`: how far the updates of a run move its weights, and by what rates, as several rules read it.

No idea of any particular rule. All numbers are of the first optimizer, which ends the run's steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.labels import entropy, label_counts
from actograph.rules.losses import LossCurve, loss_curve
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.view import RunView

PHASE = "update"  # of the scalars that are measured at updates
MIN_RECORDED = 5  # updates: with fewer a median says little
NO_UPDATES = "too few updates were measured: it needs a loss, a learning rate and some recorded updates"
# update over weights at the first step, momentum's build-up counted in, of trainings at rates that were tuned: 0.006 to
# 0.085 (five networks, SGD and Adam); the rates at which they still reached 95 % span a factor of ten and more around
GOOD_FIRST_RATIO = 0.03
# update over weights at the first update, and of three in a row, of rates that are far too high: 30 to 200 times tuned ones
# have 0.4 to 9, and 0.13 to 0.7; tuned ones 0.006 to 0.15, and up to 0.1 under Adam, 0.13 under SGD (fifteen networks)
REPLACED, LARGE_ADAPTIVE, LARGE = 0.3, 0.1, 0.2
ADAM_USUAL = 1e-3  # learning rate; Kingma, Ba 2015
FEW = 5  # recorded updates at the beginning
MANY = 20  # recorded updates: half of them still tell a cosine of 0.2 from 0
STANDARD_ERRORS = 3.0
AGREE = (
    0.03  # cosine between neighbouring gradients; where nothing is left to gain it was below (0.00 to 0.04)
)
BETTER_THAN_CHANCE = (
    0.5  # of the entropy of the labels: a loss below that is not that of a network that begins
)
IN_FORCE = 0.5  # of the peak: the rates that count as the rate that was set


@dataclass(frozen=True)
class Updates:
    """Rates, updates and loss of a run; see `of`."""

    view: RunView
    rates: ScalarSeries
    ratio: ScalarSeries  # median over sampled weights of update norm / weight norm
    curve: LossCurve
    settings: Fact | None

    @classmethod
    def of(cls, view: RunView) -> Updates | None:
        """Return what is known; None where it is too little to judge."""
        rates, ratio = view.scalar("lr"), view.scalar("update_ratio", PHASE)
        curve = loss_curve(view)
        if not len(ratio) or not len(rates) or not len(curve):
            return None
        if len(ratio) < MIN_RECORDED and np.isfinite(view.scalar("loss").values[-1]):
            return None  # of a run that died at once there is no more
        of_first = [fact for fact in view.facts.of(FactKind.SETTINGS) if fact.subject == "optimizer"]
        return cls(view, rates, ratio, curve, of_first[0] if of_first else None)

    def scalar(self, name: str) -> ScalarSeries:
        """Return what was measured at updates, finite values only."""
        series = self.view.scalar(name, PHASE)
        known = np.isfinite(series.values)
        return ScalarSeries(series.steps[known], series.values[known], series.low[known], series.high[known])

    # Rates

    @cached_property
    def peak_rate(self) -> float:
        """The highest learning rate: the number that a user sets."""
        return float(np.nanmax(self.rates.high))

    @property
    def last_rate(self) -> float:
        """The learning rate at the end."""
        return float(self.rates.values[-1])

    @cached_property
    def in_force_since(self) -> int:
        """The first step at which the rate was at least half of its peak."""
        return int(self.rates.steps[np.argmax(self.rates.high >= IN_FORCE * self.peak_rate)])

    @property
    def is_warming_up(self) -> bool:
        """Whether the rate still rises at the end."""
        values = self.rates.values[np.isfinite(self.rates.values)]
        return len(values) > 1 and bool(values[-1] >= values.max() and values[-1] > values[len(values) // 2])

    def rate_at(self, steps: Floats) -> Floats:
        """Return the learning rates at steps (n,)."""
        found: Floats = np.interp(steps, self.rates.steps, self.rates.values)
        return found

    # Movement

    @cached_property
    def early_ratio(self) -> float:
        """Update over weights, median over the first twentieth of the run with the rate in force; else foretold."""
        begin = int(np.searchsorted(self.ratio.steps, self.in_force_since))
        num = max(FEW, int(np.sum(self.ratio.steps < self.in_force_since + self.view.num_steps / 20) - begin))
        there = self.ratio.values[begin : begin + num]
        return float(np.median(there)) if len(there) else self.foretold(self.in_force_since)

    def foretold(self, step: int) -> float:
        """Return update over weights at a step, as the updates recorded before it foretell it: proportional to the rate."""
        steps, shares = self._per_rate(self.ratio)
        before = shares[steps < step][-FEW:]
        rate = float(self.rate_at(np.array([step]))[0])
        return float(np.median(before)) * rate if len(before) else 0.0

    def _per_rate(self, ratio: ScalarSeries) -> tuple[Floats, Floats]:
        """Return steps and updates over weights, divided by the rate."""
        rates = self.rate_at(ratio.steps)
        there = rates > 0
        return ratio.steps[there], ratio.values[there] / rates[there]

    @cached_property
    def peak_ratio(self) -> float:
        """The largest update over weights that three recorded updates in a row came near, single ones left out."""
        return peak(self.ratio.values)

    @cached_property
    def way(self) -> float:
        """The sum over the run of update over weights, of the weight that moved most: how far they can have come.

        Between recorded updates they are taken to be proportional to the rate, which is known at each step.
        """
        steps, shares = self._per_rate(self.scalar("largest_update_ratio"))
        every = np.arange(self.view.num_steps, dtype=np.float64)
        return float(np.sum(np.interp(every, steps, shares) * self.rate_at(every))) if len(steps) else 0.0

    @cached_property
    def first_ratio(self) -> float | None:
        """Update over weights at the peak rate, as the first update foretells it; None where that was not measured.

        An update is proportional to its rate, and at the first one weights and gradients are what they are at any rate.
        SGD's momentum m makes updates grow by 1 / (1 - m) in the steps after; Adam's does not.
        """
        if not len(self.ratio) or self.ratio.steps[0] > FEW:
            return None
        rate = float(self.rate_at(self.ratio.steps[:1])[0])
        if not rate > 0 or not self.ratio.values[0] > 0:
            return None
        first = float(self.ratio.values[0]) * self.peak_rate / rate
        return first if self.is_adaptive else first / max(1.0 - self.momentum, 1e-3)

    @property
    def replaces_weights(self) -> bool:
        """Whether the updates, foretold at the first and seen later, are of the size of the weights themselves."""
        first, large = self.first_ratio, LARGE_ADAPTIVE if self.is_adaptive else LARGE
        return first is not None and first >= REPLACED and self.peak_ratio >= large

    def good_rate(self) -> float | None:
        """Return the peak rate at which updates would have a usual size; None where the first was not measured."""
        if self.first_ratio is None:
            return None
        rate = self.peak_rate * GOOD_FIRST_RATIO / self.first_ratio
        return float(np.sqrt(rate * ADAM_USUAL)) if self.is_adaptive else rate

    @property
    def growth(self) -> float:
        """The weights' size at the end over that at the start, largest where they grew without bound."""
        size = self.scalar("weight_rms").values
        return float(size[-1] / size[0]) if len(size) and size[0] > 0 else 1.0

    # Optimizer

    @property
    def is_adaptive(self) -> bool:
        """Whether each weight's update is divided by the size of its gradients, as Adam's is."""
        return self.settings is not None and "beta2" in self.settings.data

    @property
    def momentum(self) -> float:
        """The momentum, or the first beta."""
        return self.settings.number("momentum") if self.settings is not None else 0.0

    # Loss

    @cached_property
    def base(self) -> float:
        """The loss at the start: of the first steps, or of the very first where it rose at once."""
        first = self.curve.values[:FEW]
        usual = float(np.median(first))
        return float(first[0]) if usual > first[0] * (1 + 3 * min(self.scatter, 1.0)) else usual

    @cached_property
    def scatter(self) -> float:
        """How much single losses scatter, relative to their level; that of the calmer half of the run."""
        levels = np.abs(self.curve.levels)
        known = levels > 0
        return float(np.median(self.curve.noises[known] / levels[known])) if known.any() else 0.0

    @property
    def died(self) -> bool:
        """Whether the loss is not finite at the end."""
        return bool(not np.isfinite(self.view.scalar("loss").values[-1]))

    @property
    def left(self) -> float:
        """The share of the loss at the start that is left at the end; infinite where it died."""
        return float("inf") if self.died else float(self.curve.final / self.base) if self.base > 0 else 0.0

    @property
    def began_well(self) -> bool | None:
        """Whether the network was good from the start, by the labels' entropy; None where labels are not known.

        A validation metric does not tell: where most answers are the same, a share of right ones is high from the start.
        """
        chances = [entropy(labels.shares) for labels in label_counts(self.view)]
        return self.base < BETTER_THAN_CHANCE * max(chances) if chances else None

    @property
    def late_agreement(self) -> Floats:
        """Cosines of neighbouring gradients in the later half of those recorded (n,); all where these are few."""
        cosines = self.scalar("grad_cosine").values
        return cosines if len(cosines) < MANY else cosines[len(cosines) // 2 :]

    @property
    def gradients_agree(self) -> bool:
        """Whether in the later half neighbouring gradients still point the same way: there is more to gain that way."""
        late = self.late_agreement
        if len(late) < MIN_RECORDED - 2:  # the first update has none before it
            return False
        error = float(late.std(ddof=1)) / np.sqrt(len(late))
        return bool(late.mean() > max(AGREE, STANDARD_ERRORS * error))

    @property
    def gradients_last(self) -> bool:
        """Whether gradients at the end are at least a third of what they were."""
        norms = self.scalar("grad_norm").values
        num = max(FEW, len(norms) // 10)
        return len(norms) > 1 and bool(np.median(norms[-num:]) >= np.median(norms[:num]) / 3)


def peak(values: Floats) -> float:
    """Return the largest value that three in a row came near, single ones left out; 0 of none."""
    if not len(values):
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(values, min(3, len(values)))
    return float(np.median(windows, axis=1).max())
