"""`LabelCounts`: what is known of the labels that a cross-entropy was given.

No idea of what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from actograph.layout.row import Floats
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView

NOT_SEEN = "no labels were seen: they are where torch's cross-entropy gets one class number a sample, of up to 256 classes"


@dataclass(frozen=True)
class LabelCounts:
    """Labels of one cross-entropy over all recorded steps: ``counts`` (C,) of each class."""

    fact: Fact
    counts: Floats
    ignored: int  # the class that the loss leaves out
    num_batches: int  # of more than one label
    sorted_share: float  # of these, whose labels ascend
    alike_share: float  # mean over these of the share of pairs of samples with the same label

    @property
    def shares(self) -> Floats:
        """How often each class is the label, of all (C,)."""
        shares: Floats = self.counts / max(self.counts.sum(), 1.0)
        return shares

    @property
    def alike_overall(self) -> float:
        """The share of pairs with the same label if samples were drawn from all of them at random."""
        return float((self.shares**2).sum())

    @property
    def looks_sorted(self) -> bool:
        """Whether batches are made of samples of a class rather than of samples drawn at random."""
        is_one_class = self.alike_share >= ONE_CLASS and self.alike_overall <= HALF
        is_in_order = self.sorted_share >= IN_ORDER and self.alike_share >= TWICE * self.alike_overall
        return is_one_class or is_in_order or self._is_one_of_two

    @property
    def _is_one_of_two(self) -> bool:
        """Whether batches ascend and are of one class each where two classes of like size make up the data."""
        is_even = self.alike_overall <= TWO_CLASSES
        return (
            is_even
            and self.sorted_share >= IN_ORDER
            and self.alike_share >= max(ONE_CLASS, self.alike_overall + ABOVE)
        )


ONE_CLASS = (
    0.8  # of pairs in a batch with the same label: batches of one class, and some at the border of two
)
HALF = (
    0.5  # of pairs overall: two classes of equal size; with more of one class a batch of one class is chance
)
IN_ORDER = 0.95  # of batches whose labels ascend; of four labels in random order one batch in eight does
TWO_CLASSES = 0.75  # of pairs overall: one of two classes has up to 85 % of the samples
ABOVE = 0.2  # of pairs in a batch over pairs overall; on average they are the same where samples are drawn at random
TWICE = 2.0  # the share of pairs overall


def entropy(shares: Floats) -> float:
    """Return the entropy of shares (C,) in nats: the cross-entropy of who knows these and nothing else.

    >>> round(entropy(np.array([0.5, 0.5, 0.0])), 4)
    0.6931
    """
    there = shares[shares > 0]
    return float(-(there * np.log(there)).sum())


def label_counts(view: RunView) -> Iterator[LabelCounts]:
    """Yield what is known of labels, one for each number of classes."""
    for fact in view.facts.of(FactKind.LABELS):
        counts = fact.data.get("counts", [])
        num = int(fact.number("batches"))
        yield LabelCounts(
            fact,
            np.array(counts if isinstance(counts, list) else [], np.float64),
            int(fact.number("ignored")),
            num,
            fact.number("sorted") / max(num, 1),
            fact.number("alike"),
        )
