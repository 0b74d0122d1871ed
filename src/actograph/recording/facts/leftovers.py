"""`LeftoverFacts`: whether a backward adds to gradients that an optimizer has used already (nobody has zeroed them).

No idea of models. It looks at a few parameters of each optimizer, at the first backward after each update. A gradient that
is the same tensor, changed by nothing since, and not zero, is a leftover; whether it counts is decided at the next
update, since who has several optimizers may zero it in between. Adding micro-batches up between updates is no leftover.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from actograph.runlog.facts import FactKind, FactTable
from actograph.train.waiting import Waiting

NUM_LOOKED_AT = 3  # parameters of an optimizer, of the smaller half; one of them may have a gradient of 0


@dataclass
class _Gradient:
    """One parameter's gradient as its optimizer left it; ``version`` counts torch's changes in place."""

    parameter: Tensor
    gradient: Tensor | None = None
    version: int = -1
    leftover: Tensor | None = None  # how many values were not zero, at the fewest, when a backward began

    def note_used(self) -> None:
        self.gradient, self.leftover = self.parameter.grad, None
        self.version = -1 if self.gradient is None else self.gradient._version

    def before_backward(self) -> None:
        now = self.parameter.grad
        if now is None or now is not self.gradient:
            self.leftover = None
        elif now._version == self.version:
            self.leftover = torch.count_nonzero(now)
        elif (
            self.leftover is not None
        ):  # another backward may have added to it, or somebody has zeroed it in time
            self.leftover = torch.minimum(self.leftover, torch.count_nonzero(now))

    @property
    def was_added_to(self) -> bool:
        now = self.parameter.grad
        return now is not None and now is self.gradient and now._version > self.version


@dataclass
class _Optimizer:
    subject: str
    gradients: list[_Gradient] = field(default_factory=list)
    has_seen_backward: bool = False


class LeftoverFacts:
    """Told of backwards and updates."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._optimizers: dict[int, _Optimizer] = {}  # by number
        self._waiting = Waiting[tuple[str, int]]()

    def before_backward(self) -> None:
        """Look at what gradients there are before a backward adds to them."""
        for one in tuple(self._optimizers.values()):
            one.has_seen_backward = True
            for gradient in one.gradients:
                gradient.before_backward()

    def after_update(self, number: int, optimizer: torch.optim.Optimizer, subject: str, step: int) -> None:
        """Note whether the gradients that were used held some that had been used before."""
        one = self._optimizers.get(number)
        if one is None or not one.gradients:
            one = self._optimizers[number] = _Optimizer(subject, _some_gradients(optimizer))
        elif one.has_seen_backward:
            self._table.look(FactKind.LEFTOVER_GRADIENT, step)
            added = [g.leftover for g in one.gradients if g.leftover is not None and g.was_added_to]
            if added:
                self._waiting.add((one.subject, step), torch.stack(added))
            else:
                self._table.end(FactKind.LEFTOVER_GRADIENT, one.subject)
        one.has_seen_backward = False
        for gradient in one.gradients:
            gradient.note_used()

    def drain(self, *, waits: bool = True) -> None:
        """Note what waited on the device."""
        for (subject, step), numbers in self._waiting.take(waits=waits):
            if numbers.any():
                self._table.note(FactKind.LEFTOVER_GRADIENT, subject, step)

    def forget_optimizer(self, number: int) -> None:
        """Let go of an optimizer that is gone, and of its gradients."""
        self._optimizers.pop(number, None)

    def forget(self) -> None:
        """Let go of all optimizers."""
        self._optimizers.clear()


def _some_gradients(optimizer: torch.optim.Optimizer) -> list[_Gradient]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    parameters = [p for p in parameters if p.grad is not None and not p.grad.is_sparse]
    by_size = sorted(parameters, key=lambda parameter: parameter.numel())
    stride = max(len(by_size) // 2 // NUM_LOOKED_AT, 1)
    return [_Gradient(parameter) for parameter in by_size[::stride][:NUM_LOOKED_AT]]
