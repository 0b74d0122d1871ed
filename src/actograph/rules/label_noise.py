"""The rule `label-noise`: a good part of the labels is any class.

No idea of which samples. It looks at how labels and predictions disagree.
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

NOT_SEEN = "no classification of 3 to 32 classes by one loss was seen"
FEWEST_CLASSES = 3
SWEEPS = 20  # of the fit of expected counts; it has converged after a few

MUCH_DROPOUT = 0.4  # of the values: predictions in training are then noise of their own


@dataclass(frozen=True)
class LabelNoise(Rule):
    """Many labels are wrong: classes that have nothing to do with the input.

    A network learns the right ones first, then the wrong ones by heart, and gets worse on other samples.
    """

    id: ClassVar[str] = "label-noise"
    leads_to: ClassVar[tuple[str, ...]] = ("overfitting",)
    measured: ClassVar[str] = (
        "Labels and predictions of training batches, counted for each pair of classes, from when most of what can be"
        " learned was learned. Where they disagree, a network's own mistakes are about some pairs of classes that look"
        " alike, and the label is its second choice; wrong labels are spread over all pairs, and all but impossible. Both"
        " must be so, up to the end: chi squared of the disagreements beyond its degrees of freedom, a disagreement, and the"
        " share of them whose label is less likely than by chance."
    )
    silent_on: ClassVar[str] = (
        "Classes that look alike; dropout and augmentation (their mistakes have structure); mixed samples and soft labels;"
        " networks that have learned nothing; one label in ten wrong (too few to tell from hard samples)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Look at the samples with the largest loss in the middle of the training; mend or drop them.",
        "Stop early, when the validation loss is lowest, and use label smoothing.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Arpit et al. 2017, A closer look at memorization in deep networks",
        "Northcutt, Jiang, Chuang 2021, Confident learning",
    )

    share: float = threshold(
        0.15, "share of the samples", "our choice: data sets of the literature have 3-10 % of errors"
    )
    structure: float = threshold(
        0.15,
        "excess of chi squared a disagreement",
        "40 % noise had 0.02-0.1, own mistakes of networks 0.4-1.2",
    )
    unlikely: float = threshold(
        0.55, "share of the disagreements", "noise had 0.65-0.8, own mistakes 0.2-0.4"
    )
    learned: float = threshold(0.3, "accuracy above chance", "our choice: with less, mistakes say nothing")
    disagreements: float = threshold(60.0, "samples", "our choice: fewer do not tell how they are spread")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find labels that disagree with predictions in all ways alike."""
        outcomes = only_classification(view)
        if outcomes is None or outcomes.num_classes < FEWEST_CLASSES or not len(outcomes.confusions):
            if view.facts.looked(FactKind.LOSS_CALLS) is not None:
                yield self.abstain(NOT_SEEN)
            yield from unless_looked(self, view, FactKind.LOSS_CALLS, NOT_SEEN)
            return
        if outcomes.fact.text("task") != "classes" or not view.facts.of(FactKind.BACKWARD_FROM):
            yield self.abstain("targets are not class numbers, or more than one loss goes into a backward")
            return
        dropped = max((fact.number("share") for fact in view.facts.of(FactKind.DROPOUT)), default=0.0)
        if dropped >= MUCH_DROPOUT:
            yield self.abstain(
                "dropout is so strong that the network's own mistakes are spread over all classes"
            )
            return
        if not len(outcomes.block_steps) or outcomes.block_steps[-1, 1] < SEEN_UNTIL * (view.num_steps - 1):
            yield self.abstain("too few outcomes were seen in the later part of the run")
            return
        confusion, first_step = self._learned(outcomes)
        wrong = confusion.sum() - np.trace(confusion)
        if wrong < self.disagreements:
            return
        share = float(wrong / confusion.sum())
        structure = _structure(confusion)
        unlikely = _unlikely_share(outcomes, first_step)
        if (
            share < self.share
            or structure > self.structure
            or unlikely is None
            or unlikely < self.unlikely * share
        ):
            return
        num = outcomes.num_classes
        estimate = min(share * num / (num - 1), 1.0)
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=0,
            last_step=view.final_step,
            evidence={
                "disagreements": share,
                "labels_that_seem_random": estimate,
                "structure_of_disagreements": structure,
                "labels_less_likely_than_by_chance": unlikely,
            },
            message=(
                f"In training {percent(share)} of the labels disagree with the prediction, in all ways alike and not as"
                f" classes that look alike do: about {percent(estimate)} of the labels seem to be any class."
            ),
            remedies=(
                Remedy(
                    "look at the training samples with the largest loss, and mend or drop their labels",
                    "labels",
                ),
                Remedy(
                    "stop when the validation loss is lowest, before wrong labels are learned",
                    "num_steps",
                ),
            ),
            reference=self.reference,
        )

    def _learned(self, outcomes: Outcomes) -> tuple[Floats, int]:
        """Return the counts (C, C) over the blocks of time in which most was learned, and where these begin."""
        blocks = outcomes.confusions
        totals = np.maximum(blocks.sum(axis=(1, 2)), 1.0)
        accuracy = np.trace(blocks, axis1=1, axis2=2) / totals
        reference = max(
            float(np.max(accuracy[: max(len(accuracy) * 2 // 3, 1)])), self.learned + outcomes.chance_accuracy
        )
        good = accuracy >= MOST * reference
        good &= accuracy >= self.learned + outcomes.chance_accuracy
        if not good.any() or not good[-1] or 1.0 - accuracy[-1] < LASTING * self.share:
            return np.zeros(blocks.shape[1:]), 0
        first = int(np.flatnonzero(good)[0])
        return blocks[good].sum(axis=0), int(outcomes.block_steps[first, 0])


SEEN_UNTIL = 0.6  # of the run: a network that is on its way has mistakes of all kinds
LASTING = 0.8  # of the share of disagreements that must be left at the end
MOST = 0.85  # of the accuracy of the first two thirds of the run, before much is learned by heart


def _unlikely_share(outcomes: Outcomes, first_step: int) -> float | None:
    """Return the share of samples whose label is less likely than by chance, from a step on."""
    series = outcomes.series("unlikely")
    values = series.values[series.steps >= first_step]
    return float(np.mean(values)) if len(values) else None


def _structure(confusion: Floats) -> float:
    """Return how far disagreements are from labels that are independent of predictions: (chi squared - freedom) / number.

    Quasi-independence: expected counts with the same row and column sums, the diagonal left out (Goodman 1968).
    """
    counts = confusion.copy()
    np.fill_diagonal(counts, 0.0)
    mask = ~np.eye(len(counts), dtype=bool)
    expected = mask.astype(np.float64)
    for _ in range(SWEEPS):
        rows = expected.sum(axis=1, keepdims=True)
        expected *= np.divide(
            counts.sum(axis=1, keepdims=True), rows, out=np.zeros_like(rows), where=rows > 0
        )
        columns = expected.sum(axis=0, keepdims=True)
        expected *= np.divide(
            counts.sum(axis=0, keepdims=True), columns, out=np.zeros_like(columns), where=columns > 0
        )
    used = mask & (expected > 0)
    freedom = used.sum() - (counts.sum(axis=1) > 0).sum() - (counts.sum(axis=0) > 0).sum() + 1
    if freedom <= 0:
        return float("inf")
    chi_squared = float(((counts - expected)[used] ** 2 / expected[used]).sum())
    return (chi_squared - float(freedom)) / float(counts.sum())
