"""`HolderFacts`: which parameters optimizers hold and models have, and which of them get gradients.

No idea of layers' outputs. A parameter's gradient is looked for when its optimizer has moved, before it can be zeroed.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from actograph.runlog.facts import FactKind, FactTable


@dataclass
class _Model:
    prefix: str
    model: ref[nn.Module]
    names: MutableMapping[Tensor, str]  # when it came
    parameters: frozenset[int] = frozenset()  # their ids, when they were looked up last


@dataclass
class Holder:
    """An optimizer and what it holds."""

    optimizer: ref[torch.optim.Optimizer]
    parameters: list[Tensor] = field(default_factory=list)
    models: list[int] = field(default_factory=list)  # by id, those of which it holds a parameter
    missing: list[Tensor] = field(default_factory=list)  # without a gradient at the last update


class HolderFacts:
    """Told of models, optimizers and updates; models are told apart by id while they live, optimizers by number."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._models: dict[int, _Model] = {}
        self._optimizers: dict[int, Holder] = {}
        self._names: MutableMapping[Tensor, str] = WeakIdKeyDictionary()  # of models' parameters
        # names of parameters that outlive their model
        self._orphans: MutableMapping[Tensor, str] = WeakIdKeyDictionary()
        self._shape: list[int] = []  # of all groups of all optimizers, to notice a change
        self._held_once: set[int] = set()  # ids of models' parameters that an optimizer held that is gone
        self._unheld: list[tuple[str, ref[Tensor], float]] = []
        self._subjects: MutableMapping[Tensor, str] = (
            WeakIdKeyDictionary()
        )  # of parameters that only an optimizer knows
        self._num_subjects = 0

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model's parameters into account."""
        names: MutableMapping[Tensor, str] = WeakIdKeyDictionary()
        for name, parameter in model.named_parameters():
            names[parameter] = prefix + name
        self._models[id(model)] = _Model(prefix, ref(model), names)
        self._shape = []

    def forget_model(self, key: int) -> None:
        """Let go of a model that is gone."""
        gone = self._models.pop(key, None)
        if gone is not None:
            self._held_once -= gone.parameters
            for parameter, name in list(gone.names.items()):
                self._orphans[parameter] = name
            self._shape = []

    def forget_optimizer(self, number: int) -> None:
        """Let go of an optimizer that is gone, but for what it held: that somebody trains on without it is no mistake."""
        gone = self._optimizers.pop(number, None)
        if gone is not None:
            self._held_once.update(id(parameter) for parameter in gone.parameters)
            self._shape = []

    def of(self, number: int, optimizer: torch.optim.Optimizer) -> Holder:
        """Return what an optimizer holds."""
        if number not in self._optimizers:
            self._optimizers[number] = Holder(ref(optimizer))
            self._learn()
        return self._optimizers[number]

    def after_update(self, number: int, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Note which parameters have a gradient and should not, and the other way round."""
        shape = [len(self._optimizers)]
        for one in tuple(self._optimizers.values()):
            alive = one.optimizer()
            if alive is not None:
                shape += [len(group["params"]) for group in alive.param_groups]
        if shape != self._shape:
            self._shape = shape
            self._learn()
        self._table.look(FactKind.MISSING_GRADIENT, step)
        self._table.look(FactKind.MAXIMIZED, step)
        if any(group.get("maximize", False) for group in optimizer.param_groups):
            self._table.note(FactKind.MAXIMIZED, f"optimizer {number}", step)
        one = self._optimizers[number]
        assert one.optimizer() is optimizer, "of() comes first"
        missing = [p for p in one.parameters if p.grad is None and p.requires_grad]
        if missing or one.missing:
            self._note_missing(missing, one.missing, step)
        one.missing = missing
        for name, known, is_partly_held in self._unheld:
            parameter = known()
            if parameter is not None and parameter.grad is not None and parameter.requires_grad:
                self._table.note(
                    FactKind.UNHELD_PARAMETER,
                    name,
                    step,
                    shape=str(tuple(parameter.shape)),
                    partly_held=is_partly_held,
                )

    def _note_missing(self, missing: list[Tensor], before: list[Tensor], step: int) -> None:
        for parameter in missing:
            name = self._names.get(parameter)
            kind = FactKind.UNKNOWN_PARAMETER if name is None else FactKind.MISSING_GRADIENT
            subject = name or self._subject(parameter)
            self._table.note(kind, subject, step, shape=str(tuple(parameter.shape)))
        still = {id(parameter) for parameter in missing}
        for parameter in before:
            if id(parameter) not in still:
                self._table.end(FactKind.MISSING_GRADIENT, self._names.get(parameter, ""))

    def _subject(self, parameter: Tensor) -> str:
        if parameter not in self._subjects:
            self._subjects[parameter] = f"tensor {self._num_subjects} of the optimizer"
            self._num_subjects += 1
        return self._subjects[parameter]

    def _learn(self) -> None:
        """Look up anew who holds what."""
        for one in tuple(self._optimizers.values()):
            optimizer = one.optimizer()
            if optimizer is not None:
                one.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._names.clear()
        for entry in tuple(self._models.values()):
            model = entry.model()
            named = [] if model is None else list(model.named_parameters())
            entry.parameters = frozenset(id(parameter) for _, parameter in named)
            for name, parameter in named:
                self._names.setdefault(parameter, entry.prefix + name)
        for held_on, name in list(self._orphans.items()):
            self._names.setdefault(held_on, name)
        optimizers = tuple(self._optimizers.values())
        held = {id(p) for one in optimizers for p in one.parameters} | self._held_once
        self._unheld = list(self._find_unheld(held))
        unheld = {name for name, _, _ in self._unheld}
        for name in set(self._names.values()) - unheld:
            self._table.drop(FactKind.UNHELD_PARAMETER, name)
        for one in optimizers:
            ids = {id(p) for p in one.parameters}
            one.models = [key for key, entry in tuple(self._models.items()) if ids & entry.parameters]

    def _find_unheld(self, held: set[int]) -> Iterator[tuple[str, ref[Tensor], float]]:
        """Yield name, parameter, and 1 where other parameters of its model are held, for each that no optimizer holds."""
        for entry in tuple(self._models.values()):
            model = entry.model()
            parameters: list[Tensor] = [] if model is None else list(model.parameters())
            is_partly_held = float(any(id(p) in held for p in parameters))
            yield from ((self._names[p], ref(p), is_partly_held) for p in parameters if id(p) not in held)
