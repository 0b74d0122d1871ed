"""The rule `batchnorm-batch-too-small`: batch norms that train on statistics of a handful of samples.

No idea of what a batch of that size does to networks without batch norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.layer import LayerInfo
from actograph.layout.row import Floats
from actograph.rules.advice import names, number
from actograph.rules.facts import layer_of
from actograph.rules.losses import MIN_BLOCK, loss_curve
from actograph.rules.progress import base_level
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow
from actograph.runlog.view import RunView

BATCH_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")
ENOUGH = 32.0  # samples: Wu and He 2018 and Ioffe 2017 train with 32 a device


@dataclass(frozen=True)
class BatchNormBatchTooSmall(Rule):
    """Batch norms normalise each batch by its own mean and variance, and a batch of a few samples has no useful ones.

    What one sample becomes depends on the one or two beside it; in evaluation, with running statistics, the network
    computes something else.
    """

    id: ClassVar[str] = "batchnorm-batch-too-small"
    leads_to: ClassVar[tuple[str, ...]] = (
        "labels-misaligned",
        "batch-too-small",
        "overfitting",
        "train-mode-in-evaluation",
    )
    measured: ClassVar[str] = (
        "The number of samples in the batches that batch norms in training get; and harm: a validation loss far above the"
        " training loss from early on, or a loss that did not come down well."
    )
    silent_on: ClassVar[str] = (
        "Norms in evaluation mode, LayerNorm, GroupNorm, SyncBatchNorm; batches of 5 and more; small batches with which the"
        " network learns well (a note); gradient accumulation counts by its micro-batches, as norms do."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Use larger batches, 16 at least.",
        "Use GroupNorm or LayerNorm, which look at one sample at a time.",
        "Across several devices use SyncBatchNorm.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Wu, He 2018, Group normalization (error at batch 2: +10 points; 4: +2; 8: +1)",
        "Ioffe 2017, Batch renormalization",
    )

    tiny: float = threshold(
        2.0, "samples a batch", "with 2 and no positions a unit's output is +1 or -1, whatever the data"
    )
    small: float = threshold(4.0, "samples a batch", "Wu and He 2018: error begins to rise below 8")
    gap: float = threshold(1.5, "validation loss / training loss", "our choice; seen with batches of 2: 2-20")
    wide_gap: float = threshold(2.5, "validation loss / training loss", "our choice: for batches of 3 and 4")
    learned: float = threshold(
        0.25, "of the level of not knowing", "our choice: a loss below it came down well"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find batch norms with few samples."""
        if not view.layers:
            yield self.abstain("no activations were recorded")
            return
        norms = [info for info in view.layers if info.kind in BATCH_NORMS]
        if not norms:
            return
        size = _batch_size(view, norms)
        if size > self.small or _is_resting(view, norms):
            return
        harm, evidence = self._harm(view, size)
        yield self._finding(view, norms, size, harm, evidence)

    def _harm(self, view: RunView, size: float) -> tuple[str, dict[str, float | str]]:
        """Return how it shows, empty where it does not."""
        curve, valid = loss_curve(view), _finite(view, "valid")
        if len(curve) < MIN_BLOCK:
            return "", {}
        level = base_level(view, Flow.of(view.facts), float(curve.values[0]))
        evidence: dict[str, float | str] = {"loss_at_start": curve.start, "loss_at_end": curve.final}
        is_tiny = size <= self.tiny
        train = float(np.mean(curve.values[-max(len(curve) // 4, MIN_BLOCK) :]))
        if len(valid):
            evidence |= {"validation_loss": float(np.median(valid)), "training_loss": train}
            gap = self.gap if is_tiny else self.wide_gap
            if float(np.median(valid)) > gap * train and float(valid[-1]) > self.learned * level:
                words = (
                    f"In evaluation mode, with running statistics, the loss is {number(float(np.median(valid)))}, in"
                    f" training"
                    f" {number(train)}."
                )
                return words, evidence
        if is_tiny and train > self.learned * level:
            return (
                f"The training loss is {number(train)} at the end, from {number(level)} of not knowing.",
                evidence,
            )
        return "", evidence

    def _finding(
        self, view: RunView, norms: list[LayerInfo], size: float, harm: str, evidence: dict[str, float | str]
    ) -> Finding:
        all_names = [info.name for info in norms]
        return Finding(
            rule=self.id,
            severity=Severity.WARNING if harm else Severity.NOTE,
            layer=all_names[0],
            first_step=0,
            last_step=view.final_step,
            evidence={
                "batch_size": size,
                "num_norms": float(len(norms)),
                "norms": names(all_names, limit=20),
                **evidence,
            },
            message=(
                f"The batch {'norms' if len(norms) > 1 else 'norm'} {names(all_names)} normalise with the mean and"
                f" variance of"
                f" batches of {size:.0f} {'sample' if size == 1 else 'samples'}, which tell more of these samples"
                f" than of the"
                f" data. {harm or 'The network learns all the same.'}"
            ),
            remedies=(
                Remedy("use larger batches", "batch_size", size, ENOUGH),
                Remedy(
                    "use a norm that looks at one sample at a time", all_names[0], norms[0].kind, "GroupNorm"
                ),
            ),
            reference=self.reference,
        )


def _batch_size(view: RunView, norms: list[LayerInfo]) -> float:
    """Return the usual number of samples in a batch."""
    sizes = view.scalar("batch_size", "input").values
    known = sizes[np.isfinite(sizes)]
    first = float(norms[0].shape[0]) if norms[0].shape else 1.0
    return max(float(np.median(known)), first) if known.size else first


def _is_resting(view: RunView, norms: list[LayerInfo]) -> bool:
    """Tell whether the norms were in evaluation mode in training."""
    resting = {layer_of(view, fact.subject) for fact in view.facts.of(FactKind.EVAL_IN_TRAINING)}
    return all(info.name in resting for info in norms)


def _finite(view: RunView, phase: str) -> Floats:
    values = view.scalar("loss", phase).values
    return values[np.isfinite(values)]
