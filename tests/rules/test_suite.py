"""The conformance suite itself: each kind of bad rule makes it fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity
from actograph.runlog.view import RunView
from actograph.testing.rules import check_rule, shortened
from tests.rules.runs import falling, losses_only, run_of

SICK, WELL = losses_only(falling() + 10, name="sick"), losses_only(falling(), name="well")
GOOD = Finding(
    "high",
    Severity.WARNING,
    None,
    0,
    0,
    {"loss": 12.0},
    "The loss is high.",
    (Remedy("lower", "lr", 1.0, 0.1),),
)


@dataclass(frozen=True)
class High(Rule):
    """A loss above 5 is high."""

    id: ClassVar[str] = "high"
    finding: Finding = GOOD

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        loss = view.scalar("loss")
        if not len(loss):
            yield self.abstain("no loss")
        elif loss.values[0] > 5:
            yield self.finding


def test_good_rule_conforms() -> None:
    check_rule(High(), sick=SICK, healthy=WELL, near_miss=[WELL])


def test_missed_sick_run_is_told() -> None:
    with pytest.raises(AssertionError, match="does not catch the sick run 'well'"):
        check_rule(High(), sick=[SICK, WELL], healthy=[], near_miss=[])


@pytest.mark.parametrize("kind", ["healthy", "near_miss"])
def test_false_alarm_is_told(kind: str) -> None:
    runs: dict[str, Any] = {"healthy": WELL, "near_miss": WELL, kind: SICK}
    with pytest.raises(AssertionError, match="false alarm"):
        check_rule(High(), sick=SICK, **runs)


def test_note_on_a_healthy_run_is_allowed() -> None:
    note = High(replace(GOOD, severity=Severity.NOTE))
    check_rule(note, sick=[], healthy=SICK, near_miss=[])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rule": "other"}, "its rule is"),
        ({"layer": "fc9"}, "is not one of"),
        ({"last_step": 999}, "do not lie in a run"),
        ({"first_step": -1}, "do not lie in a run"),
        ({"evidence": {}}, "without evidence"),
        ({"evidence": {"x": float("nan")}}, "NaN in the evidence"),
        ({"message": "Two.\nLines."}, "one paragraph"),
        ({"message": "no sentence"}, "not made of sentences"),
        ({"message": "   "}, "has a message"),
        ({"remedies": ()}, "says what to do"),
        ({"remedies": (Remedy("", "lr"),)}, "says what to do"),
        ({"remedies": (Remedy("lower", ""),)}, "says to what"),
        ({"remedies": (Remedy("lower", "lr", 1.0, 1.0),)}, "changes nothing"),
    ],
)
def test_incomplete_finding_is_told(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_rule(High(replace(GOOD, **changes)), sick=SICK, healthy=WELL, near_miss=WELL)


@dataclass(frozen=True)
class Moody(High):
    """Say something else each time."""

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        for answer in super().check(view):
            yield (
                replace(answer, message=f"{np.random.default_rng().random()}.") if answer is GOOD else answer
            )


@dataclass(frozen=True)
class Meddler(High):
    """Change what it reads."""

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        if len(view.scalar("loss")):
            view.scalar("loss").values[-1] += 1
        yield from super().check(view)


@dataclass(frozen=True)
class Careless(High):
    """Read what may not be there."""

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        if view.scalar("loss").values[0] > 5:
            yield self.finding


@dataclass(frozen=True)
class Mute(High):
    """Say nothing where nothing can be said."""

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        return (answer for answer in super().check(view) if isinstance(answer, Finding))


def test_rule_that_is_not_a_function_of_the_run_is_told() -> None:
    with pytest.raises(AssertionError, match="does not say the same twice"):
        check_rule(Moody(), sick=SICK, healthy=WELL, near_miss=WELL)


def test_rule_that_changes_the_view_is_told() -> None:
    meddled = losses_only(falling() + 10)
    with pytest.raises(AssertionError, match="changed the view"):
        check_rule(Meddler(), sick=meddled, healthy=[], near_miss=[])


def test_rule_that_raises_on_a_cut_off_run_is_told() -> None:
    with pytest.raises(IndexError):
        check_rule(Careless(), sick=SICK, healthy=WELL, near_miss=WELL)


def test_rule_that_does_not_abstain_is_told() -> None:
    with pytest.raises(AssertionError, match="does not say that it cannot judge"):
        check_rule(Mute(), sick=SICK, healthy=WELL, near_miss=WELL)


def test_shortened_run_ends_where_it_is_cut() -> None:
    short = shortened(run_of(), 30)
    assert (short.num_steps, len(short.buckets), len(short.scalar("lr"))) == (30, 30, 30)


def test_shortened_run_forgets_what_came_later() -> None:
    losses = falling()
    losses[50:] = np.nan
    view = losses_only(losses)
    assert shortened(view, 50).scalar("loss").first_non_finite is None
    assert shortened(view, 51).scalar("loss").first_non_finite == 50
