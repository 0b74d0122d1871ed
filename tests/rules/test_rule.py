from __future__ import annotations

import dataclasses
import json
import math

import pytest

from actograph.rules.advice import highest_learning_rate, lower_learning_rate
from actograph.rules.catalog import DEFAULT_RULES
from actograph.rules.dead_units import DeadUnits
from actograph.rules.rule import Abstention, Diagnosis, Finding, Remedy, Rule, Severity
from tests.rules.runs import falling, losses_only


def test_severities_compare_by_rank_not_by_letter() -> None:
    assert Severity.NOTE < Severity.WARNING < Severity.ERROR
    assert Severity.ERROR >= "warning"
    assert Severity.NOTE <= Severity.NOTE
    assert max(Severity.WARNING, Severity.ERROR, Severity.NOTE) is Severity.ERROR


def test_numbers_that_json_does_not_have_become_strings() -> None:
    remedy = Remedy("lower", "lr", math.inf, 1.0)
    finding = Finding("a", Severity.NOTE, None, 0, 1, {"x": math.nan, "y": -math.inf}, "A.", (remedy,))
    text = json.dumps(Diagnosis((finding,), (Abstention("b", "why"),)).to_json("run"), allow_nan=False)
    again = Diagnosis.from_json(json.loads(text))
    assert again.findings[0].evidence == {"x": "nan", "y": "-inf"}
    assert again.findings[0].remedies[0].old == "inf"
    assert again.abstained == (Abstention("b", "why"),)


def test_consequences_survive_json() -> None:
    below = Finding("b", Severity.ERROR, "fc", 1, 2, {"x": 1.0}, "B.", (Remedy("c", "d"),))
    finding = dataclasses.replace(below, rule="a", consequences=(below,))
    assert Finding.from_json(finding.to_json()) == finding


@pytest.mark.parametrize("rule", DEFAULT_RULES, ids=lambda rule: rule.id)
def test_every_threshold_has_a_unit_and_a_source(rule: Rule) -> None:
    for field in dataclasses.fields(rule):
        assert field.metadata["unit"], field.name
        assert field.metadata["source"], field.name


def test_thresholds_are_fields_that_can_be_set() -> None:
    assert DeadUnits(share=0.3).share == 0.3
    assert DeadUnits() == DeadUnits()


def test_ids_are_unique() -> None:
    assert len({rule.id for rule in DEFAULT_RULES}) == len(DEFAULT_RULES)


def test_learning_rate_is_lowered_from_the_peak_so_far() -> None:
    lr = [0.01] * 5 + [0.04] * 5 + [0.5] * 10
    view = losses_only(falling(0, 20), lr=lr)  # type: ignore[arg-type]
    assert highest_learning_rate(view, 9) == 0.04
    assert highest_learning_rate(view) == 0.5
    assert lower_learning_rate(view, 9).new == pytest.approx(0.004)


def test_learning_rate_that_jumped_goes_back() -> None:
    view = losses_only(falling(0, 20), lr=[0.01] * 15 + [0.5] * 5)  # type: ignore[arg-type]
    assert lower_learning_rate(view, 16).new == 0.01


def test_unknown_learning_rate_is_lowered_in_words() -> None:
    remedy = lower_learning_rate(losses_only(falling()), 5)
    assert (remedy.action, remedy.old, remedy.new) == ("divide the learning rate by 10", None, None)
