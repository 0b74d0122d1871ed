"""The rule `detached-graph`: no gradient reaches layers that an optimizer is to train.

No idea of losses; where the graph is cut was seen in a forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import names
from actograph.rules.facts import in_order, layer_of, steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView

WAYS = {
    "no_grad": "runs under torch.no_grad()",
    "detach": "hands on its output without the graph (detach(), .data, a new tensor made of it)",
}


@dataclass(frozen=True)
class DetachedGraph(Rule):
    """Layers that take part in every training forward never get a gradient: the graph is cut behind them.

    Their parameters require gradients and an optimizer holds them, so they were meant to be trained.
    """

    id: ClassVar[str] = "detached-graph"
    measured: ClassVar[str] = (
        "Parameters of an optimizer that have no gradient when it moves make the recorder look into one forward: a layer"
        " called under no_grad, or one whose output goes on into the next layer without its graph, is where it is cut. The"
        " layer named is the last before the cut; the step is the first without gradients."
    )
    silent_on: ClassVar[str] = (
        "Frozen parameters (requires_grad=False), and those that no optimizer holds; a head whose output no loss uses;"
        " layers that are not called; a stop-gradient beside a path on which gradients flow."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Take detach(), .data, .item(), numpy() or no_grad() out of the forward.",
        "If the layers are meant to rest, freeze them and leave them out of the optimizer.",
    )

    steps: float = threshold(
        3.0, "steps", "our choice: stages of a training may begin with a step or two like this"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find cuts before which parameters stay without gradients to the end."""
        if view.facts.looked(FactKind.MISSING_GRADIENT) is None:
            yield from unless_looked(self, view, FactKind.MISSING_GRADIENT, "no update was seen")
            return
        missing = [
            fact for fact in view.facts.lasting(FactKind.MISSING_GRADIENT) if _length(fact) >= self.steps
        ]
        for cut in in_order(view, view.facts.of(FactKind.CUT_GRAPH)):
            since = [fact for fact in missing if fact.since >= cut.first_step]
            if not since:
                continue
            first_step, last_step = steps_of(view, since[0], min(fact.since for fact in since))
            which = names([fact.subject for fact in since])
            yield Finding(
                rule=self.id,
                severity=Severity.WARNING,
                layer=layer_of(view, cut.subject),
                first_step=first_step,
                last_step=last_step,
                evidence={
                    "cut_behind": cut.subject,
                    "cut_before": cut.text("before"),
                    "parameters_without_gradient": float(len(since)),
                    "parameters": ", ".join(fact.subject for fact in since[:20]),
                },
                message=(
                    f"From step {first_step} on no gradient reaches {which}, though an optimizer holds"
                    f" {'them' if len(since) > 1 else 'it'}: {cut.subject} {WAYS[cut.text('way')]}, so the graph ends"
                    f" before {cut.text('before')}."
                ),
                remedies=(
                    Remedy("take detach() or no_grad() out of the forward", cut.subject),
                    Remedy(
                        "freeze what is meant to rest",
                        cut.subject,
                        "requires_grad=True",
                        "requires_grad=False",
                    ),
                ),
                reference=self.reference,
            )


def _length(fact: Fact) -> int:
    return fact.last_step - fact.since + 1
