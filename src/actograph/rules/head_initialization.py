"""The rule `head-initialization`: the output layer began with sure guesses, all of them wrong.

No idea of hidden layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number
from actograph.rules.facts import NO_FLOW, layer_of, unless_looked
from actograph.rules.progress import num_classes, wild_start
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.starts import Start, starts_of
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class HeadInitialization(Rule):
    """The output layer's weights or biases began so large that the first outputs are far from "I do not know".

    The loss begins far above that of a guess, and the first steps are spent on taking it back.
    """

    id: ClassVar[str] = "head-initialization"
    leads_to: ClassVar[tuple[str, ...]] = (
        "labels-misaligned",
        "exploding-gradients",
        "learning-rate-too-high",
        "dead-units",
        "non-finite-loss",
        "class-collapse",
    )
    measured: ClassVar[str] = (
        "The first loss against ln(number of classes) where torch's cross-entropy was seen, else the first outputs against"
        " those at the end; and the layer that makes the output: the gain of its weights (root mean square times the square"
        " root of the fan-in) or its largest bias, as its first forward found them."
    )
    silent_on: ClassVar[str] = (
        "A first loss of about ln(number of classes) or less: trained heads, biases set to the classes' frequencies, heads"
        " of zeros; large values that come from the layers in front (see initialization-too-large, inputs-not-normalized)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Initialise the output layer's weights small (torch's default, or 0) and its biases with 0.",
        "For classes of very different size set the biases to the logarithms of their frequencies.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Karpathy 2019, A recipe for training neural networks (verify the loss at the start; initialise well)",
    )

    loss_ratio: float = threshold(
        1.5, "times ln(number of classes)", "usual starts: 0.98-1.1; He in the head: 1.4"
    )
    output_ratio: float = threshold(
        3.0, "times the outputs at the end", "regressions at usual starts: 0.05-1"
    )
    gain: float = threshold(
        4.0, "root mean square of weights times sqrt(fan-in)", "usual schemes give 0 to 2.4"
    )
    bias: float = threshold(
        2.0,
        "largest |bias|, as a logit",
        "e^2 = 7: one class is 7 times as likely as the others before any sample",
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Compare the start with that of a head that does not know."""
        flow = Flow.of(view.facts)
        if not len(flow):
            yield from unless_looked(self, view, FactKind.FLOW, NO_FLOW)
            return
        heads = [one for one in starts_of(view, flow) if one.is_head]
        if len(heads) != 1:
            yield self.abstain(
                f"the model's output comes from {len(heads)} weight layers; one is needed to judge"
            )
            return
        (head,) = heads
        bias = head.fact.number("bias_max")
        if head.gain < self.gain and bias < self.bias:
            return
        shown, classes = wild_start(view, flow, self.loss_ratio, self.output_ratio), num_classes(view, flow)
        if shown.harm:
            known = {} if classes is None else {"classes": float(classes)}
            yield self._finding(view, head, bias, shown.harm, {**shown.evidence, **known})

    def _finding(
        self, view: RunView, head: Start, bias: float, words: str, evidence: dict[str, float | str]
    ) -> Finding:
        module = head.fact.subject.rpartition(".")[0]
        zero = Remedy("initialise the biases with", f"{module}.bias", bias, 0.0)
        of_weights, of_bias = head.gain >= self.gain, bias >= self.bias
        what = [
            *(
                [f"weights with a root mean square of {number(head.rms)} ({head.fan_in:.0f} inputs)"]
                if of_weights
                else []
            ),
            *([f"a bias of {number(bias)}"] if of_bias else []),
        ]
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=layer_of(view, head.name),
            first_step=0,
            last_step=view.final_step,
            evidence={"gain": head.gain, "weight_rms": head.rms, "largest_bias": bias, **evidence},
            message=(
                f"The output layer {head.name} began with {' and '.join(what)}. {words} The first steps are spent on taking"
                " sure and wrong guesses back."
            ),
            remedies=(*([head.remedy] if of_weights else []), *([zero] if of_bias else [])),
            reference=self.reference,
        )
