"""What follows from the trainings of ``low-end``: sentences, tables and figures.

No idea of how they were made: outcomes in, chapter out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from actograph.show import theme, words
from actograph.study import figures
from actograph.study.chapter import Chapter, Picture, Table
from actograph.study.estimate import Estimate, difference_of, geometric_mean_of, mean_of
from actograph.study.study import Results
from actograph.study.tell import better, joined, points, share
from actograph.study.trial import Values

STAY, COSINE, DROP, LOW = "stay high", "cosine to low", "drop at 75 %", "low throughout"
ENDS = (COSINE, DROP, LOW)  # compared with staying high
TAIL = 0.1  # of the steps, at the end: what is looked at
AVERAGED = 0.25  # of the steps, at the end: whose weights are averaged
AXIS_MARGIN = 0.05  # of accuracy below the lowest mean; an interval may go on beyond the axis
COLUMNS = {
    "accuracy": "accuracy",
    "averaged_accuracy": "accuracy of averaged weights",
    "loss_std": "std of batch losses",
    "fixed_loss_std": "std of loss of fixed samples",
    "distance": "distance moved",
    "path": "way made",
}


def variant_of(schedule: str, lr: float) -> str:
    """Return the name of a variant.

    >>> variant_of(STAY, 0.04)
    'stay high, 0.04'
    """
    return f"{schedule}, {lr:.3g}"


class Runs:
    """The trainings by high rate and schedule."""

    def __init__(self, results: Results) -> None:
        self.results = results
        options = {one.trial.variant: one.trial.options for one in results.outcomes}
        self.variants = {
            (options[name]["factor"], options[name]["schedule"]): name for name in results.variants
        }
        self.factors = [
            factor
            for factor in dict.fromkeys(factor for factor, _ in self.variants)
            if (factor, STAY) in self.variants
        ]

    def of(self, factor: float, schedule: str) -> dict[int, Values]:
        """Return what was measured, by seed; nothing where no training came through."""
        name = self.variants.get((factor, schedule))
        return {} if name is None else self.results.of(name)

    def rate(self, factor: float) -> str:
        """Return the high rate as it stands in the variants' names."""
        return self.variants[factor, STAY].rpartition(", ")[2]

    def numbers(self, factor: float, schedule: str, name: str) -> dict[int, float]:
        """Return one number by seed."""
        found = {seed: one[name] for seed, one in self.of(factor, schedule).items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def mean(self, factor: float, schedule: str, name: str) -> Estimate:
        """Estimate the mean of one number."""
        return mean_of(list(self.numbers(factor, schedule, name).values()))

    def gain(self, factor: float, schedule: str, name: str = "accuracy") -> Estimate:
        """Estimate what a schedule gains over staying high; the rates are judged together."""
        return difference_of(
            self.numbers(factor, schedule, name),
            self.numbers(factor, STAY, name),
            num_looks=len(self.factors),
        )

    def averaging(self, factor: float, schedule: str = STAY) -> Estimate:
        """Estimate what averaging the weights gains."""
        gains = self.numbers(factor, schedule, "averaging_gain")
        return mean_of(list(gains.values()), num_looks=len(self.factors))

    def ratio(self, factor: float, schedule: str, name: str) -> Estimate:
        """Estimate how many times as large a number is when staying high, seeds paired."""
        a, b = self.numbers(factor, STAY, name), self.numbers(factor, schedule, name)
        return geometric_mean_of([a[seed] / b[seed] for seed in sorted(a.keys() & b.keys()) if b[seed] > 0])


def chapter(name: str, question: str, textbook: str, results: Results, method: str) -> Chapter:
    """Return the chapter."""
    runs = Runs(results)
    return Chapter(
        name,
        question,
        textbook,
        sentences_of(runs),
        [_table(runs), _gain_table(runs)],
        _pictures(runs),
        method,
        results.failures,
        _facts(runs),
    )


def sentences_of(runs: Runs) -> list[str]:
    """Return the verdict."""
    if not runs.factors:
        return ["Nothing can be said: no training that stays high came through."]
    return [
        about_gain(runs),
        *about_averaging(runs),
        *about_noise(runs),
        *about_moving(runs),
        *about_low(runs),
        about_best(runs),
    ]


def about_gain(runs: Runs) -> str:
    """Tell at which high rates ending low gains, and at which it costs."""
    gains = {factor: runs.gain(factor, COSINE) for factor in runs.factors}
    parts = [f"{points(gain)} at {runs.rate(factor)}" for factor, gain in gains.items()]
    told = f"Ending low, by cosine, changes accuracy against staying high by {joined(parts)}."
    wins = [factor for factor, gain in gains.items() if gain.excludes_zero and gain.value > 0]
    losses = [factor for factor, gain in gains.items() if gain.excludes_zero and gain.value < 0]
    if wins and losses:
        return (
            f"{told} It gains at {_rates(runs, wins)} and costs at {_rates(runs, losses)}: what the low end is worth "
            "depends on how high the rate was before."
        )
    if wins:
        rest = [factor for factor in runs.factors if factor not in wins]
        unknown = f"; at {_rates(runs, rest)} it cannot be told" if rest else ""
        return f"{told} It gains at {_rates(runs, wins)}{unknown}."
    if losses:
        return f"{told} It costs at {_rates(runs, losses)}, and gains at none of these rates for certain."
    return f"{told} At none of these rates do the seeds tell whether it gains."


def about_averaging(runs: Runs) -> list[str]:
    """Compare averaging the weights with the low end, at the highest rate."""
    top = runs.factors[-1]
    gain, cosine = runs.averaging(top), runs.gain(top, COSINE)
    told = better(
        f"staying at {runs.rate(top)} and averaging the weights of the last {share(AVERAGED)} of the steps",
        "the last of these weights",
        gain,
        "accuracy",
    )
    told = told[:1].upper() + told[1:]
    known = all(one.excludes_zero and one.value > 0 for one in (gain, cosine))
    if known:
        told += f" That is {share(gain.value / cosine.value)} of what the cosine gains there"
        told += (
            ": averaging alone gets the larger part of it, at a rate that stays high."
            if (gain.value > cosine.value / 2)
            else ": averaging alone gets the smaller part of it."
        )
    after = runs.averaging(top, COSINE)
    if after.is_known and not after.excludes_zero:
        told += " After the cosine averaging gains nothing that could be told."
    elif after.excludes_zero:
        told += f" After the cosine averaging {'gains' if after.value > 0 else 'costs'} {points(after)}."
    return [told]


def about_noise(runs: Runs) -> list[str]:
    """Tell how far the loss of fixed samples, and of batches, spreads at the end, at the highest rate."""
    top = runs.factors[-1]
    fixed, batches = (runs.ratio(top, COSINE, name) for name in ("fixed_loss_std", "loss_std"))
    if not fixed.is_known:
        return []
    begins = f"In the last {share(TAIL)} of the steps at {runs.rate(top)} the loss of fixed training samples"
    if fixed.low <= 1 <= fixed.high:
        return [f"{begins} does not spread measurably more than under the cosine."]
    if fixed.value < 1:
        return [
            f"{begins} spreads less than under the cosine, by a factor of {words.number(1 / fixed.value, 2)}."
        ]
    told = (
        f"{begins}, which has no noise of batches, spreads {words.number(fixed.value, 2)} times as far as under the cosine "
        f"({words.number(fixed.low, 2)} to {words.number(fixed.high, 2)})"
    )
    if batches.is_known and batches.high < fixed.low:
        told += (
            f"; the losses of the batches, which a training curve shows, only {words.number(batches.value, 2)} times: "
            "their own noise hides that of the weights."
        )
        return [told]
    return [f"{told}."]


def about_moving(runs: Runs) -> list[str]:
    """Tell how far the weights go at the end, and whether they get anywhere."""
    top = runs.factors[-1]
    stay, cosine = runs.mean(top, STAY, "distance"), runs.mean(top, COSINE, "distance")
    path = runs.mean(top, STAY, "path")
    if not runs.of(top, COSINE):
        return []
    told = (
        f"Meanwhile staying high moves the weights by {share(stay.value)} of their norm, the cosine by {share(cosine.value)}"
        + (", which the seeds do not tell apart" if stay.overlaps(cosine) else "")
    )
    if stay.value > 0:
        told += f"; the way made is {words.number(path.value / stay.value, 2)} times the distance it leads"
    return [f"{told}."]


def about_low(runs: Runs) -> list[str]:
    """Tell whether the low rate alone would do."""
    told = []
    for factor in runs.factors:
        if runs.of(factor, LOW) and runs.of(factor, COSINE):
            difference = difference_of(
                runs.numbers(factor, LOW, "accuracy"),
                runs.numbers(factor, COSINE, "accuracy"),
                num_looks=len(runs.factors),
            )
            told.append((factor, difference))
    worse = [factor for factor, one in told if one.excludes_zero and one.value < 0]
    if not told:
        return []
    if not worse:
        return [
            "Whether the low rate from the first step on does as well as the high one that ends low cannot be told."
        ]
    parts = [points(one) for factor, one in told if factor in worse]
    return [
        f"The low rate alone is no substitute: throughout, against the cosine, it changes accuracy by {joined(parts)} at a "
        f"tenth of {_rates(runs, worse)}."
    ]


def about_best(runs: Runs) -> str:
    """Name the best of all, and those that cannot be told from it."""
    means = {key: mean_of(list(runs.numbers(*key, "accuracy").values())) for key in runs.variants}
    best = max(means, key=lambda key: means[key].value)
    others = [key for key in means if key != best]
    same = [
        runs.variants[key]
        for key in others
        if not difference_of(
            runs.numbers(*best, "accuracy"), runs.numbers(*key, "accuracy"), num_looks=len(others)
        ).excludes_zero
    ]
    told = f"The most accurate of all is “{runs.variants[best]}” with {share(means[best].value)}"
    if not same:
        return f"{told}, ahead of each other one."
    listed = f"“{same[0]}”" if len(same) == 1 else f"{len(same)} of the {len(others)} others"
    return f"{told}; {listed} cannot be told from it."


# Tables and figures


def _table(runs: Runs) -> Table:
    rows = [[name, *(runs.mean(*key, column) for column in COLUMNS)] for key, name in runs.variants.items()]
    title = f"The last {share(TAIL)} of each training, means over the seeds with 95 % intervals"
    return Table(title, ["end, high rate", *COLUMNS.values()], rows)


def _gain_table(runs: Runs) -> Table:
    rows = [
        [
            runs.rate(factor),
            *(runs.gain(factor, end) for end in ENDS),
            runs.averaging(factor),
            runs.averaging(factor, COSINE),
        ]
        for factor in runs.factors
    ]
    heads = ["high rate", *ENDS, f"{STAY}, averaged", f"{COSINE}: averaged, over its own"]
    return Table("What is gained in accuracy over staying at the high rate, seeds paired", heads, rows)


def _pictures(runs: Runs) -> list[Picture]:
    rates = [float(runs.rate(factor)) for factor in runs.factors]
    gains = {
        "ending low (cosine)": [runs.gain(factor, COSINE) for factor in runs.factors],
        "averaging instead": [runs.averaging(factor) for factor in runs.factors],
    }
    first = figures.curves(
        {name: (rates, told) for name, told in gains.items()},
        "high rate",
        "gain in accuracy over staying high",
        is_log_x=True,
    )
    first.update_yaxes(tickformat=".1%")
    accuracy = _accuracies(runs, rates)
    return [
        Picture(
            _with_zero(first),
            f"What ending low gains over staying high, and what averaging the last {share(AVERAGED)} of the weights gains.",
            "Gain in accuracy against the high rate: ending low, and averaging, with intervals",
        ),
        Picture(
            accuracy,
            "Accuracy of each schedule at the end.",
            "Accuracy against the high rate, a curve with intervals for each schedule",
        ),
    ]


def _accuracies(runs: Runs, rates: Sequence[float]) -> go.Figure:
    series: Mapping[str, tuple[list[float], list[Estimate]]] = {
        schedule: (list(rates), [runs.mean(factor, schedule, "accuracy") for factor in runs.factors])
        for schedule in (STAY, *ENDS)
        if all(runs.of(factor, schedule) for factor in runs.factors)
    }
    figure = figures.curves(series, "high rate", "accuracy on the validation data", is_log_x=True)
    lowest = min(one.value for _, told in series.values() for one in told) if series else 0.0
    return figure.update_yaxes(tickformat=".0%", range=[max(lowest - AXIS_MARGIN, 0.0), 1.0])


def _with_zero(figure: go.Figure) -> go.Figure:
    return figure.add_hline(0.0, line={"color": theme.GREY, "dash": "dot"})


def _facts(runs: Runs) -> dict[str, object]:
    return {
        runs.rate(factor): {
            **{f"gain of {end}": runs.gain(factor, end) for end in ENDS},
            "gain of averaging": runs.averaging(factor),
            "spread of the loss of fixed samples, staying high over cosine": runs.ratio(
                factor, COSINE, "fixed_loss_std"
            ),
            "spread of the batch losses, staying high over cosine": runs.ratio(factor, COSINE, "loss_std"),
        }
        for factor in runs.factors
    }


# Words


def _rates(runs: Runs, factors: Sequence[float]) -> str:
    return joined([runs.rate(factor) for factor in factors])
