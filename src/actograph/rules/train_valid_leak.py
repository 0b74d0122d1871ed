"""The rule `train-valid-leak`: samples that are evaluated were trained on.

No idea of files; samples are told by fingerprints of their values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import percent
from actograph.rules.facts import unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView

CLEAN = 0.02  # share of trained samples of an evaluation that tells how well unseen samples do


@dataclass(frozen=True)
class TrainValidLeak(Rule):
    """A part of the samples on which the model is evaluated are among those it is trained on.

    The evaluation then tells how well the model remembers, not how well it will do.
    """

    id: ClassVar[str] = "train-valid-leak"
    measured: ClassVar[str] = (
        "Fingerprints of the values of some samples of recorded training batches and of evaluations (a forward and a loss"
        " both without gradients), at most 4,096 of either, always the same ones. The share that was trained on is corrected"
        " for training samples that were not seen because steps are thinned."
    )
    silent_on: ClassVar[str] = (
        "An evaluation of all the training data (a note: nothing else tells how it does on others); one of a part of them"
        " beside another one of unseen samples; data in which equal samples are common; samples that are changed at random"
        " each time, or are whole numbers (texts), which cannot be compared."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Split before augmenting or repeating samples, by groups that belong together; remove duplicates.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Kapoor and Narayanan 2023, Leakage and the reproducibility crisis",
    )

    share: float = threshold(
        0.1, "share of the evaluated samples", "our choice: image sets have 1-3 % of near duplicates"
    )
    fewest: float = threshold(8.0, "samples in both", "our choice: a handful may be blank")
    natural: float = threshold(
        0.05, "equal training samples that each sample has", "our choice: then equality says little"
    )
    whole: float = threshold(
        0.8, "share of the training samples", "our choice: then it is the training data that are evaluated"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find evaluated samples among the trained ones."""
        facts = view.facts.of(FactKind.SAMPLES)
        if not facts:
            yield from unless_looked(self, view, FactKind.EVALUATION, "no evaluation with a loss was seen")
            return
        if all(fact.number("equal_pairs") * fact.number("trained") > self.natural for fact in facts):
            yield self.abstain("equal samples are common in the training data themselves")
            return
        is_clean = any(_share(fact) <= CLEAN and fact.number("compared") >= self.fewest for fact in facts)
        for fact in facts[:1] if not is_clean else ():
            common = fact.number("share") * fact.number("compared")
            if _share(fact) >= self.share and common >= self.fewest:
                yield self._finding(view, fact)

    def _finding(self, view: RunView, fact: Fact) -> Finding:
        share, back = _share(fact), fact.number("share_of_trained")
        is_whole = back >= self.whole
        last_step = max(min(fact.last_step, view.num_steps - 1), 0)
        message = (
            "What is evaluated are the training samples themselves: nothing tells how the model does on others."
            if is_whole
            else f"About {percent(share)} of the samples that are evaluated are trained on as well: the result is too good."
        )
        return Finding(
            rule=self.id,
            severity=Severity.NOTE if is_whole else Severity.WARNING,
            layer=None,
            first_step=0,
            last_step=last_step,
            evidence={
                "share_of_evaluated_samples": share,
                "samples_compared": fact.number("compared"),
                "equal_samples": fact.number("share") * fact.number("compared"),
                "share_of_training_samples": back,
            },
            message=message,
            remedies=(
                Remedy(
                    "evaluate on samples that are not trained on: remove duplicates, split anew", "valid data"
                ),
            ),
            reference=self.reference,
        )


def _share(fact: Fact) -> float:
    """Return the share of evaluated samples that were trained on, corrected for training samples that were not seen."""
    share, known = fact.number("share"), fact.number("known")
    return min(share / max(known, share), 1.0) if share else 0.0
