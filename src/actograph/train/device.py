"""Move nested batches to a device, find a model's own, and choose one by name.

No idea of loaders or training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from actograph.errors import UsageError


def move(value: Any, device: torch.device) -> Any:
    """Return ``value`` with every tensor in tuples, lists and dicts on ``device``; other things as they are.

    >>> move({"a": (torch.zeros(1), "text")}, torch.device("cpu"))
    {'a': (tensor([0.]), 'text')}
    """
    if isinstance(value, torch.Tensor):
        # Host to CUDA may overlap with compute when the memory is pinned; CUDA to host may not.
        return value.to(device, non_blocking=device.type == "cuda")
    return map_tensors(lambda tensor: move(tensor, device), value)


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """Return ``value`` with ``function`` applied to every tensor in tuples, lists and dicts; other things as they are.

    >>> map_tensors(torch.neg, [torch.ones(1), "text"])
    [tensor([-1.]), 'text']
    """
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, tuple):
        items = tuple(map_tensors(function, item) for item in value)
        return items if type(value) is tuple else type(value)(*items)  # a namedtuple takes its fields
    if isinstance(value, list):
        return [map_tensors(function, item) for item in value]
    return value


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter; the CPU where it has none."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the best one there is. Raises UsageError when it cannot be used."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here ({reason}); give cpu or auto") from error
    return device
