from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.diagnose import diagnose
from actograph.rules.facts import NO_FACTS
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity
from actograph.rules.updates import NO_UPDATES
from actograph.runlog.view import RunView
from tests.rules.runs import STEPS, Array, dies_at, falling, flat, losses_only, run_of

VIEW = losses_only(falling(0, 200))


@dataclass(frozen=True)
class Says(Rule):
    """Say what it was told to."""

    step: int = 0
    severity: Severity = Severity.WARNING

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        del view
        remedy = Remedy("do", "this")
        yield Finding(self.id, self.severity, None, self.step, 199, {"a": 1.0}, "Something.", (remedy,))


@dataclass(frozen=True)
class Blast(Says):
    id: ClassVar[str] = "blast"
    leads_to: ClassVar[tuple[str, ...]] = ("death", "blast")


@dataclass(frozen=True)
class Death(Says):
    id: ClassVar[str] = "death"
    leads_to: ClassVar[tuple[str, ...]] = ("rot",)


@dataclass(frozen=True)
class Rot(Says):
    id: ClassVar[str] = "rot"
    leads_to: ClassVar[tuple[str, ...]] = ("death",)


@dataclass(frozen=True)
class Fever(Says):
    id: ClassVar[str] = "fever"
    is_cause: ClassVar[bool] = False


def tree(*rules: Rule) -> list[tuple[str, list[str]]]:
    diagnosis = diagnose(VIEW, rules)
    return [(top.rule, [below.rule for below in top.consequences]) for top in diagnosis.findings]


def test_symptom_alone_is_reported() -> None:
    assert tree(Fever()) == [("fever", [])]


def test_symptom_goes_under_the_cause_that_began_no_later() -> None:
    assert tree(Fever(50), Death(40)) == [("death", ["fever"])]
    assert tree(Fever(50), Death(50)) == [("death", ["fever"])]


def test_symptom_goes_under_a_cause_seen_a_little_later_but_not_much_later() -> None:
    assert tree(Fever(50), Death(60)) == [("death", ["fever"])]
    assert tree(Fever(50), Death(61)) == [("death", []), ("fever", [])]


def test_note_explains_nothing() -> None:
    assert tree(Fever(50), Death(40, Severity.NOTE)) == [("fever", []), ("death", [])]


def test_cause_goes_under_the_cause_that_leads_to_it() -> None:
    assert tree(Death(40), Blast(30), Fever(45)) == [("blast", ["death", "fever"])]


def test_cause_that_began_before_stands_for_itself() -> None:
    assert tree(Death(10), Blast(30)) == [("death", []), ("blast", [])]


def test_causes_that_do_not_lead_to_each_other_both_stand() -> None:
    assert tree(Rot(40), Blast(30)) == [("blast", []), ("rot", [])]


def test_chain_of_causes_is_one_finding() -> None:
    assert tree(Rot(40), Death(35), Blast(30)) == [("blast", ["death", "rot"])]


def test_causes_that_lead_to_each_other_hang_under_the_one_that_began_first() -> None:
    assert tree(Rot(10), Death(10)) == [("rot", ["death"])]
    assert tree(Rot(15), Death(10)) == [("death", ["rot"])]
    assert tree(Rot(10), Death(15)) == [("rot", ["death"])]


def test_symptom_goes_under_the_first_of_two_causes() -> None:
    assert tree(Fever(50), Rot(45), Blast(30)) == [("blast", ["fever"]), ("rot", [])]


def test_cause_is_as_bad_as_what_it_led_to() -> None:
    diagnosis = diagnose(VIEW, (Fever(50, Severity.ERROR), Death(40)))
    assert [finding.severity for finding in diagnosis.findings] == [Severity.ERROR]


def test_worst_comes_first_then_causes_then_the_earliest() -> None:
    found = diagnose(VIEW, (Early(), Rot(60), Blast(99, Severity.ERROR), Fever(1, Severity.NOTE)))
    assert [finding.rule for finding in found.findings] == ["blast", "rot", "early", "fever"]


@dataclass(frozen=True)
class Early(Says):
    id: ClassVar[str] = "early"
    step: int = 3
    is_cause: ClassVar[bool] = False


def test_dead_layer_that_flattens_the_loss_is_one_finding() -> None:
    losses = falling(5)
    losses[40:] = flat(5)[40:]
    diagnosis = diagnose(run_of(losses=losses, values=dies_at(40)))
    assert [finding.rule for finding in diagnosis.findings] == ["dead-units"]
    assert [below.rule for below in diagnosis.findings[0].consequences] == ["loss-diverging"]


def test_explosion_that_also_killed_units_is_one_finding() -> None:
    losses = falling(5)
    losses[55:] = np.nan
    losses[50:55] *= 10.0 ** np.arange(1, 6)
    values = dies_at(52)

    def exploding(random: np.random.Generator, step: int) -> Array:
        grown: Array = 10.0 ** np.clip(np.array([step - 49.0]), 0, 6)
        return values(random, step) * grown

    diagnosis = diagnose(run_of(losses=losses, values=exploding))
    assert [finding.rule for finding in diagnosis.findings] == ["non-finite-loss"]
    assert "dead-units" in [below.rule for below in diagnosis.findings[0].consequences]


def test_json_has_the_documented_shape() -> None:
    data = diagnose(run_of(losses=flat(), values=dies_at(0), name="r")).to_json("r")
    assert list(data) == ["schema", "run", "findings", "abstained"]
    assert (data["schema"], data["run"]) == (1, "r")
    keys = "rule severity layer first_step last_step message evidence remedies consequences reference"
    assert list(data["findings"][0]) == keys.split()
    assert list(data["findings"][0]["remedies"][0]) == ["action", "target", "old", "new"]
    assert data["findings"][0]["last_step"] == STEPS - 1


def test_healthy_run_has_no_findings_and_only_its_facts_are_unknown() -> None:
    diagnosis = diagnose(run_of())
    assert diagnosis.findings == ()
    assert {one.reason for one in diagnosis.abstained} == {  # nothing else of it is unknown
        NO_FACTS,
        NO_UPDATES,
        "no input of floating-point numbers was recorded",
        "no cross-entropy or loss of a regression, or more than one, was seen",
        "0 evaluations of a validation loss were seen; at least 5 are needed",
    }
