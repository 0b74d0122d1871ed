"""`Setting`: everything of one training that a fault can break; `Program`: how to make the setting of a training that goes well.

No idea of particular faults, nor of what watches the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from faults.loop import Loop

Loss = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], float]  # outputs, targets; more is better, 1 is perfect
Transform = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]  # step, inputs, targets
Event = Callable[["Loop"], None]


class Data(NamedTuple):
    """Inputs (N, ...) and targets (N, ...)."""

    x: Tensor
    y: Tensor


def constant(_step: int) -> float:
    """Return the factor of a rate that stays as it is."""
    return 1.0


def all_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return what an optimizer is usually given."""
    return list(model.parameters())


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Return the share of right classes; outputs (N, C, ...), targets (N, ...)."""
    return float((outputs.argmax(1) == targets).float().mean())


def binary_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Return the share of right answers; outputs are logits (N, 1), targets 0 or 1 (N, 1)."""
    return float(((outputs > 0) == (targets > 0.5)).float().mean())


def r_squared(outputs: Tensor, targets: Tensor) -> float:
    """Return the explained share of the variance, not below -1."""
    left = (outputs - targets).square().mean() / (targets - targets.mean()).square().mean()
    return max(-1.0, 1.0 - float(left)) if torch.isfinite(left) else -1.0


@dataclass
class Setting:
    """One training. Whatever is here may be replaced before it begins; ``events`` and ``batches`` break it on the way."""

    model: nn.Module
    loss: Loss
    train: Data
    valid: Data  # what the training script evaluates on
    test: Data  # what nobody sees: the outcome is measured here, in evaluation mode
    metric: Metric
    optimizer: type[torch.optim.Optimizer]
    options: dict[str, Any]  # of the optimizer: lr, momentum, ...
    batch_size: int = 32
    num_steps: int = 300
    eval_every: int = 30  # steps
    schedule: Callable[[int], float] = constant  # step to factor of the rate
    clip: float | None = None  # largest gradient norm
    accumulate: int = 1  # micro-batches a step
    shuffle: bool = True
    parameters: Callable[[nn.Module], list[nn.Parameter]] = all_parameters
    autocast: torch.dtype | None = None
    scaler: Mapping[str, Any] | None = None  # options of a GradScaler
    zeroes_gradients: bool = True
    trains_in_train_mode: bool = True  # calls model.train() before it goes on after an evaluation
    evaluates_in_eval_mode: bool = True
    divides_by_accumulate: bool = True
    events: dict[int, list[Event]] = field(default_factory=dict)  # by the step before which they happen
    batches: list[Transform] = field(default_factory=list)  # what is done to each training batch

    def at(self, step: int, event: Event) -> None:
        """Let something happen before a step."""
        self.events.setdefault(step, []).append(event)


@dataclass(frozen=True)
class Program:
    """A training that goes well, and to which half of the benchmark it belongs."""

    name: str
    half: str  # "tuning" or "test"
    make: Callable[[int], Setting]  # by seed
