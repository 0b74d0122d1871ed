"""torch's optimizers in their fused form, which moves all weights in one pass.

No idea of training. On one CPU core a fused AdamW takes a fourth of the plain one's time for `simple_cnn`, and an eighth
for large layers (benchmarks/LOG.md); the update is the same to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from actograph.train.step_wrapper import parameters_of

FUSED_DEVICES = {"cpu", "cuda", "xpu", "mps"}  # where torch has the kernels


def fused(cls: type[torch.optim.Optimizer], **options: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return a function that makes an optimizer of ``cls`` (Adam, AdamW, SGD or Adagrad), fused where that can be.

    It is plain where torch has no fused kernel for all parameters: on other devices, for complex numbers, and for views with
    gaps between their values.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> fused(torch.optim.SGD, momentum=0.9)([weight], lr=0.1).defaults["fused"]
    True
    """
    return partial(_make, cls, **options)


def _make(
    cls: type[torch.optim.Optimizer], parameters: Iterable[Tensor] | Iterable[dict[str, Any]], **options: Any
) -> torch.optim.Optimizer:
    given: list[Any] = list(parameters)
    if not all(map(_can_be_fused, _tensors(given))):
        return cls(given, **options)
    optimizer: torch.optim.Optimizer = cls(given, **options | {"fused": True})
    optimizer.register_step_pre_hook(_align)
    return optimizer


def _tensors(given: Iterable[Any]) -> Iterator[Tensor]:
    for part in given:
        if isinstance(part, dict):
            yield from part["params"]
        else:
            yield part


def _can_be_fused(parameter: Tensor) -> bool:
    is_dense = torch.empty_like(parameter, device="meta").stride() == parameter.stride()
    return parameter.device.type in FUSED_DEVICES and parameter.is_floating_point() and is_dense


def _align(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Give gradients and state the memory layout of their parameter.

    torch 2.13's fused kernels go through memory in its order and silently mix values up where layouts differ: after
    ``model.to(memory_format=torch.channels_last)``, or with a state that was loaded.
    """
    for parameter in parameters_of(optimizer):
        gradient = parameter.grad
        if gradient is None:
            continue
        stride = parameter.stride()
        if gradient.stride() != stride:
            parameter.grad = _like(parameter, gradient)
        state = optimizer.state[parameter]
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != stride:
                state[name] = _like(parameter, value)


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
