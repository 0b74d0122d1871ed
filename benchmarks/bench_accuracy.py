"""Time to accuracy on 5,000 digits: our recipe, recording, beside fastai's, not recording.

    python benchmarks/bench_accuracy.py --tune --runs tuning.jsonl --recipes ours          # split 0 only
    python benchmarks/bench_accuracy.py --report --runs accuracy.jsonl --out benchmarks/results-accuracy.md

Every fit is a line of the file of runs: a measurement that was stopped goes on where it was, and several processes may share
one file (``--shard``; for accuracies only: their times disturb each other). Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import inspect
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import _fastai_recipe
import _our_recipe
import numpy as np
import torch
from _curve import Curve, Split, load_splits
from _environment import machine, names_among, revision, say
from _rounds import Quartiles
from bench_train import now, versions

TUNE_SPLITS, REPORT_SPLITS = (0,), (1, 2, 3, 4, 5)
NUM_SEEDS = 10
GOAL = 0.98
THRESHOLDS = (0.97, GOAL, 0.985, 0.988)
BASE = "fastai-64-lr06"

METHOD = """\
4,000 digits to train and 1,000 to validate, split by class and by number (split 0 was for tuning, the others were not looked
at), each recipe with each seed on each split, side by side in one process in rotating order. Seconds count from the call of
`fit` to the end of an epoch's training, set-up and recording included, validating not (in brackets: validating too).
Accuracies are those of the 1,000 validation digits at the end of an epoch; *best* picks the epoch on these same digits and
flatters everyone. A run that never gets there counts as infinitely slow in the median."""


@dataclass(frozen=True)
class Recipe:
    """A way to train on the digits."""

    name: str
    settings: Any
    train: Callable[[Split, int, Any, Path], Curve]
    module: ModuleType

    @property
    def source(self) -> str:
        """A hash of the recipe's file: runs of an earlier version of it are not this recipe's."""
        return hashlib.sha256(inspect.getsource(self.module).encode()).hexdigest()[:12]

    def identity(self) -> dict[str, Any]:
        """Return what a run must share to be this recipe's, as JSON gives it back."""
        settings = json.loads(json.dumps(asdict(self.settings)))
        return {"recipe": self.name, "settings": settings, "source": self.source}


def known_recipes() -> dict[str, Recipe]:
    ours = [Recipe(n, s, _our_recipe.our_recipe, _our_recipe) for n, s in _our_recipe.VARIANTS.items()]
    theirs = [
        Recipe(n, s, _fastai_recipe.fastai_recipe, _fastai_recipe) for n, s in _fastai_recipe.VARIANTS.items()
    ]
    return {recipe.name: recipe for recipe in (*ours, *theirs)}


def main() -> None:
    known = known_recipes()
    options = parse(known)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    recipes = [known[name] for name in options.recipes]
    if importlib.util.find_spec("fastai") is None:
        recipes = [recipe for recipe in recipes if recipe.module is not _fastai_recipe]
        say("fastai is not installed: its recipes are left out")
    splits = TUNE_SPLITS if options.tune else REPORT_SPLITS
    runs = Runs(options.runs)
    measure(recipes, splits, options.seeds, options.shard, runs)
    text = report(recipes, runs, splits, known[options.base])
    print(text)
    if options.out:
        options.out.write_text(text)


def parse(known: dict[str, Recipe]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--tune", action="store_true", help="split 0")
    mode.add_argument("--report", action="store_true", help="splits 1 to 5")
    parser.add_argument("--runs", type=Path, required=True, help="file of runs (JSON lines), to add to")
    parser.add_argument("--out", type=Path, help="write the Markdown there")
    parser.add_argument("--recipes", type=names_among(known), default=list(known), help=", ".join(known))
    parser.add_argument("--base", choices=list(known), default=BASE, help="whose time is the limit")
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS, help="seeds per split, from 0")
    parser.add_argument("--shard", type=shard, default=(0, 1), help="I/N: only every N-th fit, from the I-th")
    parser.add_argument("--threads", type=int, help="torch's threads; its own default when left out")
    return parser.parse_args()


def shard(text: str) -> tuple[int, int]:
    index, count = map(int, text.split("/"))
    if not 0 <= index < count:
        raise argparse.ArgumentTypeError(f"{text}: give I/N with 0 <= I < N")
    return index, count


class Runs:
    """The file of runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.context = {"versions": versions(), "machine": machine()}
        lines = path.read_text().splitlines() if path.exists() else []
        self.all: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def of(self, recipe: Recipe) -> dict[tuple[int, int], dict[str, Any]]:
        """Return the runs of a recipe as it is now, in this environment, by split and seed."""
        wanted = recipe.identity() | self.context
        found = [run for run in self.all if all(run.get(key) == value for key, value in wanted.items())]
        return {(run["split"], run["seed"]): run for run in found}

    def add(self, recipe: Recipe, split: int, seed: int, curve: Curve) -> None:
        run = recipe.identity() | self.context
        run |= {"split": split, "seed": seed, "revision": revision(), "load": os.getloadavg()[0]}
        run |= {"at": now(), "curve": curve.record()}
        self.all.append(run)
        with self.path.open("a") as file:
            file.write(json.dumps(run) + "\n")


def measure(
    recipes: list[Recipe], numbers: Iterable[int], num_seeds: int, shard: tuple[int, int], runs: Runs
) -> None:
    """Do the fits that are not there yet; the order of the recipes rotates."""
    index, count = shard
    todo = [(number, seed) for seed in range(num_seeds) for number in numbers][index::count]
    splits = {split.number: split for split in load_splits(list(numbers))}
    warm: set[str] = set()
    for turn, (number, seed) in enumerate(todo):
        start = turn % max(len(recipes), 1)
        for recipe in recipes[start:] + recipes[:start]:
            if (number, seed) in runs.of(recipe):
                continue
            if recipe.name not in warm:
                warm.add(recipe.name)
                train(replace_epochs(recipe), splits[number], seed)
            curve = train(recipe, splits[number], seed)
            runs.add(recipe, number, seed, curve)
            say(
                f"{recipe.name} split {number} seed {seed}: {curve.accuracy[-1]:.3f} in {curve.train_s[-1]:.2f} s, "
                f"load {os.getloadavg()[0]:.1f}"
            )


def replace_epochs(recipe: Recipe) -> Recipe:
    """Return the recipe with a single epoch, to warm up with."""
    return replace(recipe, settings=replace(recipe.settings, epochs=1))


def train(recipe: Recipe, split: Split, seed: int) -> Curve:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return recipe.train(split, seed, recipe.settings, Path(folder))


# What the runs say


@dataclass(frozen=True)
class Outcome:
    """A run, beside the run of the base with the same split and seed, if there is one."""

    curve: dict[str, Any]
    base: dict[str, Any] | None

    def seconds_to(self, accuracy: float, clock: str = "train_s") -> float:
        """Return when an epoch first ended with this accuracy; infinity if none did."""
        pairs = zip(self.curve[clock], self.curve["accuracy"], strict=True)
        return next((seconds for seconds, reached in pairs if reached >= accuracy), math.inf)

    def within(self) -> list[float]:
        """Return the accuracies of the epochs that ended within the base's whole time."""
        assert self.base is not None
        limit_s = self.base["train_s"][-1]
        pairs = zip(self.curve["train_s"], self.curve["accuracy"], strict=True)
        return [accuracy for seconds, accuracy in pairs if seconds <= limit_s]


def report(recipes: list[Recipe], runs: Runs, numbers: Iterable[int], base_recipe: Recipe) -> str:
    """Return the Markdown of all runs on these splits, finished or not."""
    base = {key: run["curve"] for key, run in runs.of(base_recipe).items()}
    outcomes: dict[str, dict[tuple[int, int], Outcome]] = {}
    for recipe in recipes:
        found = {key: run for key, run in runs.of(recipe).items() if key[0] in numbers}
        if found:
            outcomes[recipe.name] = {key: Outcome(run["curve"], base.get(key)) for key, run in found.items()}
    used = [run for recipe in recipes for key, run in runs.of(recipe).items() if key[0] in numbers]
    parts = [
        "# Time to accuracy on 5,000 digits",
        f"{runs.context['machine']}.\n{runs.context['versions']}.",
        provenance(used),
        METHOD,
        "\n".join(f"- `{recipe.name}`: {recipe.settings}" for recipe in recipes),
        summary_table(outcomes, base_recipe.name),
        threshold_table(outcomes),
        split_table(outcomes, list(numbers)),
        curve_table(outcomes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def provenance(runs: list[dict[str, Any]]) -> str:
    if not runs:
        return "No runs yet."
    loads = [run["load"] for run in runs]
    first, last = min(run["at"] for run in runs), max(run["at"] for run in runs)
    revisions = ", ".join(sorted({run["revision"] for run in runs}))
    return (
        f"{len(runs)} fits, {first} to {last}, actograph at {revisions}; load at the end of a fit "
        f"{min(loads):.1f} to {max(loads):.1f}."
    )


def summary_table(outcomes: dict[str, dict[tuple[int, int], Outcome]], base_name: str) -> str:
    lines = [
        f"## {GOAL:.0%}, and what the time of `{base_name}` is enough for",
        "",
        f"*share*: runs that reach {GOAL:.0%} at the end of an epoch. *of the base's*: the paired ratio of the seconds "
        "where both get there. *within*: at the last epoch, or the best one, that ended within the seconds of the base's "
        "whole fit with the same split and seed; mean ± standard deviation of the runs.",
        "",
        "| recipe | runs | share | seconds to it, median [quartiles] | of the base's | within, last | within, best "
        "| final | least final | seconds, whole fit |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *[summary_row(name, list(runs.values())) for name, runs in outcomes.items()]])


def summary_row(name: str, outcomes: list[Outcome]) -> str:
    finals = [outcome.curve["accuracy"][-1] for outcome in outcomes]
    within = [outcome.within() for outcome in outcomes if outcome.base is not None]
    missed = f", {within.count([])} too slow for one epoch" if [] in within else ""
    within = [accuracies for accuracies in within if accuracies]
    share = np.mean([math.isfinite(outcome.seconds_to(GOAL)) for outcome in outcomes])
    cells = [
        f"`{name}`",
        str(len(outcomes)),
        f"{share:.0%}",
        seconds_cell(outcomes, GOAL),
        ratio_cell(outcomes),
        mean_cell([accuracies[-1] for accuracies in within]) + missed,
        mean_cell([max(accuracies) for accuracies in within]) + missed,
        mean_cell(finals),
        f"{min(finals):.2%}",
        f"{np.median([outcome.curve['train_s'][-1] for outcome in outcomes]):.2f} "
        f"({np.median([outcome.curve['fit_s'] for outcome in outcomes]):.2f})",
    ]
    return f"| {' | '.join(cells)} |"


def seconds_cell(outcomes: list[Outcome], accuracy: float) -> str:
    """Return median and quartiles without validating, and the median with it; a dash where too few get there."""
    seconds = np.sort([outcome.seconds_to(accuracy) for outcome in outcomes])
    total = np.sort([outcome.seconds_to(accuracy, "total_s") for outcome in outcomes])
    # quantiles that are runs: between two of which one is infinite there is nothing to interpolate
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75), method="higher")
    median_total = np.quantile(total, 0.5, method="higher")
    text = [
        f"{value:.2f}" if math.isfinite(value) else "never" for value in (low, median, high, median_total)
    ]
    return f"{text[1]} [{text[0]}, {text[2]}] ({text[3]})"


def ratio_cell(outcomes: list[Outcome]) -> str:
    pairs = [
        (outcome.seconds_to(GOAL), Outcome(outcome.base, None).seconds_to(GOAL))
        for outcome in outcomes
        if outcome.base is not None
    ]
    ratios = [own / other for own, other in pairs if math.isfinite(own) and math.isfinite(other)]
    if not ratios:
        return "-"
    ratio = Quartiles.of(ratios)
    return f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}], n={len(ratios)}"


def mean_cell(accuracies: list[float]) -> str:
    if not accuracies:
        return "-"
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return f"{np.mean(accuracies):.2%} ± {spread * 100:.2f}"


def threshold_table(outcomes: dict[str, dict[tuple[int, int], Outcome]]) -> str:
    lines = [
        "## Share of the runs that get there, and seconds",
        "",
        f"| recipe | {' | '.join(f'{threshold:.1%}' for threshold in THRESHOLDS)} |",
        f"|---|{'---:|' * len(THRESHOLDS)}",
    ]
    for name, runs in outcomes.items():
        found = list(runs.values())
        shares = [np.mean([math.isfinite(one.seconds_to(goal)) for one in found]) for goal in THRESHOLDS]
        cells = [
            f"{share:.0%}, {seconds_cell(found, goal)}"
            for share, goal in zip(shares, THRESHOLDS, strict=True)
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def split_table(outcomes: dict[str, dict[tuple[int, int], Outcome]], numbers: list[int]) -> str:
    lines = [
        "## Final accuracy by split",
        "",
        f"| recipe | {' | '.join(f'split {number}' for number in numbers)} |",
        f"|---|{'---:|' * len(numbers)}",
    ]
    for name, runs in outcomes.items():
        by_split = [
            [one.curve["accuracy"][-1] for key, one in runs.items() if key[0] == number] for number in numbers
        ]
        lines.append(f"| `{name}` | {' | '.join(mean_cell(accuracies) for accuracies in by_split)} |")
    return "\n".join(lines)


def curve_table(outcomes: dict[str, dict[tuple[int, int], Outcome]]) -> str:
    lines = [
        "## Epoch by epoch",
        "",
        "| recipe | epoch | seconds, median | accuracy, mean ± standard deviation | least |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, runs in outcomes.items():
        curves = [outcome.curve for outcome in runs.values()]
        for epoch in range(min(len(curve["accuracy"]) for curve in curves)):
            reached = [curve["accuracy"][epoch] for curve in curves]
            seconds = np.median([curve["train_s"][epoch] for curve in curves])
            lines.append(
                f"| `{name}` | {epoch + 1} | {seconds:.2f} | {mean_cell(reached)} | {min(reached):.2%} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # of fastai's imports
    main()
