"""`check_rule`: the conformance suite that every rule passes, ours and yours.

No idea of any particular rule. It asks for runs of three kinds and raises AssertionError with a sentence that says what
is wrong.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from actograph.rules.rule import Abstention, Diagnosis, Finding, Rule, Severity
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.schema import RunInfo
from actograph.runlog.view import RunView

CUTS = (
    1,
    2,
    3,
    5,
    10,
    19,
    20,
    21,
    50,
)  # steps after which a run is cut off: shorter and longer than any window
Runs = RunView | Sequence[RunView]


def check_rule(rule: Rule, *, sick: Runs, healthy: Runs, near_miss: Runs) -> None:
    """Assert that ``rule`` catches each sick run and leaves each healthy run and near miss alone.

    Silent means no finding of warning or error; a note is allowed. Also asserted: findings are complete and fit the run, the
    rule is pure, empty and cut-off runs make it abstain and never raise, JSON and back is the same.

    A rule is tested with three runs of your own::

        check_rule(MyRule(), sick=run_with_the_fault(), healthy=ordinary_run(), near_miss=run_that_looks_alike())
    """
    for view in _each(sick):
        check_catches(rule, view)
    for view in _each(healthy):
        check_silent(rule, view, "healthy run")
    for view in _each(near_miss):
        check_silent(rule, view, "near miss")
    for view in (*_each(sick), *_each(healthy), *_each(near_miss)):
        check_pure(rule, view)
        check_cut_off(rule, view)
    check_empty(rule)


def check_catches(rule: Rule, view: RunView) -> None:
    """Assert that the rule finds something of at least warning, and that all it finds is valid."""
    found = _findings(rule, view)
    assert any(finding.severity >= Severity.WARNING for finding in found), (
        f"{rule.id} does not catch the sick run {view.info.name!r}: it found {found} and {_abstentions(rule, view)}"
    )
    for finding in found:
        check_finding(rule, finding, view)


def check_silent(rule: Rule, view: RunView, kind: str = "run") -> None:
    """Assert that the rule raises no alarm."""
    alarms = [finding.message for finding in _findings(rule, view) if finding.severity >= Severity.WARNING]
    assert not alarms, f"{rule.id} raises a false alarm on the {kind} {view.info.name!r}: {alarms}"


def check_finding(rule: Rule, finding: Finding, view: RunView) -> None:
    """Assert that a finding fits the run, is complete, and survives JSON."""
    names = [info.name for info in view.layers]
    assert finding.rule == rule.id, f"the finding says {finding.rule!r}, its rule is {rule.id!r}"
    assert finding.layer is None or finding.layer in names, f"{finding.layer!r} is not one of {names}"
    assert 0 <= finding.first_step <= finding.last_step < view.num_steps, (
        f"steps {finding.first_step} to {finding.last_step} do not lie in a run of {view.num_steps} steps"
    )
    assert finding.evidence, "a finding without evidence cannot be checked by its reader"
    numbers = [value for value in finding.evidence.values() if not isinstance(value, str)]
    assert not any(math.isnan(value) for value in numbers), f"NaN in the evidence {finding.evidence}"
    assert finding.message.strip(), "a finding has a message"
    assert "\n" not in finding.message, "the message is one paragraph"
    assert finding.message.endswith((".", "!")), f"the message is not made of sentences: {finding.message!r}"
    assert finding.remedies, "a finding says what to do"
    for remedy in finding.remedies:
        assert remedy.action.strip(), "a remedy says what to do"
        assert remedy.target.strip(), "a remedy says to what"
        changes = remedy.old is None or remedy.new is None or remedy.old != remedy.new
        assert changes, f"{remedy.action!r} changes nothing: {remedy.old} to {remedy.new}"
    written = json.loads(json.dumps(finding.to_json(), allow_nan=False))
    assert Finding.from_json(written).to_json() == finding.to_json(), "JSON and back is not the same"


def check_pure(rule: Rule, view: RunView) -> None:
    """Assert that the rule says the same twice and leaves the view as it was."""
    before = _digest(view)
    first, second = list(rule.check(view)), list(rule.check(view))
    assert first == second, f"{rule.id} does not say the same twice"
    assert _digest(view) == before, f"{rule.id} changed the view"


def check_cut_off(rule: Rule, view: RunView) -> None:
    """Assert that whatever is left of a run is judged without raising, and that findings about it are valid."""
    for part in _parts(view):
        findings, abstained = [], []
        for answer in rule.check(part):
            if isinstance(answer, Finding):
                check_finding(rule, answer, part)
                findings.append(answer)
            else:
                _check_abstention(rule, answer)
                abstained.append(answer)
        diagnosis = Diagnosis(tuple(findings), tuple(abstained))
        written = json.loads(json.dumps(diagnosis.to_json("run"), allow_nan=False))
        assert Diagnosis.from_json(written).to_json("run") == diagnosis.to_json("run")


def check_empty(rule: Rule) -> None:
    """Assert that a run in which nothing was recorded makes the rule abstain."""
    empty = RunView(RunInfo("empty"))
    assert not _findings(rule, empty), f"{rule.id} finds something in an empty run"
    abstentions = _abstentions(rule, empty)
    assert abstentions, f"{rule.id} does not say that it cannot judge an empty run"
    for abstention in abstentions:
        _check_abstention(rule, abstention)


def shortened(view: RunView, steps: int) -> RunView:
    """Return the run as it was after its first ``steps`` steps (whole buckets only)."""
    return replace(
        view,
        buckets=tuple(bucket for bucket in view.buckets if bucket.last_step < steps),
        scalars={key: _first_points(series, steps) for key, series in view.scalars.items()},
        events=tuple(event for event in view.events if event.step < steps),
        facts=view.facts.until(steps),
    )


def _parts(view: RunView) -> Iterator[RunView]:
    for steps in (*CUTS, view.num_steps // 2, view.num_steps - 1):
        if 0 < steps < view.num_steps:
            yield shortened(view, steps)
    yield replace(view, scalars={})
    yield replace(view, layers=(), buckets=())
    yield replace(view, buckets=())
    yield replace(view, buckets=view.buckets[::3])  # as if the recorder had thinned the steps
    yield replace(view, buckets=view.buckets[-1:])


def _first_points(series: ScalarSeries, steps: int) -> ScalarSeries:
    kept = series.steps < steps
    first = series.first_non_finite
    return ScalarSeries(
        series.steps[kept],
        series.values[kept],
        series.low[kept],
        series.high[kept],
        first if first is not None and first < steps else None,
    )


def _check_abstention(rule: Rule, abstention: Abstention) -> None:
    assert abstention.rule == rule.id, f"the abstention says {abstention.rule!r}, its rule is {rule.id!r}"
    assert abstention.reason.strip(), f"{rule.id} abstains without a reason"


def _findings(rule: Rule, view: RunView) -> list[Finding]:
    return [answer for answer in rule.check(view) if isinstance(answer, Finding)]


def _abstentions(rule: Rule, view: RunView) -> list[Abstention]:
    return [answer for answer in rule.check(view) if isinstance(answer, Abstention)]


def _each(runs: Runs) -> Sequence[RunView]:
    return [runs] if isinstance(runs, RunView) else runs


def _digest(view: RunView) -> str:
    digest = hashlib.sha256(repr((view.info, view.layers, view.events)).encode())
    for bucket in view.buckets:
        digest.update(repr((bucket.first_step, bucket.last_step, bucket.num_steps)).encode())
        for array in (bucket.rows, bucket.hist, bucket.fired):
            digest.update(array.tobytes())
    for key, series in view.scalars.items():
        digest.update(repr((key, series.first_non_finite)).encode())
        for array in (series.steps, series.values, series.low, series.high):
            digest.update(array.tobytes())
    return digest.hexdigest()
