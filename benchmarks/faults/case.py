"""`Case`: one known way to break a program, and what a diagnosis of it should say; `Control`: a change that breaks nothing.

No idea of how often or where they are run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from faults.setting import Setting

Change = Callable[[Setting], None]
Repair = Callable[[Setting, str, float], bool]  # setting (broken), target of the remedy, new value; False: cannot be applied


@dataclass(frozen=True)
class Case:
    """A fault in a program.

    ``rules`` are the ids of the causes that are right, ``layers`` the layers that are (empty: none is to blame), ``t0`` the
    step at which it begins. ``remedies`` are words of which one stands in a right remedy's target or action, where that is
    about data or code; a remedy with a number is tried out instead (``repair``). ``twin`` changes the healthy twin.
    """

    fault: str  # of the catalogue: "F01"
    program: str
    rules: tuple[str, ...]
    apply: Change
    t0: int = 0
    layers: tuple[str, ...] = ()
    severity: str = ""  # what the knob was set to, where a fault comes in several
    remedies: tuple[str, ...] = ()
    repair: Repair | None = None
    twin: Change | None = None

    @property
    def id(self) -> str:
        """Fault, program and severity."""
        return "-".join(part for part in (self.fault, self.program, self.severity) if part)


@dataclass(frozen=True)
class Control:
    """A healthy training that looks ill to naive rules; without ``apply`` the program itself."""

    control: str  # "H01"; "H00" is the program itself
    program: str
    apply: Change | None = None

    @property
    def id(self) -> str:
        """Control and program."""
        return f"{self.control}-{self.program}"


def set_options(**options: Any) -> Change:
    """Return the change that sets options of the optimizer."""

    def apply(setting: Setting) -> None:
        setting.options.update(options)

    return apply


def scale_rate(factor: float) -> Change:
    """Return the change that multiplies the learning rate."""

    def apply(setting: Setting) -> None:
        setting.options["lr"] *= factor

    return apply


def replace_modules(model: nn.Module, change: Callable[[str, nn.Module], nn.Module | None]) -> None:
    """Replace each submodule for which ``change`` (qualified name, module) returns another."""
    for name, module in list(model.named_modules()):
        new = change(name, module) if name else None
        if new is not None:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new)


def weight_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the linear and convolution layers in order."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]


@torch.no_grad()
def scale_weights(setting: Setting, factor: float, names: Sequence[str] | None = None) -> None:
    """Multiply the weights of layers, all by default."""
    for name, module in weight_layers(setting.model):
        if names is None or name in names:
            module.weight.mul_(factor)


