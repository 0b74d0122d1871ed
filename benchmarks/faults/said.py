"""`Said`: one thing that a diagnoser says of a run; `earliest`: all of them in order, each once.

No idea of any diagnoser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from actograph.runlog.view import RunView


@dataclass(frozen=True)
class Said:
    """One thing that a diagnoser says: warnings and errors only.

    ``rule`` is what the diagnoser itself calls it: of ours a rule id. Other tools name symptoms: ``causes`` are then all the
    rule ids that may be meant, and the answer is right where any of them is.
    """

    rule: str
    layer: str | None = None
    first_step: int | None = None
    others: tuple[str, ...] = ()  # further layers it names
    remedies: tuple[tuple[str, str, float | str | None], ...] = ()  # action, target, new value
    causes: tuple[str, ...] = ()

    def means_any(self, rules: Container[str]) -> bool:
        """Tell whether one of these rule ids is what is said, or may be meant by it."""
        return self.rule in rules or any(cause in rules for cause in self.causes)


Diagnoser = Callable[[RunView], list[Said]]


def earliest(found: Iterable[Said]) -> list[Said]:
    """Return each rule once, where and when it is first said, with all its layers; by step, then as they come."""
    by_rule: dict[str, list[Said]] = {}
    for one in found:
        by_rule.setdefault(one.rule, []).append(one)
    return sorted((_joined(said) for said in by_rule.values()), key=_step)


def _joined(said: list[Said]) -> Said:
    first, *rest = sorted(said, key=_step)
    others = dict.fromkeys(one.layer for one in rest if one.layer is not None and one.layer != first.layer)
    return Said(first.rule, first.layer, first.first_step, tuple(others), first.remedies, first.causes)


def _step(said: Said) -> float:
    return math.inf if said.first_step is None else said.first_step
