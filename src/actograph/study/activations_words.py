"""What the recorded numbers of healthy and sick trainings tell: onsets, pairs that look alike, tables and sentences.

No idea of how they were trained. Series are (T, L): steps and layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import plotly.graph_objects as go

from actograph.layout.row import Floats
from actograph.runlog.view import STATISTICS
from actograph.show import words
from actograph.study import figures
from actograph.study.chapter import Picture, Table
from actograph.study.estimate import Estimate, mean_of
from actograph.study.study import Results
from actograph.study.tell import joined, share

HEALTHY, SICK, COST = "healthy", "sick", "cost"
ONE_SIDED = "one_sided"
STATISTICS_TOLD: Mapping[str, str] = {
    "mean": "where the values lie; a sign of drift, of nothing else",
    "std": "how far they spread: grows or shrinks from layer to layer where the initialization is off",
    "near_zero": "share within 0.05 of zero, of either sign",
    ONE_SIDED: "share below 0.05, negatives too: fastai's near zero",
    "zeros": "share of exact zeros: half of them is usual behind a ReLU",
    "flat": "share where the layer's own nonlinearity passes no gradient",
    "dead": "share of units that were silent for 20 recorded steps: what does not come back",
    "q05": "5 % of the values are below",
    "q50": "the median: half of the values are below",
    "q95": "95 % are below",
    "max": "the largest value: what overflows first",
    "non_finite": "share of NaN and infinite values",
}
HELD = 5  # steps in a row that a number must be outside of the healthy range
ALIKE = 0.1  # of the spread: means, and spreads, that differ by less look alike
LOSS = "loss"


@dataclass(frozen=True)
class Onset:
    """When a number leaves the healthy range, in each sick training; and how many healthy ones leave it, too."""

    steps: Sequence[int | None]
    num_healthy: int
    num_false: int

    @property
    def num_seen(self) -> int:
        """Sick trainings in which it leaves."""
        return sum(step is not None for step in self.steps)

    @property
    def typical(self) -> float | None:
        """The median step, where it leaves in more than half of the sick trainings."""
        seen = [step for step in self.steps if step is not None]
        return median(seen) if 2 * len(seen) > len(self.steps) else None


def onset(healthy: Sequence[Floats], sick: Sequence[Floats]) -> Onset:
    """Return when series (T, L) of sick trainings leave the range of the healthy ones, in any layer."""
    false = [first_outside(one, [other for other in healthy if other is not one]) for one in healthy]
    return Onset(
        [first_outside(one, healthy) for one in sick], len(healthy), sum(step is not None for step in false)
    )


def first_outside(series: Floats, healthy: Sequence[Floats]) -> int | None:
    """Return the first step (row) from which on a layer is outside of the widened healthy range for `HELD` steps.

    >>> healthy = [np.zeros((9, 1)), np.ones((9, 1))]
    >>> first_outside(np.array([[0.5]] * 3 + [[3.0]] * 6), healthy)
    3
    """
    num = min(len(series), *(len(one) for one in healthy))
    stack = np.stack([one[:num] for one in healthy])  # (runs, T, L)
    low, high = stack.min(axis=0), stack.max(axis=0)
    width = high - low
    values = series[:num]
    with np.errstate(invalid="ignore"):
        outside = (values < low - width) | (values > high + width)
    outside |= np.isinf(values)
    outside &= ~np.isnan(low)
    for step in range(num - HELD + 1):
        if outside[step : step + HELD].all(axis=0).any():
            return step
    return None


@dataclass(frozen=True)
class Pair:
    """Two layers' steps whose mean and spread look alike, and whose dead shares do not."""

    layer: str
    healthy_step: int
    sick_step: int
    mean: float
    std: float
    healthy_dead: float
    sick_dead: float


def most_different_pair(healthy: Mapping[str, Any], sick: Mapping[str, Any]) -> Pair | None:
    """Return the pair of one layer with the largest difference in dead units among those that look alike, if any."""
    best: Pair | None = None
    well, ill = (
        {name: np.array(one["series"][name], np.float64) for name in ("mean", "std", "dead")}
        for one in (healthy, sick)
    )
    for index, layer in enumerate(healthy["layers"]):
        std = well["std"][:, None, index]  # (steps, 1)
        alike = (np.abs(ill["std"][None, :, index] - std) <= ALIKE * std) & (
            np.abs(ill["mean"][None, :, index] - well["mean"][:, None, index]) <= ALIKE * std
        )
        gap = np.where(alike, ill["dead"][None, :, index] - well["dead"][:, None, index], np.nan)
        if not np.isfinite(gap).any():
            continue
        at, other = np.unravel_index(np.nanargmax(gap), gap.shape)
        found = Pair(
            layer, int(healthy["steps"][at]), int(sick["steps"][other]), float(ill["mean"][other, index]),
            float(ill["std"][other, index]), float(well["dead"][at, index]), float(ill["dead"][other, index]),
        )  # fmt: skip
        if found.sick_dead - found.healthy_dead > 0 and (
            best is None or found.sick_dead - found.healthy_dead > best.sick_dead - best.healthy_dead
        ):
            best = found
    return best


def onsets(results: Results) -> dict[str, Onset]:
    """Return for each statistic, and the loss, when it separates sick from healthy trainings."""
    runs = {variant: list(results.of(variant).values()) for variant in (HEALTHY, SICK)}
    found = {
        name: onset(
            *([np.array(one["series"][name], np.float64) for one in runs[v]] for v in (HEALTHY, SICK))
        )
        for name in STATISTICS_TOLD
    }
    losses = ([np.array(one["losses"], np.float64)[:, None] for one in runs[v]] for v in (HEALTHY, SICK))
    return {**found, LOSS: onset(*losses)}


def verdict(results: Results) -> tuple[list[str], dict[str, Any]]:
    """Return the sentences, and the numbers they are made of."""
    missing = [name for name in (HEALTHY, SICK) if len(results.of(name)) <= 1]
    if missing:
        return [f"Nothing can be said: too few trainings came through ({joined(missing)})."], {}
    found = onsets(results)
    pairs = [
        pair
        for seed, values in results.of(SICK).items()
        if seed in results.of(HEALTHY)
        and (pair := most_different_pair(results.of(HEALTHY)[seed], values)) is not None
    ]
    facts = {
        name: {"step": one.typical, "seen": one.num_seen, "false": one.num_false}
        for name, one in found.items()
    }
    accuracy = {name: results.mean(name, "accuracy") for name in (HEALTHY, SICK)}
    sentences = [
        f"At six times the rate the accuracy is {_told(accuracy[SICK])} instead of {_told(accuracy[HEALTHY])}.",
        *_about_onsets(found),
        *_about_pairs(pairs),
        *_about_one_sided(results),
        *_about_cost(results),
    ]
    return sentences, {**facts, "accuracy": accuracy, "pairs": [vars(pair) for pair in pairs]}


def _about_onsets(found: Mapping[str, Onset]) -> list[str]:
    sure = {name: one for name, one in found.items() if one.typical is not None and not one.num_false}
    unsure = [_label(name) for name, one in found.items() if one.typical is not None and one.num_false]
    never = [_label(name) for name, one in found.items() if one.typical is None]
    told = []
    if sure:
        first = min(sure, key=lambda name: sure[name].typical or 0)
        loss = found[LOSS]
        late = (
            "the loss does not, within the run"
            if loss.typical is None
            else f"the loss does at step {loss.typical:g}"
        )
        told.append(
            f"The first number to leave what healthy trainings have, and that no healthy training leaves by itself, is "
            f"{_label(first)}, at step {sure[first].typical:g} (median of {len(sure[first].steps)} sick trainings)"
            + ("." if first == LOSS else f"; {late}.")
        )
    else:
        told.append(
            "No number tells the sick trainings from the healthy ones without taking a healthy one for sick, too."
        )
    if unsure:
        told.append(f"Leaving the range says less of {joined(unsure)}: a healthy training leaves it as well.")
    if never:
        told.append(f"In half of the sick trainings or more nothing is to be seen in {joined(never)}.")
    return told


def _about_pairs(pairs: Sequence[Pair]) -> list[str]:
    if not pairs:
        return ["No two steps were found that look alike in mean and spread and differ in dead units."]
    pair = max(pairs, key=lambda one: one.sick_dead - one.healthy_dead)
    return [
        f"Mean and spread alone can look the same: {pair.layer} has mean {words.number(pair.mean)} and spread "
        f"{words.number(pair.std)} at step {pair.sick_step} of a sick training, within {share(ALIKE)} of the spread as at "
        f"step {pair.healthy_step} of the healthy one with the same seed, but {share(pair.sick_dead)} of its units are dead "
        f"instead of {share(pair.healthy_dead)}."
    ]


def _about_one_sided(results: Results) -> list[str]:
    runs = list(results.of(HEALTHY).values())
    layers = runs[0]["layers"]
    gaps = [
        np.nanmean(
            np.array(one["series"][ONE_SIDED], np.float64) - np.array(one["series"]["near_zero"]), axis=0
        )
        for one in runs
        if one["layers"] == layers
    ]
    gap = np.mean(gaps, axis=0)  # (layers,)
    most = int(np.argmax(gap))
    return [
        f"Near zero counted on one side, as fastai counts it, is larger by up to {share(float(gap[most]))} of the values "
        f"({layers[most]}, mean over the healthy trainings): these are negative, not small."
    ]


def _about_cost(results: Results) -> list[str]:
    sizes = [
        one["bytes_on_disk"] / len(one["layers"]) / max(len(one["steps"]), 1)
        for one in results.of(HEALTHY).values()
    ]
    told = [f"All of this takes {words.number(mean_of(sizes).value)} bytes a layer and step on the disk"]
    slower = results.mean(COST, "ratio") if COST in results.variants else None
    if slower is None:
        return [told[0] + "."]
    plain_ms = 1e3 * results.mean(COST, "plain_s").value
    return [
        f"{told[0]}, and makes a step of {words.number(plain_ms)} ms {words.number(slower.value)} times as long"
        + (f" ({words.number(slower.low)} to {words.number(slower.high)})." if slower.is_known else ".")
    ]


def tables(results: Results) -> list[Table]:
    """Return when each number separates, what it is on every layer, and what a row holds."""
    if any(len(results.of(name)) <= 1 for name in (HEALTHY, SICK)):
        return [
            Table(
                "Trainings that came through",
                ["training", "number"],
                [[n, len(results.of(n))] for n in (HEALTHY, SICK)],
            )
        ]
    rows = [
        [_label(name), one.typical, f"{one.num_seen} of {len(one.steps)}", f"{one.num_false} of {one.num_healthy}",
         STATISTICS_TOLD.get(name, "what everybody looks at")]
        for name, one in sorted(onsets(results).items(), key=lambda item: (item[1].typical is None, item[1].typical or 0))
    ]  # fmt: skip
    heads = [
        "number",
        "median first step",
        "sick trainings seen",
        "healthy ones taken for sick",
        "what it tells",
    ]
    return [
        Table("When each number tells the sick trainings from the healthy ones", heads, rows),
        *_layers(results),
    ]


def _layers(results: Results) -> list[Table]:
    names = ("mean", "std", "near_zero", ONE_SIDED, "dead")
    made = []
    for variant in (HEALTHY, SICK):
        values = list(results.of(variant).values())
        last = {name: np.array([one["series"][name][-1] for one in values], np.float64) for name in names}
        rows = [
            [layer, *(mean_of(last[name][:, index].tolist()) for name in names)]
            for index, layer in enumerate(values[0]["layers"])
        ]
        made.append(Table(f"The last step of the {variant} trainings", ["layer", *map(_label, names)], rows))
    return made


def pictures(results: Results) -> list[Picture]:
    """Return how soon each number separates, and the colorful dimension of a healthy and a sick layer."""
    if any(len(results.of(name)) <= 1 for name in (HEALTHY, SICK)):
        return [
            Picture(go.Figure(layout={"height": 80}), "Too few trainings came through.", "Nothing to draw")
        ]
    found = {name: one for name, one in onsets(results).items() if one.typical is not None}
    steps = {
        f"{_label(name)}{'' if not one.num_false else ' (healthy ones, too)'}": Estimate(
            one.typical or 0.0, *_ends(one), one.num_seen
        )
        for name, one in sorted(found.items(), key=lambda item: item[1].typical or 0)
    }
    made = [
        Picture(
            figures.intervals(steps, "step at which it leaves what healthy trainings have"),
            "How soon each number tells a sick training from a healthy one: median and range over the seeds. Numbers "
            "in which half of the sick trainings show nothing are left out.",
            "Numbers by the step at which they separate sick from healthy trainings",
        )
    ]
    for variant in (HEALTHY, SICK):
        seed, values = next(iter(results.of(variant).items()))
        figure = go.Figure(values["picture"])
        caption = f"The colorful dimension of a {variant} training (seed {seed}): height is the value, colour their number."
        made.append(Picture(figure, caption, f"Histogram over the steps of a layer of a {variant} training"))
    return made


def _ends(one: Onset) -> tuple[float, float]:
    seen = [float(step) for step in one.steps if step is not None]
    return min(seen), max(seen)


def _label(name: str) -> str:
    if name == ONE_SIDED:
        return "near zero on one side"
    return STATISTICS[name].label if name in STATISTICS else name


def _told(estimate: Estimate) -> str:
    if not estimate.is_known:
        return share(estimate.value)
    low, high = max(estimate.low, 0.0), min(estimate.high, 1.0)
    return f"{share(estimate.value)} ({share(low)} to {share(high)})"
