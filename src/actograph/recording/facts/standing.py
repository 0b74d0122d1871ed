"""`StandingFacts`: what stands still from the start: running statistics of norms, and units that are all alike.

No idea of optimizers. It looks after steps 0, 1, 2, 4, 8, ... of the training, at what stood still each time before: in a
healthy run at nothing any more after the second look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from actograph.hooks.leaves import ROOT_NAME
from actograph.runlog.facts import FactKind, FactTable
from actograph.sketch.observe import is_measurable
from actograph.train.waiting import Waiting


@dataclass(eq=False)
class _Statistics:
    """A norm's running statistics, and what they added up to when they were first looked at."""

    name: str
    module: ref[_NormBase]
    kind: str = ""  # when it was looked at, as the momentum
    momentum: float | None = None
    first: tuple[float, ...] | None = None


@dataclass(eq=False)
class _Weight:
    name: str
    shape: str
    parameter: ref[Tensor]


class StandingFacts:
    """Told of models and of steps that end."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._statistics: list[_Statistics] = []
        self._weights: list[_Weight] = []
        self._num_steps = 0
        self._waiting = Waiting[tuple[_Statistics | _Weight, int]]()

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model's norms and weights into account."""
        for name, module in model.named_modules():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                self._statistics.append(_Statistics(prefix + (name or ROOT_NAME), ref(module)))
        weights = {prefix + name: p for name, p in model.named_parameters() if _has_units(p)}
        equal = _with_equal_first_rows(list(weights.values()))
        self._weights += [
            _Weight(name, str(tuple(p.shape)), ref(p))
            for (name, p), is_equal in zip(weights.items(), equal, strict=True)
            if is_equal
        ]

    def forget_model(self) -> None:
        """Let go of what belonged to a model that is gone."""
        self._statistics = [one for one in self._statistics if one.module() is not None]
        self._weights = [one for one in self._weights if one.parameter() is not None]

    def end_step(self, step: int) -> None:
        """Look, if it is time."""
        number, self._num_steps = self._num_steps, self._num_steps + 1
        if number & (number - 1):  # neither 0 nor a power of two
            return
        for one in self._statistics:
            norm = one.module()
            if (
                norm is not None
                and norm.training
                and norm.running_mean is not None
                and norm.running_var is not None
            ):
                sums = [norm.running_mean.sum(dtype=torch.float64), norm.running_var.sum(dtype=torch.float64)]
                one.kind = type(norm).__name__
                one.momentum = None if norm.momentum is None else float(norm.momentum)
                self._waiting.add((one, step), torch.stack(sums))
        for weight in self._weights:
            parameter = weight.parameter()
            if parameter is not None and parameter.grad is not None:
                self._waiting.add((weight, step), _spread(parameter).to(torch.float64))
        self._table.look(FactKind.FROZEN_STATISTICS, step)
        self._table.look(FactKind.EQUAL_UNITS, step)
        self.drain(waits=False)  # of the looks before; what has not come yet is looked at once more

    def drain(self, *, waits: bool = True) -> None:
        """Judge what waited on the device."""
        for (what, step), numbers in self._waiting.take(waits=waits):
            if isinstance(what, _Weight):
                self._judge_weight(what, step, spread=float(numbers[0]))
            else:
                self._judge_statistics(what, step, (float(numbers[0]), float(numbers[1])))

    def _judge_weight(self, weight: _Weight, step: int, *, spread: float) -> None:
        if spread == 0.0:
            self._table.note(FactKind.EQUAL_UNITS, weight.name, step, shape=weight.shape)
        elif weight in self._weights:
            self._table.drop(FactKind.EQUAL_UNITS, weight.name)
            self._weights.remove(weight)

    def _judge_statistics(self, one: _Statistics, step: int, sums: tuple[float, float]) -> None:
        if one.first is None:
            one.first = sums
        elif one.first == sums:
            self._table.note(
                FactKind.FROZEN_STATISTICS,
                one.name,
                step,
                kind=one.kind,
                momentum="None" if one.momentum is None else one.momentum,
            )
        elif one in self._statistics:
            self._table.drop(FactKind.FROZEN_STATISTICS, one.name)
            self._statistics.remove(one)


def _has_units(parameter: Tensor) -> bool:
    is_matrix = isinstance(parameter, nn.Parameter) and parameter.ndim > 1 and parameter.shape[0] > 1
    return is_matrix and parameter.numel() > 0 and is_measurable(parameter)


def _with_equal_first_rows(weights: Sequence[Tensor]) -> list[bool]:
    """Tell of each whether its first two units are the same; one number of each comes to the host, once a model."""
    if not weights:
        return []
    with torch.no_grad():
        home = weights[0].device
        # sync: once for a model
        same: list[bool] = torch.stack([(w[0] == w[1]).all().to(home) for w in weights]).tolist()
    return same


@torch.no_grad()
def _spread(parameter: Tensor) -> Tensor:
    """Return by how much units differ at most in any of their weights."""
    return (parameter.amax(dim=0) - parameter.amin(dim=0)).max()
