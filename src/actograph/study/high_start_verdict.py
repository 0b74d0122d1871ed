"""What follows from the trainings of ``high-start``: sentences, tables and figures.

No idea of how they were made: outcomes in, chapter out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from scipy import stats

from actograph.show import theme, words
from actograph.study import figures
from actograph.study.chapter import Chapter, Picture, Table
from actograph.study.estimate import CONFIDENCE, Estimate, difference_of, geometric_mean_of, mean_of, rate_of
from actograph.study.setup import Setup
from actograph.study.study import Results
from actograph.study.tell import share
from actograph.study.trial import Values

ABRUPT, WARM, SGD = "at once", "warm-up to", "SGD at"  # kinds of trainings
LOW, HIGH = (
    0.1,
    6.0,
)  # rates over the setup's; where that is 0.01, as on the digits, the high one is the book's
BOOK_RATE = 0.06
NEAR_BOOK = 0.1  # relative: a rate so near to the book's stands for it
STEPS, WARM_STEPS = (
    80,
    40,
)  # trainings that fail do it in the first dozen steps, and are known for good after 60
FAILED_ABOVE = (
    0.95  # of the loss of who knows the classes' shares only; failed trainings end at 1.00 to 1.01 of it
)
STATS_STEP = 50  # at which near-zero share and dead units are read
NUM_PREDICTORS = 2
HALF = 0.5  # of the trainings: a rate at which more fail does not train


@dataclass(frozen=True)
class Group:
    """The trainings of one kind and rate: what was measured, by seed."""

    kind: str
    factor: float
    values: Mapping[int, Values]

    @property
    def num_failed(self) -> int:
        """Trainings that failed."""
        return sum(bool(one["failed"]) for one in self.values.values())

    @property
    def num_waiting(self) -> int:
        """Trainings that did not fail and yet know no more than the classes' shares: slow, as far as can be seen."""
        return sum(
            not one["failed"] and one["final_loss"] >= FAILED_ABOVE * one["chance_loss"]
            for one in self.values.values()
        )

    @property
    def failure_rate(self) -> Estimate:
        """How often it fails."""
        return rate_of(self.num_failed, len(self.values))

    @property
    def lr(self) -> float:
        """The rate; for SGD the median."""
        return float(np.median([one["lr"] for one in self.values.values()]))

    @property
    def told(self) -> str:
        """How many failed, in words."""
        return f"{self.num_failed} of {len(self.values)}"

    def mean(self, name: str) -> Estimate:
        """Estimate the mean of one number that trainings may lack."""
        return mean_of([one[name] for one in self.values.values() if one[name] is not None])

    def losses(self) -> dict[int, float]:
        """Return the loss at the end of each that did not diverge, by seed."""
        losses = {seed: float(one["final_loss"]) for seed, one in self.values.items()}
        return {seed: loss for seed, loss in losses.items() if math.isfinite(loss)}

    def along(self, name: str, step: int) -> dict[int, float]:
        """Return what was measured before a step, by seed; only what is positive and finite."""
        found = {
            seed: look[name]
            for seed, one in self.values.items()
            for look in one["trail"]
            if look["step"] == step and look[name] is not None
        }
        return {seed: value for seed, value in found.items() if 0 < value < math.inf}

    def over_bound(self, step: int) -> dict[int, float]:
        """Return the preconditioned sharpness over Adam's bound before a step, by seed."""
        bounds = self.along("bound", step)
        return {seed: value / bounds[seed] for seed, value in self.along("preconditioned", step).items()}

    @property
    def looks(self) -> list[int]:
        """The steps before which the sharpness was measured."""
        return sorted({look["step"] for one in self.values.values() for look in one["trail"]})


@dataclass(frozen=True)
class Groups:
    """All of them; None stands for one of which no training came through."""

    groups: Sequence[Group]
    watched: Sequence[Group]

    @classmethod
    def of(cls, results: Results) -> Groups:
        """Sort the outcomes."""
        options = {one.trial.variant: one.trial.options for one in results.outcomes}
        made: dict[bool, list[Group]] = {False: [], True: []}
        for variant in results.variants:
            told = options[variant]
            group = Group(told["kind"], told["factor"], results.of(variant))
            made[told["is_watched"]].append(group)
        return cls(made[False], made[True])

    def get(self, kind: str, factor: float) -> Group | None:
        """Return the group of a kind and factor."""
        return next((one for one in self.groups if (one.kind, one.factor) == (kind, factor)), None)

    def watch(self, kind: str) -> Group | None:
        """Return the watched trainings of a kind."""
        return next((one for one in self.watched if one.kind == kind), None)

    def all_of(self, kind: str) -> list[Group]:
        """Return the groups of a kind, by rate."""
        return sorted((one for one in self.groups if one.kind == kind), key=lambda one: one.factor)


def chapter(name: str, question: str, textbook: str, setup: Setup, results: Results, method: str) -> Chapter:
    """Return the chapter."""
    groups = Groups.of(results)
    return Chapter(
        name,
        question,
        textbook,
        sentences_of(groups, setup),
        [_failure_table(groups), _trail_table(groups), _sgd_table(groups)],
        _pictures(groups),
        method,
        results.failures,
        _facts(groups),
    )


def sentences_of(groups: Groups, setup: Setup) -> list[str]:
    """Return the verdict."""
    return [
        *about_failures(groups, setup),
        *about_limits(groups),
        *about_low(groups),
        *about_units(groups),
        *about_sharpness(groups),
        *about_bound(groups),
        *about_sgd(groups),
        *about_prediction(groups),
    ]


def about_failures(groups: Groups, setup: Setup) -> list[str]:
    """Compare the high rate at once with the same after a warm-up."""
    abrupt, warm = groups.get(ABRUPT, HIGH), groups.get(WARM, HIGH)
    if abrupt is None or warm is None:
        return [
            "Whether a warm-up helps cannot be told: the trainings at the high rate did not come through."
        ]
    a, b = abrupt.failure_rate, warm.failure_rate
    is_book = abs(abrupt.lr / BOOK_RATE - 1) <= NEAR_BOOK and setup.model == "simple_cnn"
    book = ", that of the fastai book's famous failure," if is_book else ""
    begins = (
        f"At rate {words.number(abrupt.lr)}{book} {abrupt.told} trainings fail where it is set at once ({_ends(a)}), and "
        f"{warm.told} after a warm-up of {WARM_STEPS} steps to it ({_ends(b)}): "
    )
    if a.overlaps(b):
        return [f"{begins}the intervals overlap, so that it cannot be told whether the warm-up helps."]
    if a.value > b.value:
        return [f"{begins}the same rate fails less often where it is not begun with."]
    return [f"{begins}here the warm-up does harm."]


def about_limits(groups: Groups) -> list[str]:
    """Tell up to which rate nothing failed, at once and after a warm-up."""
    safe = {kind: _last_safe(groups.all_of(kind)) for kind in (ABRUPT, WARM)}
    broken = next((one for one in groups.all_of(WARM) if one.num_failed), None)
    told = [
        f"The highest rate tried without a failure is {words.number(one.lr)} {when} (none of {len(one.values)}, which "
        f"still allows {share(one.failure_rate.high)})"
        for when, one in (("at once", safe[ABRUPT]), ("after a warm-up", safe[WARM]))
        if one is not None
    ]
    if not told:
        return ["No rate was tried at which nothing fails."]
    sentence = "; ".join(
        [told[0], *(one.replace("The highest rate tried without a failure is ", "") for one in told[1:])]
    )
    sentence += "."
    if broken is not None:
        sentence += (
            f" At {words.number(broken.lr)} {broken.told} fail after the warm-up as well: it moves the limit, it does not "
            "lift it."
        )
    return [sentence]


def about_low(groups: Groups) -> list[str]:
    """Tell what a low rate costs that never fails."""
    low, base = groups.get(ABRUPT, LOW), groups.get(ABRUPT, 1.0)
    if low is None or base is None:
        return []
    difference = difference_of(low.losses(), base.losses())
    a, b = mean_of(list(low.losses().values())), mean_of(list(base.losses().values()))
    ends = f"after {STEPS} steps its loss is {words.number(a.value)}"
    begins = f"At the low rate {words.number(low.lr)} {low.told} fail; {ends}"
    if not difference.excludes_zero:
        return [
            f"{begins}, which cannot be told from the {words.number(b.value)} of rate {words.number(base.lr)}."
        ]
    told = "the price of safety" if difference.value > 0 else "so that here low is also better"
    return [f"{begins} against {words.number(b.value)} at {words.number(base.lr)}: {told}."]


def about_units(groups: Groups) -> list[str]:
    """Tell what the layers of failed trainings are like at `STATS_STEP`."""
    trainings = [
        one
        for group in groups.groups
        if group.kind != SGD
        for one in group.values.values()
        if one["dead_units"] is not None
    ]
    failed = [bool(one["dead_layers"]) for one in trainings if one["failed"]]
    healthy = [bool(one["dead_layers"]) for one in trainings if not one["failed"]]
    if not failed or not healthy:
        return []
    a, b = rate_of(sum(failed), len(failed)), rate_of(sum(healthy), len(healthy))
    begins = (
        f"Of the {len(failed)} trainings with Adam that fail, {sum(failed)} have a layer without a living unit by step "
        f"{STATS_STEP}, of the {len(healthy)} others {sum(healthy)}"
    )
    if a.overlaps(b):
        return [f"{begins}: dead units do not tell them apart."]
    if a.value > b.value:
        return [f"{begins}: such a layer goes with failing; that it is the cause was not tested."]
    return [f"{begins}: failing does not go with such layers here."]


def about_sharpness(groups: Groups) -> list[str]:
    """Tell whether the sharpness falls in the warm-up: by itself, and as Adam feels it."""
    warm = groups.watch(WARM)
    if warm is None:
        return []
    raw = _change(warm.along("sharpness", 0), warm.along("sharpness", WARM_STEPS))
    peak = _peak(warm, "sharpness")
    felt = _change(warm.along("preconditioned", 1), warm.along("preconditioned", WARM_STEPS))
    first, last = _typical(warm.along("sharpness", 0)), _typical(warm.along("sharpness", WARM_STEPS))
    told = [
        f"In the warm-up the sharpness {_moves(raw)}: from {words.number(first.value)} of the first weights to "
        f"{words.number(last.value)} when the rate is reached"
        + (
            f", by way of {words.number(peak[1])} at step {peak[0]}."
            if peak and peak[1] > 2 * max(first.value, last.value)
            else "."
        )
    ]
    told.append(
        "What Adam feels is the Hessian divided by its running root mean square of the gradients, and the largest "
        f"eigenvalue of that {_moves(felt)} from step 1 to step {WARM_STEPS}."
    )
    return told


def about_bound(groups: Groups) -> list[str]:
    """Compare how far above Adam's bound of stability both begin."""
    abrupt, warm = groups.watch(ABRUPT), groups.watch(WARM)
    if abrupt is None or warm is None:
        return []
    start = _typical(abrupt.over_bound(1))
    looks = [step for step in warm.looks if 0 < step <= WARM_STEPS and warm.over_bound(step)]
    if not looks or not math.isfinite(start.value):
        return []
    highest = max(looks, key=lambda step: _typical(warm.over_bound(step)).value)
    most = _typical(warm.over_bound(highest))
    gain = _change(warm.over_bound(highest), abrupt.over_bound(1))
    begins = (
        f"Set at once, the high rate stands at {_times(start.value)} Adam's bound of stability after the first step; on "
        f"the way up it is at most {_times(most.value)} (step {highest})"
    )
    if not gain.is_known or gain.low <= 1 <= gain.high:
        return [f"{begins}; the seeds do not tell the two apart."]
    return [f"{begins}, {'less' if gain.low > 1 else 'more'} by a factor of {_size(gain)}."]


def about_sgd(groups: Groups) -> list[str]:
    """Tell at which part of 2 / sharpness of the first weights plain SGD begins to fail."""
    all_ = groups.all_of(SGD)
    if not all_:
        return []
    safe, broken = _last_safe(all_), next((one for one in all_ if one.failure_rate.value > HALF), None)
    begins = "Plain SGD, its rate set against 2 / sharpness of each seed's first weights, "
    if broken is None:
        last = all_[-1]
        at_last = f"{last.told} trainings at {words.number(last.factor)} times that bound"
        return [f"{begins}fails in {at_last}: it cannot be told where it breaks."]
    held = (
        f"; {words.number(safe.factor)} times it is the highest rate tried without a failure" if safe else ""
    )
    if safe and safe.num_waiting:
        held += f" ({safe.num_waiting} of {len(safe.values)} have not begun to learn there by step {STEPS}, unbroken)"
    told = f"{begins}fails in {broken.told} trainings at {words.number(broken.factor)} times that bound{held}"
    if broken.factor < 1:
        return [f"{told}: below the bound, so that the first weights alone promise too much."]
    if broken.factor == 1 or (safe is not None and safe.factor >= 1):
        return [f"{told}: about where the first weights say."]
    return [f"{told}: the limit lies between the two, and the bound with it."]


def about_prediction(groups: Groups) -> list[str]:
    """Tell whether the sharpness predicts which seeds fail at the high rate."""
    group = groups.get(ABRUPT, HIGH)
    if group is None:
        return []
    if group.num_failed in (0, len(group.values)):
        which = "all" if group.num_failed else "none"
        return [
            f"Whether the sharpness predicts which seeds fail cannot be asked at {words.number(group.lr)}, where {which} do."
        ]
    return [
        _prediction(
            group,
            "sharpness",
            0,
            f"Which seeds fail at {words.number(group.lr)}, the sharpness of the first weights",
        ),
        _prediction(group, "preconditioned", 1, "That which Adam feels after the first step"),
    ]


def _prediction(group: Group, name: str, step: int, subject: str) -> str:
    values = group.along(name, step)
    failed = [value for seed, value in values.items() if group.values[seed]["failed"]]
    healthy = [value for seed, value in values.items() if not group.values[seed]["failed"]]
    if not failed or not healthy:
        return f"{subject} cannot tell: too few were measured."
    test = stats.mannwhitneyu(failed, healthy, alternative="two-sided")
    pairs = float(test.statistic) / (len(failed) * len(healthy))
    told = f"it is larger for the failed one in {share(pairs)} of the pairs (p = {words.number(float(test.pvalue), 2)})"
    if test.pvalue >= (1 - CONFIDENCE) / NUM_PREDICTORS:
        return f"{subject} does not tell, as far as {len(values)} seeds can show: {told}."
    return f"{subject} does tell: {told}."


# Tables and figures


def _failure_table(groups: Groups) -> Table:
    chosen = [*groups.all_of(ABRUPT), *groups.all_of(WARM)]
    rows = [
        [
            f"{group.kind} {words.number(group.lr)}",
            group.told,
            group.failure_rate,
            float(np.median([one["final_loss"] for one in group.values.values()])),
            group.mean("near_zero"),
            group.mean("dead_units"),
        ]
        for group in chosen
    ]
    at_step = f"after {STATS_STEP} steps"
    heads = [
        "rate",
        "failed",
        "failure rate",
        "median loss at the end",
        f"near zero {at_step}",
        f"dead units {at_step}",
    ]
    return Table("Failures, and the layers with a flat part", heads, rows)


def _trail_table(groups: Groups) -> Table:
    rows = [
        [
            step,
            *(
                cell
                for group in groups.watched
                for cell in (
                    _typical(group.along("sharpness", step)),
                    _typical(group.over_bound(step)) if step else None,
                )
            ),
        ]
        for step in sorted({step for group in groups.watched for step in group.looks})
    ]
    heads = [
        "step",
        *(
            f"{group.kind}: {what}"
            for group in groups.watched
            for what in ("sharpness", "Adam's, over its bound")
        ),
    ]
    return Table("Sharpness along the way to the high rate, geometric means over the seeds", heads, rows)


def _sgd_table(groups: Groups) -> Table:
    rows = [
        [one.factor, one.lr, one.told, one.failure_rate, f"{one.num_waiting} of {len(one.values)}"]
        for one in groups.all_of(SGD)
    ]
    heads = [
        "rate over 2 / sharpness",
        "median rate",
        "failed",
        "failure rate",
        "unbroken, not begun to learn",
    ]
    return Table("Plain SGD", heads, rows)


def _pictures(groups: Groups) -> list[Picture]:
    told = {ABRUPT: "set at once", WARM: f"after a warm-up of {WARM_STEPS} steps"}
    failures = figures.curves(
        {
            name: ([one.lr for one in groups.all_of(kind)], [one.failure_rate for one in groups.all_of(kind)])
            for kind, name in told.items()
        },
        "learning rate",
        "share of trainings that fail",
        is_log_x=True,
    )
    failures.update_yaxes(tickformat=".0%", range=[-0.03, 1.03])
    felt = figures.curves(
        {
            told[group.kind]: (steps, [_typical(group.over_bound(step)) for step in steps])
            for group in groups.watched
            for steps in [[step for step in group.looks if step]]
        },
        "step",
        "Adam's sharpness over its bound",
        is_log_y=True,
    )
    raw = figures.curves(
        {
            told[group.kind]: (
                group.looks,
                [_typical(group.along("sharpness", step)) for step in group.looks],
            )
            for group in groups.watched
        },
        "step",
        "sharpness",
        is_log_y=True,
    )
    sgd = groups.all_of(SGD)
    plain = figures.curves(
        {"plain SGD": ([one.factor for one in sgd], [one.failure_rate for one in sgd])},
        "rate over 2 / sharpness of the first weights",
        "share of trainings that fail",
        is_log_x=True,
    )
    plain.update_yaxes(tickformat=".0%", range=[-0.03, 1.03])
    plain.add_vline(1.0, line={"color": theme.GREY, "dash": "dot"})
    return [
        Picture(
            failures,
            "How often trainings fail at a rate: set at once, and reached by a warm-up.",
            "Failure rate against learning rate, two curves with intervals",
        ),
        Picture(
            _with_bound(felt),
            "The sharpness that Adam feels over what is stable at the rate of that step (dotted: 1).",
            "Preconditioned sharpness over Adam's bound against the step, two curves with intervals",
        ),
        Picture(
            raw,
            "The largest eigenvalue of the Hessian itself.",
            "Sharpness against the step, two curves with intervals",
        ),
        Picture(
            plain,
            "Plain SGD at rates set against each seed's own bound.",
            "Failure rate of plain SGD against the rate over its bound",
        ),
    ]


def _with_bound(figure: go.Figure) -> go.Figure:
    return figure.add_hline(1.0, line={"color": theme.GREY, "dash": "dot"})


def _facts(groups: Groups) -> dict[str, object]:
    return {
        "failure_rate": {f"{one.kind} {words.number(one.factor)}": one.failure_rate for one in groups.groups},
        "sharpness": {
            group.kind: {str(step): _typical(group.along("sharpness", step)) for step in group.looks}
            for group in groups.watched
        },
        "over_bound": {
            group.kind: {str(step): _typical(group.over_bound(step)) for step in group.looks if step}
            for group in groups.watched
        },
    }


# Words


def _last_safe(groups: Sequence[Group]) -> Group | None:
    """Return the group of the highest rate below the first failure; groups by ascending rate."""
    first = next((index for index, one in enumerate(groups) if one.num_failed), len(groups))
    return groups[first - 1] if first else None


def _typical(values: Mapping[int, float]) -> Estimate:
    return geometric_mean_of(list(values.values()))


def _change(before: Mapping[int, float], after: Mapping[int, float]) -> Estimate:
    """Estimate how many times as large it is afterwards, seeds paired."""
    return geometric_mean_of([after[seed] / before[seed] for seed in sorted(before.keys() & after.keys())])


def _peak(group: Group, name: str) -> tuple[int, float] | None:
    """Return the step of the warm-up at which something is largest, and how large; None where it was not measured."""
    found = {step: _typical(group.along(name, step)).value for step in group.looks if step <= WARM_STEPS}
    known = {step: value for step, value in found.items() if math.isfinite(value)}
    return max(known.items(), key=lambda item: item[1]) if known else None


def _moves(change: Estimate) -> str:
    if not change.is_known or change.low <= 1 <= change.high:
        return "cannot be said to rise or fall"
    return f"{'rises' if change.low > 1 else 'falls'} by a factor of {_size(change)}"


def _size(change: Estimate) -> str:
    """Return a factor above 1, whichever way it goes, with its ends."""
    ends = [change.low, change.value, change.high]
    low, value, high = (
        words.number(one, 2) for one in (ends if change.value > 1 else [1 / one for one in reversed(ends)])
    )
    return f"{value} ({low} to {high})"


def _times(value: float) -> str:
    return f"{words.number(value, 2)} times"


def _ends(rate: Estimate) -> str:
    return f"{share(rate.low)} to {share(rate.high)}"
