"""`LossCall`: one call of one of torch's loss functions, as a driver saw it.

No idea of what the numbers mean; nothing here reads a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

NO_CLASS = -100  # torch's number for the class that a cross-entropy leaves out, where nobody says another
MEAN = "mean"


class Places(NamedTuple):
    """Where a loss function takes what, counted from 0; None: it has no such argument."""

    reduction: int
    ignored: int | None = None
    smoothing: int | None = None


# torch.nn.functional's loss functions that compare outputs with targets, by name
PLACES: Mapping[str, Places] = {
    "cross_entropy": Places(6, 4, 7),
    "nll_loss": Places(6, 4),
    "binary_cross_entropy": Places(5),
    "binary_cross_entropy_with_logits": Places(5),
    "mse_loss": Places(4),
    "l1_loss": Places(4),
    "smooth_l1_loss": Places(4),
    "huber_loss": Places(2),
}
MODULES: Mapping[type[nn.Module], str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll_loss",
    nn.BCELoss: "binary_cross_entropy",
    nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
    nn.MSELoss: "mse_loss",
    nn.L1Loss: "l1_loss",
    nn.SmoothL1Loss: "smooth_l1_loss",
    nn.HuberLoss: "huber_loss",
}


@dataclass(frozen=True)
class LossCall:
    """What a loss function was given, and what it returned where that is known."""

    name: str  # in torch.nn.functional
    outputs: object
    targets: object
    ignored: int = NO_CLASS
    reduction: str = MEAN
    smoothing: float = 0.0
    result: object = None


def loss_call_of(
    loss_func: object, outputs: object, targets: object, result: object = None
) -> LossCall | None:
    """Return the call of a loss function or module of torch's with its own settings; None for any other one."""
    name = MODULES.get(type(loss_func)) if isinstance(loss_func, nn.Module) else None
    if name is not None:
        assert isinstance(loss_func, nn.Module)
        settings = vars(loss_func)
        return LossCall(
            name,
            outputs,
            targets,
            int(settings.get("ignore_index", NO_CLASS)),
            str(settings.get("reduction", MEAN)),
            float(settings.get("label_smoothing", 0.0)),
            result,
        )
    plain = next((name for name in PLACES if getattr(functional, name) is loss_func), None)
    return None if plain is None else LossCall(plain, outputs, targets, result=result)


def is_one_number(value: object) -> bool:
    """Tell whether a value is a tensor that holds one number."""
    return isinstance(value, Tensor) and value.numel() == 1


def num_samples(outputs: Tensor) -> int:
    """Return how many samples outputs are of; one number is of one."""
    return len(outputs) if outputs.ndim else 1
