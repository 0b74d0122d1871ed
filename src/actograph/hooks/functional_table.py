"""Which functions of torch are activations, and the module each of them is.

No idea of hooks. The module says what is known of the function: where it is flat, and whether its row follows from another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  as everybody calls it
from torch import Tensor, nn

Function = Callable[..., object]


@dataclass(frozen=True)
class Activation:
    """A function of torch by the name it has in a record; ``parameters`` of the function go to the module by name."""

    name: str
    module: type[nn.Module]
    parameters: tuple[
        str, ...
    ] = ()  # of the function after its input, in its order; the module's have the same names

    def settings(self, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Return the parameters that a call gives, by name; args are those after the input."""
        given = dict(zip(self.parameters, args, strict=False))
        return {**given, **{name: value for name, value in kwargs.items() if name in self.parameters}}

    def as_module(self, settings: Mapping[str, object]) -> nn.Module:
        """Return the module that computes the same."""
        return self.module(**settings)


class Unlisted(nn.Module):
    """Stands for a function of which nothing is known but its name."""


def _of_tensors(*names: str) -> list[Function]:
    return [getattr(torch.Tensor, name) for name in names]


def _table() -> dict[Function, Activation]:
    entries: list[tuple[Activation, list[Function]]] = [
        (Activation("relu", nn.ReLU), [F.relu, torch.relu, torch.relu_, *_of_tensors("relu", "relu_")]),
        (Activation("relu6", nn.ReLU6), [F.relu6]),
        (
            Activation("sigmoid", nn.Sigmoid),
            [
                F.sigmoid,
                torch.sigmoid,
                torch.sigmoid_,
                torch.special.expit,
                *_of_tensors("sigmoid", "sigmoid_"),
            ],
        ),
        (Activation("tanh", nn.Tanh), [F.tanh, torch.tanh, torch.tanh_, *_of_tensors("tanh", "tanh_")]),
        (Activation("softsign", nn.Softsign), [F.softsign]),
        (Activation("hardtanh", nn.Hardtanh, ("min_val", "max_val")), [F.hardtanh, F.hardtanh_]),
        (Activation("hardsigmoid", nn.Hardsigmoid), [F.hardsigmoid]),
        (Activation("hardswish", nn.Hardswish), [F.hardswish]),
        (Activation("softplus", nn.Softplus, ("beta", "threshold")), [F.softplus]),
        (Activation("logsigmoid", nn.LogSigmoid), [F.logsigmoid]),
        (Activation("leaky_relu", nn.LeakyReLU, ("negative_slope",)), [F.leaky_relu, F.leaky_relu_]),
        (Activation("elu", nn.ELU, ("alpha",)), [F.elu, F.elu_]),
        (Activation("celu", nn.CELU, ("alpha",)), [F.celu, torch.celu, torch.celu_]),
        (Activation("selu", nn.SELU), [F.selu, torch.selu, torch.selu_]),
        (Activation("gelu", nn.GELU, ("approximate",)), [F.gelu]),
        (Activation("silu", nn.SiLU), [F.silu]),
        (Activation("mish", nn.Mish), [F.mish]),
        (
            Activation("softmax", Unlisted),
            [F.softmax, torch.softmax, torch.special.softmax, *_of_tensors("softmax")],
        ),
        (Activation("softmin", Unlisted), [F.softmin]),
        (
            Activation("log_softmax", Unlisted),
            [F.log_softmax, torch.log_softmax, torch.special.log_softmax, *_of_tensors("log_softmax")],
        ),
        (Activation("gumbel_softmax", Unlisted), [F.gumbel_softmax]),
        (Activation("scaled_dot_product_attention", Unlisted), [F.scaled_dot_product_attention]),
        (Activation("glu", Unlisted), [F.glu]),
        (Activation("prelu", Unlisted), [F.prelu, torch.prelu, *_of_tensors("prelu")]),
        (Activation("rrelu", Unlisted), [F.rrelu, F.rrelu_]),
        (Activation("hardshrink", Unlisted), [F.hardshrink, *_of_tensors("hardshrink")]),
        (Activation("softshrink", Unlisted), [F.softshrink]),
        (Activation("tanhshrink", Unlisted), [F.tanhshrink]),
    ]
    return {function: activation for activation, functions in entries for function in functions}


ACTIVATIONS = _table()


def activation_of(function: object) -> Activation | None:
    """Return what is known of a function, None where it is not an activation."""
    try:
        return ACTIVATIONS.get(function)  # type: ignore[call-overload, no-any-return]
    except TypeError:  # somebody's own callable that has no hash
        return None


def input_of(args: Sequence[object], kwargs: Mapping[str, object]) -> Tensor | None:
    """Return the tensor that a call of an activation takes first."""
    first = args[0] if args else kwargs.get("input", kwargs.get("query"))
    return first if isinstance(first, Tensor) else None
