"""The tables and figures of ``high-rate``.

No idea of sentences, nor of how it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actograph.study import figures
from actograph.study.chapter import Picture, Table
from actograph.study.estimate import Estimate
from actograph.study.high_rate_results import CONSTANT, CYCLE, HIGH, LOW, Point, Runs

AXIS_MARGIN = 0.05  # decades

Series = Mapping[str, tuple[Sequence[float], Sequence[Estimate]]]


def tables(runs: Runs, target: float) -> list[Table]:
    """Return accuracies by peak and budget, both losses and the gap, and failures with steps to the target."""
    return [_accuracies(runs), _losses(runs), _steps(runs, target)]


def _kinds(runs: Runs) -> list[tuple[str, float]]:
    return [(kind, factor) for kind in (CYCLE, CONSTANT) for factor in runs.factors(kind, runs.full)]


def _accuracies(runs: Runs) -> Table:
    rows = [
        [
            f"{kind} {runs.rate(factor)}",
            *(runs.mean(Point(kind, factor, budget), "accuracy") for budget in runs.budgets),
        ]
        for kind, factor in _kinds(runs)
    ]
    heads = ["rate", *(_epochs(budget) for budget in runs.budgets)]
    return Table("Accuracy at equal budgets, means over the seeds with 95 % intervals", heads, rows)


def _losses(runs: Runs) -> Table:
    names = {
        "train_loss": "training loss",
        "valid_loss": "validation loss",
        "gap": "gap",
        "shown_gap": "gap as shown",
    }
    rows = [
        [
            f"{kind} {runs.rate(factor)}",
            *(runs.mean(Point(kind, factor, runs.full), name) for name in names),
        ]
        for kind, factor in _kinds(runs)
    ]
    title = f"Losses after {_epochs(runs.full)}, both in evaluation mode on equally many samples"
    return Table(title, ["rate", *names.values()], rows)


def _steps(runs: Runs, target: float) -> Table:
    rows = []
    for kind, factor in _kinds(runs):
        found = list(runs.steps_to(kind, factor, target).values())
        median = float(np.median(found))
        reached = f"{sum(math.isfinite(one) for one in found)} of {len(found)}"
        failures = [
            "{} of {}".format(*runs.failed(factor, budget)) if kind == CYCLE else None
            for budget in runs.budgets
        ]
        rows.append(
            [
                f"{kind} {runs.rate(factor)}",
                reached,
                median if math.isfinite(median) else "never",
                *failures,
            ]
        )
    heads = [
        "rate",
        f"seeds that reach {100 * target:.1f} %",
        "median steps to it",
        *(f"failed, {_epochs(budget)}" for budget in runs.budgets),
    ]
    return Table("Steps to what the low constant rate ends with, and failures", heads, rows)


def pictures(runs: Runs) -> list[Picture]:
    """Return error over the rate, over the budget, both losses, failures, and validation over training loss."""
    return [
        _error_picture(runs),
        _budget_picture(runs),
        _loss_picture(runs),
        _equal_picture(runs),
        _failures(runs),
    ]


def _error_picture(runs: Runs) -> Picture:
    series: Series = {
        f"one cycle, {_epochs(budget)}": _over_rates(runs, CYCLE, budget) for budget in runs.budgets
    } | {f"constant, {_epochs(runs.full)}": _over_rates(runs, CONSTANT, runs.full)}
    figure = figures.curves(series, "highest rate", "wrong answers", is_log_x=True, is_log_y=True)
    figure.update_yaxes(tickformat=".0%", range=[_lowest(series), 0.0])
    return Picture(
        _with_rates(figure, runs),
        "Wrong answers on the validation data against the highest rate: lower is better.",
        "Share of wrong answers against the highest rate, a curve with intervals for each budget and for constant rates",
    )


def _over_rates(runs: Runs, kind: str, budget: int) -> tuple[list[float], list[Estimate]]:
    factors = runs.factors(kind, budget)
    return (
        [factor * runs.lr for factor in factors],
        [runs.error(Point(kind, factor, budget)) for factor in factors],
    )


def _budget_picture(runs: Runs) -> Picture:
    budgets = list(map(float, runs.budgets))
    series = {
        f"{kind} {runs.rate(factor)}": (
            budgets,
            [runs.error(Point(kind, factor, budget)) for budget in runs.budgets],
        )
        for kind in (CYCLE, CONSTANT)
        for factor in (LOW, HIGH)
        if factor in runs.factors(kind, runs.full)
    }
    figure = figures.curves(series, "epochs", "wrong answers", is_log_x=True, is_log_y=True)
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(tickvals=budgets, ticktext=[str(budget) for budget in runs.budgets])
    return Picture(
        _below_legend(figure),
        "High rate and cycle, each alone and both together.",
        "Share of wrong answers against the epochs, four curves: constant and cycle, low and high",
    )


def _loss_picture(runs: Runs) -> Picture:
    factors = runs.factors(CYCLE, runs.full)
    series: Series = {
        name: (
            [factor * runs.lr for factor in factors],
            [runs.typical(Point(CYCLE, factor, runs.full), column) for factor in factors],
        )
        for column, name in (("valid_loss", "validation"), ("train_loss", "training"))
    }
    figure = figures.curves(series, "peak rate", "loss", is_log_x=True, is_log_y=True)
    return Picture(
        _with_rates(figure, runs),
        f"Loss after one cycle of {_epochs(runs.full)}, both in evaluation mode: the gap is what lies between.",
        "Training and validation loss against the peak rate, two curves with intervals",
    )


def _equal_picture(runs: Runs) -> Picture:
    """Draw validation loss over training loss, so that trainings compare at equal training loss."""
    points = {
        f"constant {runs.rate(LOW)}": [Point(CONSTANT, LOW, epoch) for epoch in range(1, runs.full + 1)],
        f"one cycle to {runs.rate(HIGH)}": [Point(CYCLE, HIGH, budget) for budget in runs.budgets],
    }
    series: Series = {
        name: (
            [runs.typical(one, "train_loss").value for one in chosen],
            [runs.typical(one, "valid_loss") for one in chosen],
        )
        for name, chosen in points.items()
        if all(runs.trainings(one) for one in chosen)
    }
    figure = figures.curves(
        series, "training loss, evaluation mode", "validation loss", is_log_x=True, is_log_y=True
    )
    return Picture(
        _below_legend(figure),
        "Validation loss at equal training loss: the lower curve generalizes better.",
        "Validation loss against training loss, after each epoch of the low constant rate and each cycle to the high peak",
    )


def _failures(runs: Runs) -> Picture:
    series: Series = {
        f"{_epochs(budget)}": (
            [factor * runs.lr for factor in runs.factors(CYCLE, budget)],
            [runs.failure_rate(factor, budget) for factor in runs.factors(CYCLE, budget)],
        )
        for budget in sorted({runs.budgets[0], runs.full})
    }
    figure = figures.curves(series, "peak rate", "share of trainings that fail", is_log_x=True)
    figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.03])
    return Picture(
        _with_rates(figure, runs),
        "How often trainings with one cycle fail, Wilson intervals.",
        "Failure rate against the peak rate, a curve with intervals for the least and the full budget",
    )


def _with_rates(figure: Any, runs: Runs) -> Any:
    """Label the axis with the rates that were trained."""
    rates = [factor * runs.lr for factor in runs.factors(CYCLE, runs.budgets[0])]
    figure.update_xaxes(tickvals=rates, ticktext=[f"{rate:.3g}" for rate in rates])
    return _below_legend(figure)


def _below_legend(figure: Any) -> Any:
    return figure.update_layout(legend={"y": 1.02, "yanchor": "bottom"})


def _epochs(num: int) -> str:
    return f"{num} epoch{'' if num == 1 else 's'}"


def _lowest(series: Series) -> float:
    """Return where a logarithmic axis of shares begins, as an exponent of 10; it ends at all, beyond which no share is."""
    known = [one.low for _, told in series.values() for one in told if one.is_known and one.low > 0]
    return math.log10(min(known, default=0.01)) - AXIS_MARGIN
