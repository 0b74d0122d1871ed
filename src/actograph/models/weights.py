"""A model's weights as safetensors and back, tensors that share their memory once.

No idea of training or of where the bytes lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from actograph.errors import UsageError

Weights: TypeAlias = dict[str, Tensor]

MOST_NAMES = 5  # listed in an error


def weights_to_bytes(model: nn.Module, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return parameters and buffers in the safetensors format, tied ones under their first name only.

    ``metadata`` goes into the file's head. Raises UsageError for a state that is no tensor.
    """
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in _untied(model).items()
    }
    return safetensors.torch.save(tensors, metadata={"format": "pt", **(metadata or {})})


def weights_from_bytes(data: bytes, source: object) -> Weights:
    """Undo `weights_to_bytes`; raises UsageError, naming the ``source``, for bytes that are something else."""
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"{source} holds no readable weights ({error}): it is damaged or foreign") from error


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Copy weights into the model, tied ones staying tied.

    Raises UsageError, with the model as before, that names what the ``source`` lacks, has too much, or in another shape.
    """
    check_weights(model, weights, source)
    model.load_state_dict(
        weights, strict=False
    )  # the tied names that are not stored are the only ones missing


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Raise UsageError unless the weights are those of such a model."""
    own = _untied(model)
    other_shape = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    differences = {
        "missing": [name for name in own if name not in weights],
        "unexpected": sorted(name for name in weights if name not in own),
        "of another shape": other_shape,
    }
    told = [f"{what}: {_listed(names)}" for what, names in differences.items() if names]
    if told:
        raise UsageError(f"{source} is of another model than this {type(model).__name__}; " + "; ".join(told))


def _untied(model: nn.Module) -> Weights:
    """Return the state by name, each tensor once: under the first of its names."""
    kept: dict[tuple[object, ...], tuple[str, Tensor]] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UsageError(
                f"{name} of {type(model).__name__} is no tensor: its extra state cannot be saved"
            )
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else (name,)
        kept.setdefault(place, (name, value))
    return dict(kept.values())


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
