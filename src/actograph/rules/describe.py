"""`rules_page`: the rules in Markdown, from the rules themselves, so that page and code cannot disagree.

No idea where the page is kept; a test compares it with ``docs/rules.md``.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence

from actograph.rules.catalog import DEFAULT_RULES
from actograph.rules.rule import Rule

PICTURES = "rules"  # folder beside the page; made from the fault benchmark by docs/rule_figures.py

HEAD = """# What the diagnosis knows

This page is generated from the rules (`actograph.rules.describe`); a test keeps it equal to them. Each rule is a frozen
dataclass whose thresholds are fields, so `DeadUnits(share=0.3)` is a stricter one: `diagnose(view, rules=(...))`.

**Causes** are reported wherever they are found. **Symptoms** are reported only where no cause explains them; otherwise they
stand under that cause as a consequence. `note` is worth knowing, `warning` harms the training, `error` ends it. A rule that
cannot judge says so (`abstained`). Levels of the loss are medians over blocks of a twentieth of the run."""


def rules_page(rules: Sequence[Rule] = DEFAULT_RULES) -> str:
    """Return one section a rule: what it means, how it is measured, thresholds with their sources, remedies.

    >>> rules_page().splitlines()[0]
    '# What the diagnosis knows'
    """
    return "\n\n".join([HEAD, *(section(rule) for rule in rules)]) + "\n"


def section(rule: Rule) -> str:
    """Return one rule's section."""
    return "\n\n".join(_paragraphs(rule))


def _paragraphs(rule: Rule) -> Iterator[str]:
    yield f"## {rule.id}"
    yield f"*{'Cause' if rule.is_cause else 'Symptom'}.* {_one_line(inspect.getdoc(rule) or '')}"
    yield f"**Measured.** {rule.measured}"
    yield f"**Left alone.** {rule.silent_on}"
    if rule.leads_to:
        known = ", ".join(f"[{other}](#{other})" for other in rule.leads_to)
        yield f"**Leads to.** {known}: reported as consequences where they began no earlier."
    yield "\n".join(
        ["| threshold | default | unit | why this number |", "|---|---|---|---|", *_thresholds(rule)]
    )
    yield "\n".join(["**What to do.**", "", *(f"{n}. {advice}" for n, advice in enumerate(rule.advice, 1))])
    yield f"![What a report shows of {rule.id}]({PICTURES}/{rule.id}.png)"
    if rule.sources:
        yield f"**Sources.** {'; '.join(rule.sources)}."


def _thresholds(rule: Rule) -> Iterator[str]:
    for field in dataclasses.fields(rule):
        about = field.metadata
        value = vars(rule)[field.name]
        yield f"| `{field.name}` | {value:g} | {about.get('unit', '')} | {about.get('source', '')} |"


def _one_line(text: str) -> str:
    return " ".join(text.split())
