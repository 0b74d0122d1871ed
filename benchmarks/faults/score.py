"""`report`: what diagnosers say of the recorded runs, compared with what was done to them, as tables.

No idea of particular rules or faults. A diagnoser gives `Said`s, best first; ours is `diagnose`, the rivals stand in
`rivals` and, where they have to watch the training themselves, in `packages`.
"""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Finding, Severity
from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView
from actograph.testing.rules import shortened
from faults.case import Case
from faults.harm import Result, does_harm
from faults.runner import Job
from faults.said import Said

ONSET_STEPS, ONSET_SHARE = 5, 0.02  # how far off an onset may be
CONFIDENCE = 0.95
TOP = 3
EARLIER = (0.25, 0.5, 0.75)  # shares of a healthy run after which a guard might have looked


def ours(view: RunView) -> list[Said]:
    """Return what actograph says, first cause first."""
    return [_said(finding) for finding in diagnose(view).at_least(Severity.WARNING)]


def _said(finding: Finding) -> Said:
    others = str(finding.evidence.get("other_layers", ""))
    remedies = tuple((one.action, one.target, one.new) for one in finding.remedies)
    return Said(finding.rule, finding.layer, finding.first_step, tuple(part.split(" ")[0] for part in others.split(", ") if part), remedies)


@dataclass
class Judged:
    """One run with what was said of it."""

    job: Job
    result: Result
    said: list[Said]
    said_before: list[Said] = field(default_factory=list)  # of a healthy run at a quarter, half and three quarters

    @property
    def case(self) -> Case:
        """The case; only of faulty runs."""
        assert isinstance(self.job.what, Case)
        return self.job.what

    @property
    def is_detected(self) -> bool:
        return bool(self.said)

    def names_cause(self, most: int) -> bool:
        return any(one.means_any(self.case.rules) for one in self.said[:most])

    def names_layer(self, most: int) -> bool:
        return any(one.layer in self.case.layers for one in self.said[:most])

    @property
    def onset_error(self) -> float | None:
        """How many steps the right cause's onset is off; None where no right cause is named, or it gives no step."""
        steps = [one.first_step for one in self.said if one.means_any(self.case.rules) and one.first_step is not None]
        return None if not steps else abs(steps[0] - self.case.t0)

    @property
    def is_onset_right(self) -> bool:
        error = self.onset_error
        return error is not None and error <= max(ONSET_STEPS, ONSET_SHARE * self.result["num_steps"])

    @property
    def is_remedy_right(self) -> bool:
        """Whether the first thing said has a remedy of the right kind among its first three."""
        remedies = self.said[0].remedies[:TOP] if self.said else ()
        texts = [f"{action} {target}".lower() for action, target, _ in remedies]
        return any(word.lower() in text for word in self.case.remedies for text in texts)


@dataclass
class Table:
    """The runs of one diagnoser; a package may not have watched all of them, or none."""

    name: str
    version: str = ""
    faulty: list[Judged] = field(default_factory=list)
    healthy: list[Judged] = field(default_factory=list)


def report(jobs: Sequence[Job], out: Path, *, workers: int, diagnosers: Sequence[str] = ("ours",)) -> str:
    """Return the tables in Markdown for the jobs that are done: several diagnosers side by side, and ours in full."""
    done = [job for job in jobs if (job.folder(out) / "result.json").exists()]
    results = {job: json.loads((job.folder(out) / "result.json").read_text()) for job in done}
    harm = harms(done, results)
    parts = [_heading(done, harm)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        tables = []
        for name in diagnosers:
            said = pool.map(functools.partial(_judge, name, out), done, chunksize=8)
            table = Table(name, _version(name, [one for one in said if one is not None]))
            for job, one in zip(done, said, strict=True):
                if one is not None:
                    judged = Judged(job, results[job], one.said, one.said_before)
                    (table.faulty if isinstance(job.what, Case) else table.healthy).append(judged)
            tables.append(table)
    if len(tables) > 1:
        parts.append(_comparison(tables, harm))
    parts += [_tables(table, harm) for table in tables if table.name == "ours" or len(tables) == 1]
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Answer:
    """What a diagnoser said of one run; the version where it is a package's."""

    said: list[Said]
    said_before: list[Said] = field(default_factory=list)
    version: str = ""


def _judge(name: str, out: Path, job: Job) -> _Answer | None:
    from faults.packages import PACKAGES, said_by
    from faults.rivals import DIAGNOSERS

    if name in PACKAGES:
        kept = said_by(name, job, out)
        return None if kept is None else _Answer(*kept)
    view, diagnoser = read_run(job.folder(out) / "run"), DIAGNOSERS[name]
    if isinstance(job.what, Case):
        return _Answer(diagnoser(view))
    parts = [shortened(view, int(share * view.num_steps)) for share in EARLIER]
    return _Answer(diagnoser(view), [one for part in parts for one in diagnoser(part)])


def _version(name: str, answers: Sequence[_Answer]) -> str:
    """Return what stands beside a diagnoser's name: its version, or why there is nothing."""
    from faults.packages import PACKAGES, version_of

    if name == "ours":
        return version_of("actograph") or ""
    if name not in PACKAGES:
        return "documented rules"
    if not answers:
        return "not installed" if version_of(name) is None else "not run"
    return ", ".join(sorted({one.version for one in answers}))


def _comparison(tables: Sequence[Table], harm: dict[str, bool | None]) -> str:
    """Return one line a diagnoser, over the trainings that it saw."""
    rows = []
    for table in tables:
        harmful = [judged for judged in table.faulty if harm[judged.job.id] is not False]
        with_layer = [judged for judged in harmful if judged.case.layers]
        late = [judged for judged in harmful if judged.case.t0 > 0]
        shares = (
            _share(harmful, lambda one: one.is_detected),
            _share(harmful, lambda one: one.names_cause(1)),
            _share(harmful, lambda one: one.names_cause(TOP)),
            _share(with_layer, lambda one: one.names_layer(1)),
            _share(late, lambda one: one.is_onset_right),
            _share(table.healthy, lambda one: one.is_detected),
        )
        rows.append((table.name, table.version, *shares))
    scores = ("detected", "cause, first", "cause, first three", "layer, first", "onset", "healthy with an alarm")
    note = "A symptom that a rival names is right where any cause that may be meant by it is (benchmarks/faults/README.md)."
    return _markdown(("diagnoser", "version", *scores), rows) + "\n\n" + note


def harms(jobs: Sequence[Job], results: dict[Job, Result]) -> dict[str, bool | None]:
    """Return of each case whether it does harm; the twin is the program with the same recording."""
    by_id: dict[str, list[Result]] = defaultdict(list)
    for job in jobs:
        by_id[job.id].append(results[job])
    cases = {job.id: job.what for job in jobs if isinstance(job.what, Case)}
    return {id_: does_harm(by_id[id_], by_id[f"H00-{case.program}"]) for id_, case in cases.items()}


def _heading(jobs: Sequence[Job], harm: dict[str, bool | None]) -> str:
    latent = sorted(id_ for id_, one in harm.items() if one is False)
    unknown = sorted(id_ for id_, one in harm.items() if one is None)
    lines = [f"{len(jobs)} trainings; {len(harm)} cases, of which {len(latent)} do no harm (latent)"]
    lines += [f"Latent: {', '.join(latent)}"] if latent else []
    lines += [f"Too few seeds to tell harm, counted as harmful: {', '.join(unknown)}"] if unknown else []
    return "\n\n".join(lines)


def _tables(table: Table, harm: dict[str, bool | None]) -> str:
    harmful = [judged for judged in table.faulty if harm[judged.job.id] is not False]
    latent = [judged for judged in table.faulty if harm[judged.job.id] is False]
    parts = [f"## {table.name}", _totals(harmful, latent, table.healthy), _per_fault(harmful), _alarms(table.healthy)]
    return "\n\n".join([*parts, _misses(harmful)])


def _totals(harmful: list[Judged], latent: list[Judged], healthy: list[Judged]) -> str:
    with_layer = [judged for judged in harmful if judged.case.layers]
    late = [judged for judged in harmful if judged.case.t0 > 0]
    by_words = [judged for judged in harmful if judged.case.remedies]
    alarms = sum(judged.is_detected for judged in healthy)
    low, high = _interval(alarms, len(healthy))
    rows = [
        ("detected", _share(harmful, lambda one: one.is_detected)),
        ("cause, first", _share(harmful, lambda one: one.names_cause(1))),
        ("cause, first three", _share(harmful, lambda one: one.names_cause(TOP))),
        ("layer, first", _share(with_layer, lambda one: one.names_layer(1))),
        ("layer, first three", _share(with_layer, lambda one: one.names_layer(TOP))),
        ("onset within 5 steps or 2 % (t0 > 0)", _share(late, lambda one: one.is_onset_right)),
        ("remedy in words", _share(by_words, lambda one: one.is_remedy_right)),
        ("healthy runs with an alarm", f"{alarms} of {len(healthy)} ({low:.1%} to {high:.1%})"),
        ("healthy runs with an alarm on the way", _share(healthy, lambda one: bool(one.said_before))),
        ("latent: alarm", _share(latent, lambda one: one.is_detected)),
        ("latent: right cause first", _share(latent, lambda one: one.names_cause(1))),
    ]
    return _markdown(("score", "share"), rows)


def _per_fault(harmful: list[Judged]) -> str:
    by_id: dict[str, list[Judged]] = defaultdict(list)
    for judged in harmful:
        by_id[judged.job.id].append(judged)
    rows = []
    for id_, runs in sorted(by_id.items()):
        errors = [one.onset_error for one in runs if one.onset_error is not None]
        first = Counter(one.said[0].rule if one.said else "(nothing)" for one in runs)
        told = ", ".join(f"{rule} {count}" for rule, count in first.most_common(3))
        onset = f"{np.median(errors):.0f}" if errors else ""
        layer = _count(runs, lambda one: one.names_layer(1)) if runs[0].case.layers else ""
        rows.append((id_, str(len(runs)), _count(runs, lambda one: one.is_detected), _count(runs, lambda one: one.names_cause(1)),
                     _count(runs, lambda one: one.names_cause(TOP)), layer, onset, told))  # fmt: skip
    return _markdown(("case", "runs", "detected", "cause 1", "cause 3", "layer 1", "onset off", "first said"), rows)


def _alarms(healthy: list[Judged]) -> str:
    rows = [
        (judged.job.id, str(judged.job.seed), _listed(judged.said), _listed(judged.said_before))
        for judged in healthy
        if judged.said or judged.said_before
    ]
    return _markdown(("healthy run", "seed", "alarm", "on the way"), rows) if rows else "No healthy run has an alarm."


def _listed(said: Sequence[Said]) -> str:
    return ", ".join(dict.fromkeys(f"{one.rule} ({one.layer or '-'}, {one.first_step})" for one in said))


def _misses(harmful: list[Judged]) -> str:
    wrong = Counter(
        (judged.case.rules[0], judged.said[0].rule if judged.said else "(nothing)")
        for judged in harmful
        if not judged.names_cause(1)
    )
    return _markdown(("is", "was called", "runs"), [(*pair, str(count)) for pair, count in wrong.most_common()])


def _share(runs: list[Judged], is_so: Callable[[Judged], bool]) -> str:
    if not runs:
        return "none"
    hits = sum(map(is_so, runs))
    low, high = _interval(hits, len(runs))
    return f"{hits / len(runs):.1%} ({hits} of {len(runs)}; {low:.0%} to {high:.0%})"


def _count(runs: list[Judged], is_so: Callable[[Judged], bool]) -> str:
    return str(sum(map(is_so, runs)))


def _interval(hits: int, num: int) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper, Pearson 1934)."""
    if not num:
        return math.nan, math.nan
    found = stats.binomtest(hits, num).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)])
