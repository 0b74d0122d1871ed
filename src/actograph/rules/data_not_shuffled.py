"""The rule `data-not-shuffled`: batches hold samples of one class after the other.

No idea of data loaders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import percent
from actograph.rules.facts import steps_of, unless_looked
from actograph.rules.labels import NOT_SEEN, label_counts
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class DataNotShuffled(Rule):
    """The training data come sorted by their label, so each batch holds one class or two.

    The network learns one class after the other and forgets the one before; batch norms see one class at a time.
    """

    id: ClassVar[str] = "data-not-shuffled"
    leads_to: ClassVar[tuple[str, ...]] = (
        "labels-misaligned",
        "overfitting",
        "class-collapse",
        "learning-rate-too-high",  # each new class throws the loss up
        "momentum-too-high",
        "dead-units",
        "saturated-activations",
    )
    measured: ClassVar[str] = (
        "Labels of recorded batches: the share of pairs of samples in a batch with the same label, beside that share over"
        " all batches together; and whether labels ascend in a batch. Sorted: 80 % of the pairs alike where at most half"
        " are overall (of two classes, which share more: where that is a fifth more than overall, and 95 % of the batches"
        " ascend); or 95 % of the batches ascend with twice as many pairs alike as overall."
    )
    silent_on: ClassVar[str] = (
        "Batches that are balanced on purpose, or of a few classes with several samples each (metric learning); labels"
        " that number the samples of a batch (contrastive losses); one class that dominates; tasks of several classes one"
        " after the other; texts, whose labels are a vocabulary."
    )
    advice: ClassVar[tuple[str, ...]] = ("Shuffle the training data: DataLoader(..., shuffle=True).",)
    sources: ClassVar[tuple[str, ...]] = (
        "Bengio 2012, Practical recommendations for gradient-based training of deep architectures, section 3",
    )

    batches: float = threshold(
        8.0, "recorded batches", "our choice: fewer may be a class that happens to come first"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find labels that come in order."""
        found = list(label_counts(view))
        if not found:
            yield from unless_looked(self, view, FactKind.LABELS, NOT_SEEN)
            return
        for labels in found:
            if labels.num_batches < self.batches:
                yield self.abstain(
                    f"labels of {labels.num_batches} batches were seen, too few to tell their order"
                )
            elif labels.looks_sorted:
                first_step, last_step = steps_of(view, labels.fact, 0)
                yield Finding(
                    rule=self.id,
                    severity=Severity.WARNING,
                    layer=None,
                    first_step=first_step,
                    last_step=last_step,
                    evidence={
                        "pairs_alike_in_a_batch": labels.alike_share,
                        "pairs_alike_overall": labels.alike_overall,
                        "batches_in_order": labels.sorted_share,
                        "batches": float(labels.num_batches),
                    },
                    message=(
                        f"The training data come sorted by label: in a batch {percent(labels.alike_share)} of the pairs of"
                        f" samples have the same label, among all samples {percent(labels.alike_overall)}."
                    ),
                    remedies=(
                        Remedy("shuffle the training data", "data loader", "shuffle=False", "shuffle=True"),
                    ),
                    reference=self.reference,
                )
