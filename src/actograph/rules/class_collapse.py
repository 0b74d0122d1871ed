"""The rule `class-collapse`: the rare classes of unbalanced data are hardly ever predicted.

No idea of the data; it counts labels and predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.advice import percent
from actograph.rules.facts import unless_looked
from actograph.rules.outcomes import Outcomes, only_classification
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView

NOT_SEEN = "no classification of up to 32 classes was seen"


@dataclass(frozen=True)
class ClassCollapse(Rule):
    """One class has almost all the training samples, and the model says it for the samples of the others as well.

    The loss is low, as it is about the frequent class; the rare classes are not learned.
    """

    id: ClassVar[str] = "class-collapse"
    leads_to: ClassVar[tuple[str, ...]] = ()
    measured: ClassVar[str] = (
        "Labels and predictions of training batches and of evaluations, counted for each pair of classes. Rare: less than a"
        " tenth of the most frequent class in training. Collapsed: of at least `samples` labels of rare classes in the last"
        " evaluation (without one: in the last half of the training) at most `recall` are found, and of the frequent class"
        " nearly all."
    )
    silent_on: ClassVar[str] = (
        "Unbalanced data whose rare classes are found; balanced data (then something else is the matter); too few samples of"
        " rare classes to tell."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Weight the loss by the inverse of the classes' shares, or sample the rare classes more often.",
        "Judge by recall of each class or balanced accuracy, not by accuracy.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Buda, Maki, Mazurowski 2018, A systematic study of the class imbalance problem in convolutional neural networks",
        "SageMaker Debugger, ClassImbalance",
    )

    imbalance: float = threshold(10.0, "times as many samples", "SageMaker Debugger's ClassImbalance")
    recall: float = threshold(
        0.5, "share of the rare classes' samples", "our choice: 20:1 data that went well had 0.8"
    )
    frequent: float = threshold(
        0.9, "recall of the frequent class", "our choice: else the model is weak all over"
    )
    samples: float = threshold(
        20.0, "labels of rare classes", "our choice: the standard error of a half is 0.11"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find rare classes that are not found."""
        outcomes = only_classification(view)
        if outcomes is None or not len(outcomes.confusions):
            if view.facts.looked(FactKind.LOSS_CALLS) is not None:
                yield self.abstain(NOT_SEEN)
            yield from unless_looked(self, view, FactKind.LOSS_CALLS, NOT_SEEN)
            return
        shares = outcomes.label_shares
        rare = shares * self.imbalance < shares.max()
        if not rare.any() or outcomes.confusions.sum() < self.samples:
            return
        where, confusion = self._confusion(view, outcomes, rare)
        totals = confusion.sum(axis=1)
        most = int(np.argmax(shares))
        if totals[rare].sum() < self.samples or not totals[most]:
            yield self.abstain(f"only {totals[rare].sum():.0f} labels of rare classes were seen {where}")
            return
        found = float(np.diag(confusion)[rare].sum() / totals[rare].sum())
        frequent = float(confusion[most, most] / totals[most])
        if found > self.recall or frequent < self.frequent:
            return
        confused = float(confusion[rare, most].sum() / totals[rare].sum())
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=0,
            last_step=view.final_step,
            evidence={
                "frequent_class": float(most),
                "its_share_of_the_labels": float(shares[most]),
                "recall_of_rare_classes": found,
                "recall_of_the_frequent_class": frequent,
                "taken_for_the_frequent_class": confused,
                "rare_labels": float(totals[rare].sum()),
            },
            message=(
                f"{percent(float(shares[most]))} of the training labels are class {most}. {where[0].upper()}{where[1:]}"
                f" the model finds {percent(frequent)} of that class, and {percent(found)} of the samples of rare ones."
            ),
            remedies=(
                Remedy(
                    "weight the loss by the inverse share of each class",
                    "loss function",
                    "weight=None",
                    "weight=1 / share",
                ),
                Remedy("sample the rare classes more often", "data loader"),
            ),
            reference=self.reference,
        )

    def _confusion(self, view: RunView, outcomes: Outcomes, rare: Floats) -> tuple[str, Floats]:
        """Return where the counts are from, and the counts (C, C)."""
        num = outcomes.num_classes
        for fact in view.facts.of(FactKind.EVALUATION):
            counts = fact.data.get("confusion", [])
            if isinstance(counts, list) and len(counts) == num * num and fact.subject == "valid":
                confusion = np.array(counts, np.float64).reshape(num, num)
                if confusion[rare].sum() >= self.samples:
                    return "in the last evaluation", confusion
        blocks = outcomes.confusions
        return "in the last half of the training", blocks[len(blocks) // 2 :].sum(axis=0)
