"""The rule `batch-too-small`: batches of so few samples that their gradients are noise, at a rate meant for larger ones.

No idea of data or of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import number
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.updates import FEW, NO_UPDATES, Updates
from actograph.runlog.view import RunView

USUAL = 32.0  # Masters, Luschi 2018: best results between 2 and 32, at rates that fit
TENTH = 10.0


@dataclass(frozen=True)
class BatchTooSmall(Rule):
    """A step sees so few samples that its gradient is nearly all noise, and the learning rate follows the noise.

    The same rate suits larger batches; smaller ones need a lower one.
    """

    id: ClassVar[str] = "batch-too-small"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "dead-units",
        "saturated-activations",
        "labels-misaligned",
    )
    measured: ClassVar[str] = (
        "Samples a step, micro-batches added up, are one to four; gradients of neighbouring steps do not agree (the cosine"
        " is on average below 0.05, that is signal against noise); and the mean loss of the last quarter is half or more of"
        " that at the start, of single samples 30 % or more."
    )
    silent_on: ClassVar[str] = (
        "Small batches at a rate that suits them: the loss comes down; accumulated gradients."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Use batches of 32, or accumulate the gradients of as many samples.",
        "Or divide the learning rate by 10.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "McCandlish et al. 2018, An empirical model of large-batch training (the cosine of two gradients is |G|²/(|G|² +"
        " tr Σ/B))",
        "Masters, Luschi 2018, Revisiting small batch training for deep neural networks",
    )

    samples: float = threshold(
        4.0, "samples a step", "catalogue: 1-2; a healthy training with 4 stays below the harm"
    )
    agreement: float = threshold(
        0.05, "mean cosine", "batches of one: -0.09 to 0.02; of 32: 0.03 to 0.4 while they learn"
    )
    left: float = threshold(0.5, "share of the loss at the start", "healthy, batches of four: 0.1-0.45")
    left_of_one: float = threshold(
        0.3, "share of the loss at the start, batches of one", "four networks: 0.36-1; of 32: 0.002-0.1"
    )
    min_steps: float = threshold(
        50.0, "steps with a loss", "our choice: shorter runs have not had their time"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for small batches whose gradients are noise."""
        updates = Updates.of(view)
        samples = samples_a_step(view)
        if updates is None or samples is None or len(updates.curve) < self.min_steps:
            yield self.abstain(NO_UPDATES)
            return
        cosines = updates.scalar("grad_cosine").values
        if samples > self.samples or len(cosines) < FEW or float(cosines.mean()) >= self.agreement:
            return
        start, end = _means(updates)
        left = self.left_of_one if samples <= 1 else self.left
        if updates.died or end >= left * abs(start):
            yield self._finding(view, updates, samples, float(cosines.mean()), start, end)

    def _finding(
        self, view: RunView, updates: Updates, samples: float, agreement: float, start: float, end: float
    ) -> Finding:
        rate = updates.peak_rate
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=0,
            last_step=view.final_step,
            evidence={
                "samples_a_step": samples,
                "gradient_agreement": agreement,
                "mean_loss_at_start": start,
                "mean_loss_at_end": end,
            },
            message=(
                f"A step sees {number(samples)} samples, and gradients of neighbouring steps do not agree (mean cosine"
                f" {number(agreement)}): they are noise, which a learning rate of {number(rate)} follows. The mean loss went"
                f" from {number(start)} to {number(end)}."
            ),
            remedies=(
                Remedy("use larger batches", "batch_size", samples, USUAL),
                Remedy("lower the learning rate", "lr", rate, rate / TENTH),
            ),
            reference=self.reference,
        )


def samples_a_step(view: RunView) -> float | None:
    """Return the samples that a recorded step sees, from the number of a layer's values; None where that is not known."""
    for position, info in enumerate(view.layers):
        size = int(np.prod(info.shape[1:])) if len(info.shape) > 1 else 0
        count = view.moments.num[:, position]
        there = count > 0
        if size and there.any():
            return float(np.median(count[there] / view.num_recorded[there])) / size
    return None


def _means(updates: Updates) -> tuple[float, float]:
    """Return the mean losses of the first twentieth and of the last quarter: single samples' medians are far from them."""
    values = updates.curve.values
    return float(values[: max(len(values) // 20, FEW)].mean()), float(
        values[-max(len(values) // 4, FEW) :].mean()
    )
