"""`SettingsFacts`: what optimizers are set to, at what gradients are clipped, and how much models drop out.

No idea of tensors. Learning rates and momenta are scalars of the run; here is what changes rarely.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from actograph.hooks.leaves import ROOT_NAME
from actograph.runlog.facts import FactKind, FactTable, Value
from actograph.train.momentum import momentum_of


class SettingsFacts:
    """Told of models, optimizers' updates and clips, at recorded steps."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._dropouts: dict[str, ref[nn.Module]] = {}
        self._known: dict[str, dict[str, Value]] = {}  # by optimizer

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model's dropout layers into account."""
        for name, module in model.named_modules():
            if isinstance(module, (_DropoutNd, nn.RNNBase, nn.MultiheadAttention)):
                self._dropouts[prefix + (name or ROOT_NAME)] = ref(module)

    def after_update(self, optimizer: torch.optim.Optimizer, subject: str, step: int) -> None:
        """Note the settings with which an optimizer has moved, where they are new."""
        self._table.look(FactKind.SETTINGS, step)
        self._note_dropouts(step)
        settings = settings_of(optimizer)
        if settings == self._known.get(subject):
            return
        self._known[subject] = settings
        self._table.end(FactKind.SETTINGS, subject)
        self._table.note(FactKind.SETTINGS, subject, step, **settings)

    def note_clip(self, kind: str, limit: float, step: int) -> None:
        """Note that gradients are clipped, by ``kind`` "norm" or "value", at a limit."""
        self._table.note(FactKind.CLIPPING, kind, step, limit=limit)

    def _note_dropouts(self, step: int) -> None:
        dropouts, self._dropouts = self._dropouts, {}
        for name, known in dropouts.items():
            module = known()
            if module is None:
                continue
            share = module.p if isinstance(module, _DropoutNd) else module.dropout
            if isinstance(share, (int, float)) and share > 0:
                self._table.note(FactKind.DROPOUT, name, step, share=float(share))


def settings_of(optimizer: torch.optim.Optimizer) -> dict[str, Value]:
    """Return what an optimizer is set to: of several groups the largest value, but for the smallest learning rate too.

    ``decay`` and ``eps`` are weight decay and epsilon, ``is_decoupled`` whether the decay passes by the gradient.

    >>> sgd = torch.optim.SGD([torch.ones(2, 2)], lr=0.1, momentum=0.9)
    >>> settings_of(sgd)["kind"], settings_of(sgd)["momentum"]
    ('SGD', 0.9)
    """
    groups, kind = optimizer.param_groups, type(optimizer).__name__
    found: dict[str, Value] = {"kind": kind, "groups": float(len(groups))}
    momenta = [momentum for group in groups if (momentum := momentum_of(group)) is not None]
    numbers = {
        "momentum": momenta,
        "beta2": [float(g["betas"][1]) for g in groups if len(g.get("betas", ())) > 1],
        "eps": _numbers(groups, "eps"),
        "decay": _numbers(groups, "weight_decay"),
    }
    found |= {name: max(values) for name, values in numbers.items() if values}
    found["is_decoupled"] = float(any(g.get("decoupled_weight_decay", kind.endswith("W")) for g in groups))
    return found


def _numbers(groups: list[dict[str, Any]], name: str) -> list[float]:
    return [float(group[name]) for group in groups if isinstance(group.get(name), (int, float))]
