"""What follows from reaching for a callback in every way: sentences, tables and figures.

No idea of trainings or processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import plotly.graph_objects as go

from actograph.show import theme
from actograph.show.figures import base_figure
from actograph.show.words import number
from actograph.study import figures
from actograph.study.chapter import Picture, Table
from actograph.study.estimate import Estimate, geometric_mean_of, mean_of
from actograph.study.study import Results
from actograph.study.tell import joined

GIVEN_TO_LEARNER, GIVEN_TO_FIT, KILLED = "given to the Learner", "given to fit", "process killed"
ROW_PX, FRAME_PX = 70, 130
KIB, MIB = 1024, 1024**2


class Way(StrEnum):
    """How to reach the numbers: the line of code."""

    BY_CLASS = "learn.callbacks[ActivationStats]"
    BY_NAME = 'learn.callbacks["activation_stats"]'
    ATTRIBUTE = "learn.activation_stats"
    OPEN_RUN = "open_run(path).activation_stats"
    SHOW = "actograph show RUN --json"

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is taken in another process."""
        return self in (Way.OPEN_RUN, Way.SHOW)


def measured(
    results: Results, way: str, variants: Sequence[str] = (GIVEN_TO_LEARNER, GIVEN_TO_FIT)
) -> list[Mapping[str, Any]]:
    """Return what a way gave, over the trainings of these variants."""
    return [values["ways"][way] for variant in variants for values in results.of(variant).values()]


def times(results: Results) -> dict[Way, Estimate]:
    """Estimate the seconds of each way, over the trainings."""
    return {way: geometric_mean_of([one["elapsed_s"] for one in measured(results, way)]) for way in Way}


def verdict(results: Results) -> tuple[list[str], dict[str, Any]]:
    """Return what can be told, and its numbers."""
    found = {way: measured(results, way) for way in Way}
    total = sum(one["num"] for ones in found.values() for one in ones)
    unequal = {way: sum(one["num_unequal"] for one in ones) for way, ones in found.items()}
    facts: dict[str, Any] = {"compared": total, "unequal": {str(way): num for way, num in unequal.items()}}
    if not total:
        return ["Nothing can be said: no training came through."], facts
    facts["seconds"] = {str(way): estimate for way, estimate in times(results).items()}
    sentences = [_agreement(found, unequal, total), *_twins(results, facts), *_second_fit(results, facts)]
    return [*sentences, *_elsewhere(found), *_memory(results, facts), *_killed(results, facts)], facts


def _agreement(
    found: Mapping[Way, Sequence[Mapping[str, Any]]], unequal: Mapping[Way, int], total: int
) -> str:
    if not any(unequal.values()):
        return (
            f"All {len(found)} ways give the same numbers as the object in the variable, to the last bit: of {total:,} that "
            "were compared none differs."
        )
    bad = [
        f"{way} ({num:,}, by up to {number(max(one['largest'] for one in found[way]))})"
        for way, num in unequal.items()
        if num
    ]
    return f"Not all ways give the numbers of the object in the variable: of {total:,} differ those of {joined(bad)}."


def _twins(results: Results, facts: dict[str, Any]) -> list[str]:
    """Compare the trainings of one seed, and those of different seeds: a comparison that never fails says nothing."""
    a, b = results.of(GIVEN_TO_LEARNER), results.of(GIVEN_TO_FIT)
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return []
    num_same = sum(a[seed]["digest"] == b[seed]["digest"] for seed in seeds)
    distinct = len({one["digest"] for one in a.values()})
    facts["same_by_place"], facts["distinct_seeds"] = num_same, distinct
    same = (
        "in every pair all numbers are the same"
        if num_same == len(seeds)
        else f"only in {num_same} of {len(seeds)} pairs are all numbers the same: training does not repeat itself here"
    )
    told = (
        "All are there for recording that was given to one fit, too. Each seed was trained twice, with recording given to "
        f"the Learner and to the fit, and {same}"
    )
    control = (
        "while no two seeds give the same, so that the comparison can fail"
        if distinct == len(a)
        else f"but {len(a)} seeds gave only {distinct} different results, so that the comparison says little"
    )
    return [f"{told}, {control}."]


def _second_fit(results: Results, facts: dict[str, Any]) -> list[str]:
    values = [one for one in results.of(GIVEN_TO_FIT).values() if "name_is_second" in one]
    if not values:
        return []
    num_second = sum(one["name_is_second"] for one in values)
    num_lost = sum(one["first_unequal"] > 0 for one in values)
    facts["name_is_second"], facts["first_lost"] = num_second, num_lost
    if num_second < len(values):
        return [
            f"After a second fit with recording of its own the name led to it in {num_second} of {len(values)} cases."
        ]
    rest = (
        "those of the first are still, all of them, in the folder of its run"
        if not num_lost
        else f"in {num_lost} of {len(values)} cases the folder of the first run no longer has all of its numbers"
    )
    return [f"After a second fit with recording of its own class and name lead to the second; {rest}."]


def _elsewhere(found: Mapping[Way, Sequence[Mapping[str, Any]]]) -> list[str]:
    ways = [way for way in Way if way.is_elsewhere]
    with_torch = [way for way in ways if any(one["has_torch"] for one in found[way])]
    seconds = {way: geometric_mean_of([one["elapsed_s"] for one in found[way]]).value for way in ways}
    needs = "neither imports torch" if not with_torch else f"torch was imported by {joined(with_torch)}"
    live = [
        geometric_mean_of([one["elapsed_s"] for one in found[way]]).value
        for way in Way
        if not way.is_elsewhere
    ]
    told = joined([f"{number(value, 2)} s for {way}" for way, value in seconds.items()])
    reading = [one["read_s"] for one in found[Way.OPEN_RUN]]
    peaks = [one["peak_bytes"] for one in found[Way.OPEN_RUN] if one["peak_bytes"]]
    held = f", and holds {number(max(peaks) / MIB)} MiB of memory at most" if peaks else ""
    read_s = number(geometric_mean_of(reading).value, 2)
    return [
        f"{joined(ways)} need the run's folder and nothing else; {needs}. From the start of the process it takes {told} "
        f"(the first: {read_s} s of it to open and read the run{held}); in the process that trained, "
        f"{number(1e3 * max(live), 2)} ms."
    ]


def _memory(results: Results, facts: dict[str, Any]) -> list[str]:
    values = [*results.of(GIVEN_TO_LEARNER).values(), *results.of(GIVEN_TO_FIT).values()]
    kept, disk = (mean_of([one[name] for one in values]).value for name in ("bytes_kept", "bytes_on_disk"))
    per_row = kept / mean_of([one["num_layers"] * one["num_steps"] for one in values]).value
    hooks = sum(one["hooks_left"] for one in values)
    facts.update(bytes_kept=kept, bytes_on_disk=disk, hooks_left=hooks)
    left = (
        "No hook is left in the model"
        if not hooks
        else f"{hooks} hooks are left in the model, over {len(values)} trainings"
    )
    return [
        f"{left}. The object holds {number(kept / MIB, 2)} MiB of memory ({number(per_row / KIB, 2)} KiB for each layer and "
        f"step); the folder has the same in {number(disk / KIB)} KiB."
    ]


def _killed(results: Results, facts: dict[str, Any]) -> list[str]:
    values = list(results.of(KILLED).values())
    if not values:
        return ["What is left of a process that is killed could not be tried."]
    made, readable = (sum(one[name] for one in values) for name in ("steps_made", "steps_readable"))
    share = readable / made
    facts.update(steps_made=made, steps_readable=readable)
    told = (
        f"of {made:,} steps that {len(values)} processes had made when they were ended {readable:,} "
        f"({100 * share:.0f} %) could be read afterwards"
    )
    lost_s = mean_of(
        [one["alive_s"] * (1 - one["steps_readable"] / one["steps_made"]) for one in values]
    ).value
    facts["lost_s"] = lost_s
    start = "A variable ends with its process, and so do the three ways through the Learner. The folder does not: "
    if not readable:
        start = "A variable ends with its process, and the folder was no better: "
    return [f"{start}{told}; lost are the last {number(lost_s, 2)} s or so."]


def tables(results: Results) -> list[Table]:
    """Return what each way gave, and what is left of each process that was killed."""
    rows: list[list[object]] = []
    for way, seconds in times(results).items():
        ones = measured(results, way)
        largest = max((one["largest"] for one in ones), default=math.nan)
        compared, unequal = (sum(one[name] for one in ones) for name in ("num", "num_unequal"))
        where = "another" if way.is_elsewhere else "same"
        has_torch = any(one["has_torch"] for one in ones)
        rows.append([str(way), where, compared, unequal, largest, seconds, has_torch])
    heads = ["way", "process", "compared", "differ", "by at most", "seconds", "torch"]
    return [Table("The ways, against the object in the variable", heads, rows), _killed_table(results)]


def _killed_table(results: Results) -> Table:
    rows = [
        [seed, one["steps_made"], one["steps_readable"], one["steps_readable"] / one["steps_made"]]
        for seed, one in results.of(KILLED).items()
    ]
    return Table(
        "What is left of a process that ends without a word",
        ["seed", "steps made", "steps readable", "share"],
        rows,
    )


def pictures(results: Results) -> list[Picture]:
    """Draw the time of each way with what differs, and what is left of a killed process."""
    named = {}
    for way, seconds in times(results).items():
        ones = measured(results, way)
        compared, unequal = (sum(one[name] for one in ones) for name in ("num", "num_unequal"))
        where = "another process" if way.is_elsewhere else "same process"
        named[f"{way}<br>{where}: {unequal:,} of {compared:,} differ"] = seconds
    ways = figures.intervals(named, "seconds until the numbers are there", is_log=True)
    ways.update_layout(height=ROW_PX * len(named) + FRAME_PX)
    ways.update_traces(marker_color=[theme.ORANGE if way.is_elsewhere else theme.BLUE for way in Way])
    shown = [
        Picture(
            ways,
            "How long each way takes (interval over the trainings), and below its name how many of its numbers differ from "
            "those of the object in the variable. Orange ways need only the run's folder.",
            "Seconds of each way to the numbers, with the count of numbers that differ",
        )
    ]
    values = results.of(KILLED)
    if values:
        shown.append(
            Picture(
                _left(values),
                "Steps that a process had made when it ended without a word, and those that can be read from its folder.",
                "Steps made and steps readable of each killed process",
            )
        )
    return shown


def _left(values: Mapping[int, Mapping[str, Any]]) -> go.Figure:
    seeds = [f"seed {seed}" for seed in values]
    readable = [one["steps_readable"] for one in values.values()]
    lost = [one["steps_made"] - one["steps_readable"] for one in values.values()]
    figure = base_figure(go.Figure(), height=ROW_PX * len(values) + FRAME_PX)
    for name, numbers, colour in (("readable", readable, theme.BLUE), ("lost", lost, theme.RED)):
        figure.add_bar(y=seeds, x=numbers, name=name, orientation="h", marker_color=colour)
    figure.update_layout(
        barmode="stack", legend={"y": 1.02, "yanchor": "bottom", "traceorder": "normal"}, margin_t=40
    )
    figure.update_yaxes(autorange="reversed")
    return figure.update_xaxes(title_text="training steps")
