"""Several layers with one fault are one finding: which of them is named, and how the others are told.

No idea of what the fault is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from actograph.layout.row import Floats
from actograph.rules.rule import Remedy, Severity
from actograph.runlog.view import RunView

SAME_ONSET_STEPS = 5  # onsets closer than this, or 2 % of the run, are told apart by nothing but chance:
SAME_ONSET_SHARE = 0.02  # the accuracy that the project's benchmark asks of an onset


@dataclass(frozen=True)
class Sick:
    """One layer with the fault."""

    position: int
    name: str
    severity: Severity
    first_step: int
    share: float  # how much of the layer is affected at the end
    evidence: dict[str, float | str] = field(default_factory=dict)
    words: str = ""
    remedies: tuple[Remedy, ...] = ()


def first_of(layers: Sequence[Sick], num_steps: int) -> Sick:
    """Return the layer to name: the worst severity, then the earliest onset, then the first in forward order."""
    worst = max(layer.severity for layer in layers)
    candidates = [layer for layer in layers if layer.severity == worst]
    earliest = min(layer.first_step for layer in candidates)
    tolerance = max(SAME_ONSET_STEPS, SAME_ONSET_SHARE * num_steps)
    together = [layer for layer in candidates if layer.first_step <= earliest + tolerance]
    return min(together, key=lambda layer: layer.position)


def others(layers: Sequence[Sick], first: Sick) -> dict[str, float | str]:
    """Return evidence that tells the other affected layers."""
    rest = [layer for layer in layers if layer is not first]
    if not rest:
        return {}
    told = ", ".join(f"{layer.name} ({layer.share:.0%} since step {layer.first_step})" for layer in rest)
    return {"num_layers": float(len(layers)), "other_layers": told}


def column_of(view: RunView, statistic: str, position: int) -> Floats:
    """Return one statistic of one layer over time (T,)."""
    return view.column(statistic)[:, position]
