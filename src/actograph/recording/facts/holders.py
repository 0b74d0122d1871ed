"""`HolderFacts`: which parameters optimizers hold and models have, and which of them get gradients.

No idea of layers' outputs. A parameter's gradient is looked for when its optimizer has moved, before it can be zeroed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from actograph.runlog.facts import FactKind, FactTable


class HolderFacts:
    """Told of models, optimizers and updates."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._models: list[tuple[str, nn.Module]] = []
        self._names: dict[int, str] = {}  # of models' parameters, which the models keep alive
        self._shape: tuple[object, ...] = ()  # of all groups of all optimizers, to notice a change
        self._optimizers: dict[torch.optim.Optimizer, list[Tensor]] = {}
        self._models_of: dict[torch.optim.Optimizer, list[nn.Module]] = {}
        self._unheld: list[tuple[str, Tensor, float]] = []
        self._subjects: dict[int, str] = {}  # of parameters that only an optimizer knows
        self.missing: dict[torch.optim.Optimizer, list[Tensor]] = {}  # without a gradient at the last update

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model's parameters into account."""
        self._models.append((prefix, model))
        self._shape = ()

    def models_of(self, optimizer: torch.optim.Optimizer) -> Sequence[nn.Module]:
        """Return the models of which the optimizer holds a parameter."""
        if optimizer not in self._optimizers:
            self._learn([*self._optimizers, optimizer])
        return self._models_of[optimizer]

    def after_update(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Note which parameters have a gradient and should not, and the other way round."""
        optimizers = [*self._optimizers, *([] if optimizer in self._optimizers else [optimizer])]
        shape = tuple(len(group["params"]) for one in optimizers for group in one.param_groups)
        if (len(optimizers), *shape) != self._shape:
            self._shape = (len(optimizers), *shape)
            self._learn(optimizers)
        self._table.look(FactKind.MISSING_GRADIENT, step)
        self._table.look(FactKind.MAXIMIZED, step)
        if any(group.get("maximize", False) for group in optimizer.param_groups):
            self._table.note(FactKind.MAXIMIZED, f"optimizer {list(self._optimizers).index(optimizer)}", step)
        missing = [p for p in self._optimizers[optimizer] if p.grad is None and p.requires_grad]
        before = self.missing.get(optimizer, [])
        if missing or before:
            self._note_missing(missing, before, step)
        self.missing[optimizer] = missing
        for name, parameter, is_partly_held in self._unheld:
            if parameter.grad is not None and parameter.requires_grad:
                self._table.note(
                    FactKind.UNHELD_PARAMETER,
                    name,
                    step,
                    shape=str(tuple(parameter.shape)),
                    partly_held=is_partly_held,
                )

    def _note_missing(self, missing: list[Tensor], before: list[Tensor], step: int) -> None:
        for parameter in missing:
            name = self._names.get(id(parameter))
            kind = FactKind.UNKNOWN_PARAMETER if name is None else FactKind.MISSING_GRADIENT
            subject = name or self._subjects.setdefault(
                id(parameter), f"tensor {len(self._subjects)} of the optimizer"
            )
            self._table.note(kind, subject, step, shape=str(tuple(parameter.shape)))
        still = {id(parameter) for parameter in missing}
        for parameter in before:
            if id(parameter) not in still:
                self._table.end(FactKind.MISSING_GRADIENT, self._names.get(id(parameter), ""))

    def _learn(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Look up anew who holds what."""
        self._optimizers = {
            one: [p for group in one.param_groups for p in group["params"]] for one in optimizers
        }
        self._names = {}
        for prefix, model in self._models:
            for name, parameter in model.named_parameters():
                self._names.setdefault(id(parameter), prefix + name)
        held = {id(p) for parameters in self._optimizers.values() for p in parameters}
        self._unheld = list(self._find_unheld(held))
        unheld = {name for name, _, _ in self._unheld}
        for name in set(self._names.values()) - unheld:
            self._table.drop(FactKind.UNHELD_PARAMETER, name)
        for one, parameters in self._optimizers.items():
            ids = {id(p) for p in parameters}
            self._models_of[one] = [
                model for _, model in self._models if any(id(p) in ids for p in model.parameters())
            ]

    def _find_unheld(self, held: set[int]) -> Iterator[tuple[str, Tensor, float]]:
        """Yield name, parameter, and 1 where other parameters of its model are held, for each that no optimizer holds."""
        for _, model in self._models:
            parameters = list(model.parameters())
            is_partly_held = float(any(id(p) in held for p in parameters))
            yield from ((self._names[id(p)], p, is_partly_held) for p in parameters if id(p) not in held)
