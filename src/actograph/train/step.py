"""How one batch is computed: output, loss, gradients, update, zero the gradients.

No idea of epochs, loaders or callbacks: the loop calls these methods with its events in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.train.state import Batch

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]

# With shapes such as (N, 1) and (N,) they pair every output with every target, and torch warns once.
BROADCASTING = (
    nn.functional.mse_loss,
    nn.functional.l1_loss,
    nn.functional.smooth_l1_loss,
    nn.functional.huber_loss,
)
BROADCASTING_MODULES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)


class TrainStep(Protocol):
    """The six verbs of a batch; accumulation, autocast and clipping wrap another step."""

    def forward(self, batch: Batch) -> Any:
        """Return the model's output for ``batch.x``."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the scalar loss of ``batch.pred`` against ``batch.y``."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` to those gathered so far."""

    def complete(self, *, is_last: bool) -> bool:
        """Make the gathered gradients ready for ``before_step`` (averaged, unscaled, not clipped).

        Return False while more batches are to be gathered; ``is_last`` says that none follows in this phase.
        """

    def update(self) -> bool:
        """Clip if asked to, then move the weights; return False if they stayed (a scaler's overflow)."""

    def zero(self) -> None:
        """Drop the gathered gradients; also called where ``SkipStep`` came instead of ``update``."""


StepFactory: TypeAlias = Callable[[nn.Module, LossFunction, torch.optim.Optimizer], TrainStep]


@dataclass(frozen=True)
class Supervised:
    """The plain step: one batch, one update."""

    model: nn.Module
    loss_func: LossFunction
    optimizer: torch.optim.Optimizer
    _needs_equal_shapes: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        is_broadcasting = self.loss_func in BROADCASTING or isinstance(self.loss_func, BROADCASTING_MODULES)
        object.__setattr__(self, "_needs_equal_shapes", is_broadcasting)

    def forward(self, batch: Batch) -> Any:
        """Return ``model(x)``; a tuple or dict is handed over as it is."""
        return self.model(batch.x)

    def loss(self, batch: Batch) -> Tensor:
        """Return ``loss_func(pred, y)``.

        A UsageError names both shapes where the loss function cannot take the pair.
        """
        try:
            if self._needs_equal_shapes and batch.pred.shape != batch.y.shape:
                raise ValueError("they need the same shape: see unsqueeze and squeeze")
            return self.loss_func(batch.pred, batch.y)
        except (torch.OutOfMemoryError, UsageError):
            raise
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise UsageError(
                f"the loss function failed on output {describe(batch.pred)} and target {describe(batch.y)}: {error}"
            ) from error

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def complete(self, *, is_last: bool) -> bool:
        """Return True: one batch is a whole window."""
        return True

    def update(self) -> bool:
        """Let the optimizer move the weights."""
        self.optimizer.step()
        return True

    def zero(self) -> None:
        """Set the gradients to None."""
        self.optimizer.zero_grad(set_to_none=True)


def describe(value: object) -> str:
    """Return type and shape of a batch's part in words.

    >>> describe(torch.zeros(4, 3))
    'float32 (4, 3)'
    >>> describe({"image": torch.zeros(2)})
    '{image: float32 (2,)}'
    """
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {describe(item)}' for key, item in value.items())}}}"
    return type(value).__name__
