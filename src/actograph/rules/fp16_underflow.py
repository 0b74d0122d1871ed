"""The rule `fp16-underflow`: gradients too small for float16 became zero.

No idea of dead units: gradients that are zero beside others of ordinary size are theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.advice import names, number, percent
from actograph.rules.facts import NO_FLOW, layer_of, unless_looked
from actograph.rules.losses import MIN_BLOCK, loss_curve
from actograph.rules.progress import base_level
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.starts import Start, starts_of
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow
from actograph.runlog.view import RunView

SMALLEST_NORMAL = 2.0**-14  # of float16, 6.1e-5: below it digits are lost, below 6e-8 all is 0
HALF = "float16"
USUAL_SCALE = 65536.0  # torch's GradScaler begins with it


@dataclass(frozen=True)
class Sunk:
    """A layer whose gradients sank: typical share of exact zeros and largest value."""

    start: Start
    zeros: float
    largest: float


@dataclass(frozen=True)
class Fp16Underflow(Rule):
    """Gradients of layers that compute in float16 are so small that most of them became exactly 0.

    Below 6e-8 float16 has nothing but 0. A gradient scaler multiplies the loss so that gradients stay above it.
    """

    id: ClassVar[str] = "fp16-underflow"
    leads_to: ClassVar[tuple[str, ...]] = (
        "labels-misaligned",
        "vanishing-gradients",
        "learning-rate-too-low",
        "learning-rate-too-high",  # one that makes up for gradients that are mostly 0
    )
    measured: ClassVar[str] = (
        "Gradients of the weights after steps 0, 1, 2, 4, 8, ... of layers whose weights or outputs are float16, where no"
        " gradient scaler was seen: most exactly 0, and the largest below float16's smallest normal number, 6.1e-5. It is a"
        " warning where the loss did not come down well."
    )
    silent_on: ClassVar[str] = (
        "Zeros beside larger gradients (dead units, sparse inputs); runs under a gradient scaler; float32 and"
        " bfloat16; small"
        " gradients of a loss that has come down (a note)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Use torch.amp.GradScaler, or multiply the loss and divide the gradients.",
        "Compute in bfloat16, which has the range of float32.",
    )
    sources: ClassVar[tuple[str, ...]] = ("Micikevicius et al. 2018, Mixed precision training, section 3.2",)

    zeros: float = threshold(0.5, "share of the gradient's values", "our choice: most of it is lost")
    looks: float = threshold(0.5, "share of the looks", "our choice: most of the time")
    learned: float = threshold(
        0.25, "of the level of not knowing", "our choice: a loss below it came down well"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find layers whose gradients sank below float16."""
        if view.facts.looked(FactKind.SKIPPED_UPDATE) is not None:
            return  # there is a scaler
        flow = Flow.of(view.facts)
        if not len(flow):
            yield from unless_looked(self, view, FactKind.FLOW, NO_FLOW)
            return
        sunk = [one for start in starts_of(view, flow) if (one := self._judge(view, start)) is not None]
        if sunk:
            yield self._finding(view, flow, sunk)

    def _judge(self, view: RunView, start: Start) -> Sunk | None:
        name = layer_of(view, start.name)
        is_half = start.fact.text("dtype") == HALF or any(
            info.name == name and info.dtype == HALF for info in view.layers
        )
        zeros, largest = _numbers(start, "grad_zeros"), _numbers(start, "grad_max")
        if not is_half or not len(zeros) or len(zeros) != len(largest):
            return None
        is_sunk = (zeros >= self.zeros) & (largest < SMALLEST_NORMAL)
        if is_sunk.mean() < self.looks:
            return None
        return Sunk(start, float(np.median(zeros[is_sunk])), float(np.median(largest[is_sunk])))

    def _finding(self, view: RunView, flow: Flow, sunk: Sequence[Sunk]) -> Finding:
        first = sunk[0]
        curve = loss_curve(view)
        is_done = len(curve) < MIN_BLOCK or curve.final <= self.learned * abs(
            base_level(view, flow, float(curve.values[0]))
        )
        course = (
            f" The loss went from {number(curve.start)} to {number(curve.final)}."
            if len(curve) >= MIN_BLOCK
            else ""
        )
        also = f" The same holds for {names([one.start.name for one in sunk[1:]])}." if len(sunk) > 1 else ""
        return Finding(
            rule=self.id,
            severity=Severity.NOTE if is_done else Severity.WARNING,
            layer=layer_of(view, first.start.name),
            first_step=0,
            last_step=view.final_step,
            evidence={
                "zero_share": first.zeros,
                "largest_gradient": first.largest,
                "smallest_normal": SMALLEST_NORMAL,
                "num_layers": float(len(sunk)),
                "layers": names([one.start.name for one in sunk], limit=20),
            },
            message=(
                f"{percent(first.zeros)} of the gradients of {first.start.name} are exactly 0 and the largest is"
                f" {number(first.largest)}: they are too small for float16, which has nothing between 0 and 6e-8, and no"
                f" gradient scaler was seen.{course}{also}"
            ),
            remedies=(
                Remedy("scale the loss with torch.amp.GradScaler", "loss", 1.0, USUAL_SCALE),
                Remedy("compute in bfloat16", "model", HALF, "bfloat16"),
            ),
            reference=self.reference,
        )


def _numbers(start: Start, name: str) -> Floats:
    values = start.fact.data.get(name)
    return np.array(values if isinstance(values, list) else [], np.float64)
