from __future__ import annotations

from pathlib import Path

from actograph.rules.catalog import DEFAULT_RULES
from actograph.rules.describe import PICTURES, rules_page, section
from actograph.rules.rule import PAGE

ROOT = Path(__file__).parents[2]


def test_page_is_what_the_rules_say() -> None:
    written = (ROOT / PAGE).read_text()
    assert written == rules_page(), (
        f"{PAGE} is out of date: write rules_page() of actograph.rules.describe to it"
    )


def test_every_reference_leads_to_a_section() -> None:
    headings = [line.removeprefix("## ") for line in rules_page().splitlines() if line.startswith("## ")]
    assert [f"{PAGE}#{heading}" for heading in headings] == [rule.reference for rule in DEFAULT_RULES]


def test_section_tells_every_threshold() -> None:
    for rule in DEFAULT_RULES:
        for name in vars(rule):
            assert f"| `{name}` |" in section(rule)


def test_every_rule_has_its_picture_and_no_picture_is_left_over() -> None:
    there = {path.stem for path in (ROOT / PAGE).with_name(PICTURES).iterdir()}
    assert there == {rule.id for rule in DEFAULT_RULES}
