"""The rule `label-never-seen`: the first or the last class of an output never occurs among the labels.

No idea of the data; it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.facts import steps_of, unless_looked
from actograph.rules.labels import NOT_SEEN, LabelCounts, label_counts
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView

BINARY = (0, 1)  # one class of two without labels is a task without negatives, not a shift


@dataclass(frozen=True)
class LabelNeverSeen(Rule):
    """One class at the end of the output is never the label, while all others are often.

    Labels are shifted by one (they count from 1, the output from 0), or the output has one class too many.
    """

    id: ClassVar[str] = "label-never-seen"
    leads_to: ClassVar[tuple[str, ...]] = ("overfitting",)
    measured: ClassVar[str] = (
        "Labels of recorded batches, counted for each class: the first class or the last one with none at all, every other"
        " one with at least `samples`."
    )
    silent_on: ClassVar[str] = (
        "Several classes without labels (an output made for other data); a class in the middle; the class that the loss"
        " leaves out (`ignore_index`); rare classes; labels that come sorted (it may not have been its turn)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Compare the labels' smallest and largest value with the number of outputs; number classes from 0.",
    )

    samples: float = threshold(
        15.0,
        "labels",
        "our choice: of a class as frequent as the rarest other one 15 are expected, none by chance e^-15",
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find a class without labels at one end."""
        found = list(label_counts(view))
        if not found:
            yield from unless_looked(self, view, FactKind.LABELS, NOT_SEEN)
            return
        for labels in found:
            missing = self._missing(labels)
            if missing is None:
                continue
            if labels.looks_sorted:
                yield self.abstain("labels come sorted: the class without any may not have had its turn")
                continue
            first_step, last_step = steps_of(view, labels.fact, 0)
            num = len(labels.counts)
            yield Finding(
                rule=self.id,
                severity=Severity.WARNING,
                layer=None,
                first_step=first_step,
                last_step=last_step,
                evidence={
                    "class": float(missing),
                    "classes": float(num),
                    "labels_seen": float(labels.counts.sum()),
                },
                message=(
                    f"Class {missing} of the {num} classes of the output was never the label among"
                    f" {labels.counts.sum():,.0f}, while each other one was at least {self._rarest(labels):.0f} times:"
                    " labels are shifted by one, or the output has one class too many."
                ),
                remedies=(
                    Remedy("number the classes from 0", "labels"),
                    Remedy(
                        "give the model as many outputs as there are classes", "model output", num, num - 1
                    ),
                ),
                reference=self.reference,
            )

    def _missing(self, labels: LabelCounts) -> int | None:
        without = np.flatnonzero(labels.counts == 0).tolist()
        at_an_end = len(without) == 1 and without[0] in (0, len(labels.counts) - 1)
        is_binary = labels.counts.size == len(BINARY)
        if is_binary or not at_an_end or without[0] == labels.ignored:
            return None
        return int(without[0]) if self._rarest(labels) >= self.samples else None

    def _rarest(self, labels: LabelCounts) -> float:
        return float(labels.counts[labels.counts > 0].min())
