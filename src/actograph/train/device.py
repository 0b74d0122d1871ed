"""Move nested batches to a device, and find a model's own.

No idea of loaders or training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def move(value: Any, device: torch.device) -> Any:
    """Return ``value`` with every tensor in tuples, lists and dicts on ``device``; other things as they are.

    >>> move({"a": (torch.zeros(1), "text")}, torch.device("cpu"))
    {'a': (tensor([0.]), 'text')}
    """
    if isinstance(value, torch.Tensor):
        # Host to CUDA may overlap with compute when the memory is pinned; CUDA to host may not.
        return value.to(device, non_blocking=device.type == "cuda")
    if isinstance(value, Mapping):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, tuple):
        items = tuple(move(item, device) for item in value)
        return items if type(value) is tuple else type(value)(*items)  # a namedtuple takes its fields
    if isinstance(value, list):
        return [move(item, device) for item in value]
    return value


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter; the CPU where it has none."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
