"""What a rule is and what it says: `Rule`, `Finding`, `Remedy`, `Abstention`, `Diagnosis`.

No idea of any particular fault, of files or of drawing. A rule is a pure function of a `RunView` with named thresholds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from actograph.runlog.view import RunView

SCHEMA_VERSION = 1
PAGE = "docs/rules.md"  # generated from the rules, one section an id


class Severity(StrEnum):
    """How bad a finding is; compares by rank, note < warning < error."""

    NOTE = "note"  # worth knowing; no harm seen
    WARNING = "warning"  # harms the training, or very likely does
    ERROR = "error"  # the training cannot succeed like this

    @property
    def rank(self) -> int:
        """Position from harmless (0) up."""
        return list(type(self)).index(self)

    def __lt__(self, other: str) -> bool:
        return self.rank < Severity(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Severity(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Severity(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Severity(other).rank


@dataclass(frozen=True)
class Remedy:
    """One thing to do: an action in words, on a setting, a layer or the data, from the old value to the new if known."""

    action: str
    target: str
    old: str | float | None = None
    new: str | float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "action": self.action,
            "target": self.target,
            "old": _plain(self.old),
            "new": _plain(self.new),
        }


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, since when, how that is known, and what to do, best remedy first.

    ``layer`` is None where no layer is to blame. ``first_step`` is the step at which it began, ``last_step`` the last
    at which it held. ``consequences`` are findings that this one explains.
    """

    rule: str
    severity: Severity
    layer: str | None
    first_step: int
    last_step: int
    evidence: Mapping[str, float | str]
    message: str
    remedies: tuple[Remedy, ...]
    consequences: tuple[Finding, ...] = ()
    reference: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; a number that JSON does not have (NaN, infinity) becomes a string."""
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "layer": self.layer,
            "first_step": self.first_step,
            "last_step": self.last_step,
            "message": self.message,
            "evidence": {name: _plain(value) for name, value in self.evidence.items()},
            "remedies": [remedy.to_json() for remedy in self.remedies],
            "consequences": [consequence.to_json() for consequence in self.consequences],
            "reference": self.reference,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """Undo `to_json`, but for numbers that JSON does not have: they stay strings."""
        return cls(
            rule=data["rule"],
            severity=Severity(data["severity"]),
            layer=data["layer"],
            first_step=data["first_step"],
            last_step=data["last_step"],
            evidence=dict(data["evidence"]),
            message=data["message"],
            remedies=tuple(Remedy(**remedy) for remedy in data["remedies"]),
            consequences=tuple(cls.from_json(consequence) for consequence in data["consequences"]),
            reference=data["reference"],
        )


@dataclass(frozen=True)
class Abstention:
    """A rule that could not judge, and why."""

    rule: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"rule": self.rule, "reason": self.reason}


@dataclass(frozen=True)
class Diagnosis:
    """All findings, worst first, then earliest; and what could not be judged."""

    findings: tuple[Finding, ...] = ()
    abstained: tuple[Abstention, ...] = ()

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of this severity or worse."""
        return tuple(finding for finding in self.findings if finding.severity >= severity)

    def to_json(self, run: str) -> dict[str, Any]:
        """Return plain JSON data for the run of that name."""
        return {
            "schema": SCHEMA_VERSION,
            "run": run,
            "findings": [finding.to_json() for finding in self.findings],
            "abstained": [abstention.to_json() for abstention in self.abstained],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Diagnosis:
        """Undo `to_json`."""
        return cls(
            findings=tuple(Finding.from_json(finding) for finding in data["findings"]),
            abstained=tuple(Abstention(**abstention) for abstention in data["abstained"]),
        )


@dataclass(frozen=True)
class Rule(ABC):
    """One cause or symptom: what to look for in a run.

    Subclasses are frozen dataclasses whose fields are the thresholds, each made with `threshold`. The class docstring says
    in plain words what the fault is; ``docs/rules.md`` is generated from it and from the class variables.
    """

    id: ClassVar[str]
    is_cause: ClassVar[bool] = True  # False: a symptom, reported only where no cause explains it
    leads_to: ClassVar[tuple[str, ...]] = ()  # ids of other causes that this one brings about soon after
    measured: ClassVar[str] = ""  # how it is measured
    silent_on: ClassVar[str] = ""  # what looks alike and is healthy
    advice: ClassVar[tuple[str, ...]] = ()  # remedies, ranked
    sources: ClassVar[tuple[str, ...]] = ()  # papers and tools

    @abstractmethod
    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Judge a run, live or over. Pure: reads the view, changes nothing, prints nothing, raises nothing."""

    def abstain(self, reason: str) -> Abstention:
        """Say why this rule cannot judge."""
        return Abstention(self.id, reason)

    @property
    def reference(self) -> str:
        """Where the rule is explained."""
        return f"{PAGE}#{self.id}"


def threshold(default: float, unit: str, source: str) -> Any:
    """Return a dataclass field that carries the unit and the source of its number."""
    return field(default=default, metadata={"unit": unit, "source": source})


def _plain(value: str | float | None) -> str | float | None:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
