"""Activations by class or by name.

No idea of the layers around them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from torch import nn

from actograph.errors import UsageError

ActivationFactory: TypeAlias = Callable[[], nn.Module]
Activation: TypeAlias = str | ActivationFactory

ACTIVATIONS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        "elu": nn.ELU,
        "gelu": nn.GELU,
        "leaky_relu": nn.LeakyReLU,
        "mish": nn.Mish,
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
    }
)


def build_activation(act: Activation) -> nn.Module:
    """Make a new module from a name of `ACTIVATIONS`, a class, or a function.

    Raises UsageError for another name, and for a ready-made module, which every block would then share.

    >>> build_activation("leaky_relu")
    LeakyReLU(negative_slope=0.01)
    """
    if isinstance(act, str):
        return _by_name(act)()
    if isinstance(act, nn.Module) or not callable(act):
        raise UsageError(
            f"act is {act!r}; give a class or a function that makes a new module, such as nn.ReLU, or one of the "
            f"names {', '.join(ACTIVATIONS)}"
        )
    return act()


def activation_name(act: Activation) -> str | None:
    """Return the name of an activation of `ACTIVATIONS`; None for any other.

    >>> activation_name(nn.ReLU), activation_name(nn.Hardswish)
    ('relu', None)
    """
    if isinstance(act, str):
        return act
    return next((name for name, kind in ACTIVATIONS.items() if kind is act), None)


def _by_name(name: str) -> type[nn.Module]:
    if name not in ACTIVATIONS:
        near = difflib.get_close_matches(name, ACTIVATIONS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"act is {name!r}{hint}; the names are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
