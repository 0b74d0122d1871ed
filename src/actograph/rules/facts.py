"""What rules on facts share: which layer of the run a module or parameter is, and the steps of a finding.

No idea of any particular rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actograph.rules.rule import Abstention, Rule
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView

NO_FLOW = "no graph of a training forward was seen"
NO_FACTS = "no facts were recorded; a run of an older version has none"


def layer_of(view: RunView, name: str) -> str | None:
    """Return the recorded layer that a module's name, or its parameter's, stands for; None where it was not recorded.

    Of a module with several outputs that is the first one.
    """
    names = {info.name for info in view.layers}
    module = name.rpartition(".")[0] or "model"
    return next((one for one in (name, module, f"{name}:0", f"{module}:0") if one in names), None)


def steps_of(view: RunView, fact: Fact, first_step: int | None = None) -> tuple[int, int]:
    """Return first and last step of a fact (``first_step`` in place of its own), within the run."""
    end = view.final_step
    last = min(fact.last_step, end)
    return min(fact.first_step if first_step is None else first_step, last), last


def unless_looked(rule: Rule, view: RunView, kind: FactKind, why: str) -> Iterator[Abstention]:
    """Yield an abstention where a kind of fact was never looked for; ``why`` says when that is so."""
    if view.facts.looked(kind) is None:
        yield rule.abstain(why if view.facts.facts else NO_FACTS)


def in_order(view: RunView, facts: Sequence[Fact]) -> list[Fact]:
    """Return facts in the order of their steps, then of the layers."""
    positions = {info.name: position for position, info in enumerate(view.layers)}
    last = len(positions)
    return sorted(
        facts, key=lambda fact: (fact.first_step, positions.get(layer_of(view, fact.subject) or "", last))
    )
