"""The rule `clipping-too-tight`: clipping takes nearly all of the gradient at every step, so that nothing moves.

No idea of gradients that explode: then clipping is what helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import number, percent, rounded
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.small_updates import CLIPPED_TO, clip_limit, clipped_share, held_by_clipping
from actograph.rules.updates import NO_UPDATES, Updates
from actograph.runlog.view import RunView

USUAL_LIMIT = 0.9  # quantile of the gradient norms: Tuning Playbook (Godbole et al. 2023)


@dataclass(frozen=True)
class ClippingTooTight(Rule):
    """Gradients are clipped at a limit far below their usual norm: the learning rate that was set is not in force.

    Each step has the length that clipping leaves, a small one. Adam does not feel it, as it divides by the gradients' size.
    """

    id: ClassVar[str] = "clipping-too-tight"
    measured: ClassVar[str] = (
        "At recorded steps the norm of all gradients before and after clipping. It is too tight where the median of what is"
        " left is below a tenth, nearly every step is clipped, updates are a small share of the weights,"
        " gradients still agree,"
        " and half or more of the loss at the start is left."
    )
    silent_on: ClassVar[str] = (
        "Clipping at every step that leaves enough; clipping under Adam; a network that learns all the same."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Raise the limit to the 90 % quantile of the gradient norms, as given.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Godbole et al. 2023, Deep Learning Tuning Playbook (clip at the 90 % quantile; half of the steps at most)",
    )

    ratio: float = threshold(
        2e-3, "update over weights", "five networks at tuned rates: 0.0025 and more at first"
    )
    clipped: float = threshold(0.9, "share of steps", "Tuning Playbook: above 0.5 something is wrong")
    left: float = threshold(0.5, "share of the loss at the start", "our choice: less than half was learned")
    min_steps: float = threshold(
        50.0, "steps with a loss", "our choice: shorter runs have not had their time"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for gradients that are clipped away."""
        updates = Updates.of(view)
        if updates is None or len(updates.curve) < self.min_steps:
            yield self.abstain(NO_UPDATES)
        elif self._is_too_tight(updates):
            yield self._finding(view, updates)

    def _is_too_tight(self, updates: Updates) -> bool:
        if not held_by_clipping(updates) or updates.early_ratio >= self.ratio or updates.died:
            return False
        share = float(np.mean(updates.scalar("clip_ratio").values < 1.0))
        return share >= self.clipped and updates.left >= self.left and updates.gradients_agree

    def _finding(self, view: RunView, updates: Updates) -> Finding:
        norms, left = updates.scalar("grad_norm").values, clipped_share(updates)
        kind, limit = clip_limit(updates) or ("norm", float(np.median(norms)) * (left or CLIPPED_TO))
        usual = float(np.quantile(norms, USUAL_LIMIT))
        new = rounded(usual if kind == "norm" else limit * usual / np.median(norms) / (left or CLIPPED_TO))
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=int(updates.scalar("clip_ratio").steps[0]),
            last_step=view.final_step,
            evidence={
                "limit": limit,
                "median_gradient_norm": float(np.median(norms)),
                "left_of_the_norm": float(left or 0.0),
                "update_ratio": updates.early_ratio,
                "loss_at_start": updates.base,
                "loss_at_end": updates.curve.final,
            },
            message=(
                f"Gradients are clipped by {kind} at {number(limit)}, which leaves {percent(float(left or 0.0))}"
                " of their norm"
                f" (median {number(float(np.median(norms)))}). So an update moves the weights by"
                f" {number(updates.early_ratio)}"
                f" of their size only, and the loss went from {number(updates.base)} to {number(updates.curve.final)}."
            ),
            remedies=(
                Remedy("clip at the 90 % quantile of the gradient norms", "gradients", limit, new),
                Remedy("do not clip", "gradients", limit, "none"),
            ),
            reference=self.reference,
        )
