"""The rule `missing-warmup`: a transformer that begins at its full learning rate and never gets going.

No idea of other networks: without attention a rate that throws a network off at the start is simply too high.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number
from actograph.rules.learning_rate_decayed_early import fell_early
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.updates import FEW, NO_UPDATES, REPLACED, Updates
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow, Kind
from actograph.runlog.view import RunView

SHARE = 0.2  # of a short run that is warmed up


@dataclass(frozen=True)
class MissingWarmup(Rule):
    """Adam begins a transformer at the full learning rate, and the first updates spoil it for good.

    Adam knows little of the size of gradients in its first steps and makes all of them count alike. Attention and norms
    behind sums do not forgive that: the rate would suit the network a little later.
    """

    id: ClassVar[str] = "missing-warmup"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "dead-units",
        "saturated-activations",
        "vanishing-gradients",
        "labels-misaligned",
        "exploding-gradients",
    )
    measured: ClassVar[str] = (
        "A network with attention and norms (the graph of one forward), an optimizer of Adam's kind whose rate is at half of"
        " its peak or above from the first steps on, a first update of a tenth of the weights or more, but not so large that"
        " no warm-up would help; and most of the loss at the start is left."
    )
    silent_on: ClassVar[str] = (
        "Transformers that learn without a warm-up; rates that are far too high (see learning-rate-too-high), or gone soon"
        " (see learning-rate-decayed-early); networks without attention."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Let the learning rate rise linearly over the first 2 / (1 - beta2) steps, at most a fifth of the run.",
        "Or put the norms in front of the blocks (pre-norm), or take a lower rate.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Xiong et al. 2020, On layer normalization in the transformer architecture",
        "Ma, Yarats 2021, On the adequacy of untuned warmup for adaptive optimization (2 / (1 - beta2) steps)",
    )

    ratio: float = threshold(
        0.1, "update over weights at the first update", "transformers that learn at once: 0.05 (one network)"
    )
    hopeless: float = threshold(
        REPLACED,
        "update over weights",
        "with a warm-up one network still learned at 0.20, and did not at 0.46",
    )
    left: float = threshold(
        0.6, "share of the loss at the start", "with a warm-up at the same rate: 0.08 to 0.26"
    )
    min_steps: float = threshold(
        50.0, "steps with a loss", "our choice: shorter runs have not had their time"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for a transformer that stands where it began."""
        updates = Updates.of(view)
        if updates is None or len(updates.curve) < self.min_steps or updates.settings is None:
            yield self.abstain(NO_UPDATES)
            return
        if view.facts.looked(FactKind.FLOW) is None:
            yield self.abstain(
                "no forward in training was seen, so it is not known whether there is attention"
            )
            return
        if not updates.is_adaptive or not has_attention(Flow.of(view.facts)):
            return
        first = updates.first_ratio
        if first is None or not self.ratio <= first < self.hopeless:
            return
        if fell_early(updates) is not None:
            return  # a rate that is gone soon keeps the loss where it is as well
        if updates.in_force_since < FEW and updates.left >= self.left:
            yield self._finding(view, updates, first)

    def _finding(self, view: RunView, updates: Updates, first: float) -> Finding:
        assert updates.settings is not None
        beta2 = min(updates.settings.number("beta2"), 1.0 - 1.0 / view.num_steps)
        num_steps = float(max(round(min(2.0 / (1.0 - beta2), SHARE * view.num_steps)), 1))
        end = "became NaN" if updates.died else f"was still {number(updates.curve.final)} at the end"
        return Finding(
            rule=self.id,
            severity=Severity.ERROR,
            layer=None,
            first_step=0,
            last_step=view.final_step,
            evidence={
                "learning_rate": updates.peak_rate,
                "first_update_ratio": first,
                "loss_at_start": updates.base,
                "loss_at_end": "not finite" if updates.died else updates.curve.final,
            },
            message=(
                f"{updates.settings.text('kind')} began a network with attention at its full learning rate of"
                f" {number(updates.peak_rate)}: the first update moved the weights by {number(first)} of their size. The"
                f" loss was {number(updates.base)} at the start and {end}."
            ),
            remedies=(
                Remedy("warm the learning rate up from 0", "warmup_steps", 0.0, num_steps),
                Remedy(
                    "normalize in front of attention and feed-forward layers, not behind their sums", "model"
                ),
                Remedy("lower the learning rate", "lr", updates.peak_rate, updates.good_rate()),
            ),
            reference=self.reference,
        )


def has_attention(flow: Flow) -> bool:
    """Tell whether outputs of layers are multiplied with each other, other than by gates, in a network with norms."""
    multiplies = any(Kind.PRODUCT in kinds and Kind.SATURATING not in kinds for kinds in flow.between)
    return multiplies and any(Kind.NORM in kinds for kinds in flow.between)
