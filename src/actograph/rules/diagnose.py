"""`diagnose`: run all rules over a run and put the first cause first.

No idea of any particular rule. What links findings is only: is it a cause or a symptom, when did it begin, and which
causes a rule says it leads to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from actograph.rules.catalog import DEFAULT_RULES
from actograph.rules.rule import Abstention, Diagnosis, Finding, Rule, Severity
from actograph.runlog.view import RunView

# A cause may be seen a little after what it brings about: a unit counts as silent only from its last spark, a loss moves
# at once. Twice the onset error we allow ourselves (5 steps or 2 % of the run), as both ends may be off.
TOLERANCE_STEPS = 10
TOLERANCE_SHARE = 0.04  # of the run

Said = tuple[Rule, Finding]


def diagnose(view: RunView, rules: Sequence[Rule] = DEFAULT_RULES) -> Diagnosis:
    """Judge a run by ``rules``: causes first, symptoms only where no cause explains them.

    A finding that another explains becomes one of its ``consequences`` and lends it its severity: a cause that led to an
    error is an error. Findings come worst first, of equals causes before symptoms, then
    the earliest.

    >>> from actograph.testing.synthetic import SyntheticRun
    >>> diagnose(SyntheticRun([]).view()).findings
    ()
    """
    said = [(rule, answer) for rule in rules for answer in rule.check(view)]
    abstained = tuple(answer for _, answer in said if isinstance(answer, Abstention))
    findings = [(rule, answer) for rule, answer in said if isinstance(answer, Finding)]
    tolerance = max(TOLERANCE_STEPS, TOLERANCE_SHARE * view.num_steps)
    return Diagnosis(tuple(_linked(findings, tolerance)), abstained)


def _linked(findings: Sequence[Said], tolerance: float) -> list[Finding]:
    """Hang every explained finding under the first cause that explains it and sort the rest."""
    # causes in order of onset, then symptoms: a cause finds its first cause before the symptoms look for theirs
    ordered = sorted(findings, key=lambda said: (not said[0].is_cause, *_by_onset(said[1])))
    root: dict[int, int] = {}
    for number, said in enumerate(ordered):
        # of two that explain each other the first is the cause
        parents = (
            other
            for other, cause in enumerate(ordered)
            if _explains(cause, said, tolerance) and (other < number or not _explains(said, cause, tolerance))
        )
        first = next((_root_of(parent, root) for parent in parents), number)
        if first != number:
            root[number] = first
    top = []
    for number, (rule, finding) in enumerate(ordered):
        if number not in root:
            below = [ordered[other][1] for other in root if _root_of(other, root) == number]
            top.append((rule, _with(finding, below)))
    worst_first = sorted(
        top, key=lambda said: (-said[1].severity.rank, not said[0].is_cause, said[1].first_step)
    )
    return [finding for _, finding in worst_first]


def _explains(cause: Said, said: Said, tolerance: float) -> bool:
    """Tell whether ``cause`` began in time and is known to bring about ``said``; any cause brings about symptoms."""
    rule, finding = said
    is_due = not rule.is_cause or rule.id in cause[0].leads_to
    in_time = cause[1].first_step <= finding.first_step + tolerance
    return (
        cause is not said
        and cause[0].is_cause
        and is_due
        and in_time
        and cause[1].severity >= Severity.WARNING
    )


def _root_of(number: int, root: dict[int, int]) -> int:
    while number in root:
        number = root[number]
    return number


def _with(finding: Finding, below: Sequence[Finding]) -> Finding:
    if not below:
        return finding
    consequences = tuple(sorted([*finding.consequences, *below], key=_by_onset))
    worst = max([finding.severity, *(consequence.severity for consequence in consequences)])
    return replace(finding, severity=worst, consequences=consequences)


def _by_onset(finding: Finding) -> tuple[int, int]:
    return finding.first_step, -finding.severity.rank
