"""What follows from the trainings of ``high-rate``, in sentences.

No idea of how they were made, nor of figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from actograph.show import words
from actograph.study.chapter import Chapter
from actograph.study.estimate import Estimate, difference_of, geometric_mean_of
from actograph.study.high_rate_results import CONSTANT, CYCLE, HIGH, LOW, Point, Runs
from actograph.study.high_rate_shown import pictures, tables
from actograph.study.tell import joined, points, share

HALF = 0.5  # of the trainings: a rate at which more fail does not train


def chapter(
    name: str, question: str, textbook: str, runs: Runs, method: str, failures: Sequence[str]
) -> Chapter:
    """Return the chapter."""
    return Chapter(
        name,
        question,
        textbook,
        sentences_of(runs),
        tables(runs, target_of(runs)),
        pictures(runs),
        method,
        failures,
        _facts(runs),
    )


def sentences_of(runs: Runs) -> list[str]:
    """Return the verdict."""
    if not runs.factors(CYCLE, runs.full):
        return ["Nothing can be said: no training with one cycle and all epochs came through."]
    return [
        *about_best(runs),
        *about_low(runs),
        *about_parts(runs),
        *about_constant(runs),
        *about_steps(runs),
        *about_gap(runs),
        *about_equal_loss(runs),
        *about_breaking(runs),
    ]


def about_best(runs: Runs) -> list[str]:
    """Name the best peak of each budget, and the range that cannot be told from it."""
    parts = []
    for budget in runs.budgets:
        best = runs.best(CYCLE, budget)
        if best is None:
            continue
        level = runs.level_with(best, budget)
        accuracy = runs.mean(Point(CYCLE, best, budget), "accuracy")
        told = f"{runs.rate(best)} over {_epochs(budget)} ({share(accuracy.value)}; "
        parts.append(
            f"{told}its neighbours are worse, or fail)"
            if level == [best]
            else f"{told}from {runs.rate(level[0])} to {runs.rate(level[-1])} none can be told from it, in "
            f"{accuracy.num} seeds)"
        )
    return [f"With one cycle the most accurate peak is {joined(parts)}."]


def about_low(runs: Runs) -> list[str]:
    """Compare one cycle to the high peak with the low constant rate, at each budget."""
    gains = {
        budget: runs.gain(
            Point(CYCLE, HIGH, budget), Point(CONSTANT, LOW, budget), num_looks=len(runs.budgets)
        )
        for budget in runs.budgets
    }
    known = {budget: gain for budget, gain in gains.items() if gain.is_known}
    if not known:
        return []
    parts = [f"{points(gain)} after {_epochs(budget)}" for budget, gain in known.items()]
    told = (
        f"One cycle to {runs.rate(HIGH)} against a constant {runs.rate(LOW)}, at equal budget, changes accuracy by "
        f"{joined(parts)}"
    )
    first, last = min(known), max(known)
    if first == last:
        return [f"{told}{_undecided(known)}."]
    fade = difference_of(_by_seed(runs, first), _by_seed(runs, last))
    if fade.excludes_zero and fade.value > 0:
        fades = f"the advantage fades with the budget, by {points(fade)} of accuracy (which cannot rise above 100 %)"
    elif fade.excludes_zero:
        fades = f"the longer the training, the more the cycle has over it, by {points(_turned(fade))}"
    else:
        fades = "whether a longer budget changes that cannot be told"
    return [f"{told}{_undecided(known)}; {fades}."]


def _by_seed(runs: Runs, budget: int) -> dict[int, float]:
    a, b = (
        runs.numbers(Point(kind, factor, budget), "accuracy")
        for kind, factor in ((CYCLE, HIGH), (CONSTANT, LOW))
    )
    return {seed: a[seed] - b[seed] for seed in a.keys() & b.keys()}


def about_parts(runs: Runs) -> list[str]:
    """Take the comparison apart: the high rate without the cycle, the cycle without the high rate, and both."""
    base = Point(CONSTANT, LOW, runs.full)
    rate = runs.gain(Point(CONSTANT, HIGH, runs.full), base, num_looks=3)
    cycle = runs.gain(Point(CYCLE, LOW, runs.full), base, num_looks=3)
    both = runs.interaction()
    if not (rate.is_known and cycle.is_known and both.is_known):
        return []
    told = (
        f"Taken apart, after {_epochs(runs.full)}: the high rate held constant changes the low one's accuracy by "
        f"{points(rate)}, the cycle at the low rate by {points(cycle)}, and the two together by "
        f"{points(both)} more than the sum"
    )
    if both.excludes_zero and both.value > 0:
        alone = [one for one in (rate, cycle) if one.excludes_zero and one.value > 0]
        return [f"{told}: {'they need each other' if not alone else 'each makes the other worth more'}."]
    if both.excludes_zero:
        return [f"{told}: together they gain less than apart."]
    return [f"{told}; whether they need each other cannot be told."]


def about_constant(runs: Runs) -> list[str]:
    """Compare the best cycle with the best constant rate: the rival that the textbook leaves out."""
    constant, cycle = (runs.best(kind, runs.full) for kind in (CONSTANT, CYCLE))
    if constant is None or cycle is None:
        return []
    gain = runs.gain(Point(CYCLE, cycle, runs.full), Point(CONSTANT, constant, runs.full))
    begins = (
        f"Against the best constant rate, {runs.rate(constant)}, the best cycle, to {runs.rate(cycle)}, has "
        f"{points(gain)} of accuracy after {_epochs(runs.full)}, both chosen on these seeds"
    )
    if not gain.excludes_zero:
        return [f"{begins}: which of them is better cannot be told."]
    return [f"{begins}: {'the cycle' if gain.value > 0 else 'the constant rate'} is better."]


def target_of(runs: Runs) -> float:
    """Return the accuracy to be reached: the mean that the low constant rate ends with; NaN where none came through."""
    return runs.mean(Point(CONSTANT, LOW, runs.full), "accuracy").value


def about_steps(runs: Runs) -> list[str]:
    """Tell which peak comes soonest to what the low constant rate ends with."""
    target = target_of(runs)
    if not math.isfinite(target):
        return []
    medians = {
        factor: float(np.median(list(found.values())))
        for factor in runs.factors(CYCLE, runs.full)
        if (found := runs.steps_to(CYCLE, factor, target))
    }
    soonest = min(medians.values(), default=math.inf)
    last = max(int(one["looks"][-1]["step"]) for one in _low(runs).values())
    begins = f"The {share(target)} that the constant {runs.rate(LOW)} has after {last} steps"
    if not math.isfinite(soonest):
        return [f"{begins} no peak reaches in most seeds."]
    peaks = joined([runs.rate(factor) for factor, median in medians.items() if median == soonest])
    never = [runs.rate(factor) for factor, median in medians.items() if not math.isfinite(median)]
    tail = f"; most seeds never reach it with {joined(never)}" if never else ""
    level = [
        runs.rate(factor)
        for factor in runs.factors(CONSTANT, runs.full)
        if float(np.median(list(runs.steps_to(CONSTANT, factor, target).values()))) <= soonest
    ]
    tail += f"; a constant {joined(level)} is as soon" if level else ""
    times = last / soonest
    compared = f"{words.number(times, 2)} times as soon" if times > 1 else "no sooner"
    return [
        f"{begins} one cycle reaches soonest to {peaks}, by the median of the trainings after "
        f"{words.number(soonest)}: {compared}{tail}."
    ]


def _low(runs: Runs) -> Mapping[int, Mapping[str, Sequence[Mapping[str, float]]]]:
    return runs.trainings(Point(CONSTANT, LOW, runs.full))


def about_gap(runs: Runs) -> list[str]:
    """Compare the generalization gap of the high and the low peak, and say what a progress bar would show."""
    high, low = Point(CYCLE, HIGH, runs.full), Point(CYCLE, LOW, runs.full)
    gain = runs.gain(high, low, name="gap")
    if not gain.is_known:
        return []
    a, b = runs.mean(high, "gap"), runs.mean(low, "gap")
    told = (
        f"On equal footing validation loss minus training loss is {words.number(a.value)} with the peak of "
        f"{runs.rate(HIGH)} and {words.number(b.value)} with {runs.rate(LOW)} after {_epochs(runs.full)}"
    )
    if not gain.excludes_zero:
        told += ", which the seeds do not tell apart."
    elif gain.value > 0:
        losses = _ratio(runs, high, low, "valid_loss")
        told += ": the high rate widens the gap" + (
            ", although its validation loss is lower" if losses.is_known and losses.high < 1 else ""
        )
        told += "."
    else:
        told += ": the high rate narrows the gap."
    return [told, *_shown_gap(runs)]


def _shown_gap(runs: Runs) -> list[str]:
    """Tell where the losses as they are shown while training have the opposite sign."""
    first = Point(CYCLE, HIGH, runs.budgets[0])
    shown, gap = runs.mean(first, "shown_gap"), runs.mean(first, "gap")
    if not shown.excludes_zero or shown.value > 0 or gap.value < shown.value / 2:
        return []
    return [
        f"The losses shown while training have it {words.number(shown.value)} after {_epochs(first.budget)} where it is "
        f"{words.number(gap.value, 2)}: the shown training loss is a mean over the epoch, while the weights change."
    ]


def about_equal_loss(runs: Runs) -> list[str]:
    """Tell whether the high rate generalizes better at equal training loss."""
    found = {budget: runs.at_equal_loss(HIGH, budget) for budget in runs.budgets}
    known = {budget: ratio for budget, ratio in found.items() if ratio.is_known}
    begins = f"At equal training loss the cycle to {runs.rate(HIGH)}"
    if not known:
        return [
            f"{begins} and the constant {runs.rate(LOW)} cannot be compared: too few seeds had one that both had."
        ]
    parts = [
        f"{words.number(ratio.value)} times ({words.number(ratio.low)} to {words.number(ratio.high)}; {ratio.num} "
        f"seeds) after {_epochs(budget)}"
        for budget, ratio in known.items()
    ]
    told = f"{begins} has a validation loss of the constant {runs.rate(LOW)}'s {joined(parts)}"
    lower = [one for one in known.values() if one.high < 1]
    higher = [one for one in known.values() if one.low > 1]
    if lower and not higher:
        return [f"{told}: it generalizes better than by its training loss alone."]
    if higher and not lower:
        return [f"{told}: it generalizes worse, for the same training loss."]
    return [f"{told}: whether it generalizes better, beyond fitting sooner, cannot be told."]


def about_breaking(runs: Runs) -> list[str]:
    """Tell where trainings begin to fail, with the least budget, which has most seeds, and with the full one."""
    least = runs.budgets[0]
    factors = runs.factors(CYCLE, least)
    counts = {factor: runs.failed(factor, least) for factor in factors}
    broken = next((one for one in factors if counts[one][0]), None)
    if broken is None:
        top = factors[-1] if factors else None
        if top is None:
            return []
        return [
            f"Nothing failed up to the peak of {runs.rate(top)} over {_epochs(least)} (none of {counts[top][1]} still "
            f"allows {share(runs.failure_rate(top, least).high)}): where it breaks cannot be told."
        ]
    told = f"Over {_epochs(least)} {_counted(runs, broken, least)} fail with the peak of {runs.rate(broken)}"
    most = next((one for one in factors if counts[one][0] > HALF * counts[one][1]), None)
    if most is not None and most != broken:
        told += f" and {_counted(runs, most, least)} with {runs.rate(most)}"
    below = [one for one in factors if one < broken]
    if below:
        told += f"; the highest peak tried below is {runs.rate(below[-1])}, with {_counted(runs, below[-1], least)}"
    if runs.full != least and broken in runs.factors(CYCLE, runs.full):
        told += (
            f". Over {_epochs(runs.full)} {_counted(runs, broken, runs.full)} fail with {runs.rate(broken)}"
        )
        a, b = runs.failure_rate(broken, least), runs.failure_rate(broken, runs.full)
        told += (
            ", from which the budget's part cannot be told"
            if a.overlaps(b)
            else f": that peak fails {'less' if b.value < a.value else 'more'} often in the longer cycle"
        )
    return [f"{told}."]


def _counted(runs: Runs, factor: float, budget: int) -> str:
    failed, num = runs.failed(factor, budget)
    rate = runs.failure_rate(factor, budget)
    return f"{failed} of {num} ({share(rate.low)} to {share(rate.high)})"


def _ratio(runs: Runs, a: Point, b: Point, name: str) -> Estimate:
    ours, theirs = runs.numbers(a, name), runs.numbers(b, name)
    return geometric_mean_of([ours[seed] / theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def _facts(runs: Runs) -> dict[str, object]:
    target = target_of(runs)
    return {
        "target accuracy": target,
        "budgets": {
            str(budget): {
                "best peak": None if (best := runs.best(CYCLE, budget)) is None else runs.rate(best),
                "not told from it": []
                if best is None
                else list(map(runs.rate, runs.level_with(best, budget))),
                "cycle to the high peak over the low constant rate": runs.gain(
                    Point(CYCLE, HIGH, budget), Point(CONSTANT, LOW, budget), num_looks=len(runs.budgets)
                ),
                "failure rate": {
                    runs.rate(one): runs.failure_rate(one, budget) for one in runs.factors(CYCLE, budget)
                },
                "validation loss at equal training loss": runs.at_equal_loss(HIGH, budget),
            }
            for budget in runs.budgets
        },
        "interaction": runs.interaction(),
        "gap, high peak minus low": runs.gain(
            Point(CYCLE, HIGH, runs.full), Point(CYCLE, LOW, runs.full), name="gap"
        ),
    }


def _epochs(num: int) -> str:
    return f"{num} epoch{'' if num == 1 else 's'}"


def _undecided(gains: Mapping[int, Estimate]) -> str:
    """Say which budgets do not tell the sign."""
    unknown = [str(budget) for budget, gain in gains.items() if not gain.excludes_zero]
    return f" (at {joined(unknown)} the seeds do not tell the sign)" if unknown else ""


def _turned(one: Estimate) -> Estimate:
    """Return the difference the other way round."""
    return Estimate(-one.value, -one.high, -one.low, one.num)
