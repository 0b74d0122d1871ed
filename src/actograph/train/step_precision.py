"""Compute in half precision where it is safe, and keep small gradients from vanishing.

No idea of what is computed: torch's autocast and GradScaler do the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from actograph.errors import UsageError
from actograph.train.device import map_tensors
from actograph.train.state import Batch
from actograph.train.step import TrainStep
from actograph.train.step_wrapper import StepWrapper, parameters_of

Precision: TypeAlias = Literal["bf16", "fp16"]

DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class MixedPrecision(StepWrapper):
    """Run output and loss under autocast to ``precision``; weights, gradients and updates stay float32.

    With "fp16" the loss is scaled by a ``GradScaler``: ``before_step`` sees unscaled gradients, and where one of them is
    not finite the step is skipped (``progress.num_skipped_steps``) and the scale halved. "bf16" has the range of float32
    and needs no scale. The model's output comes as float32, so that losses, metrics and numpy can take it.
    """

    def __init__(
        self,
        inner: TrainStep,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        if precision not in DTYPES:
            raise UsageError(f'mixed precision is "bf16" or "fp16", not {precision!r}')
        super().__init__(inner)
        self.dtype = DTYPES[precision]
        self.device_type = parameters_of(optimizer)[0].device.type
        is_scaled = self.dtype is torch.float16
        self.scaler = scaler or torch.amp.GradScaler(self.device_type, enabled=is_scaled)
        self._moving = _Moving(optimizer, inner)
        self._is_unscaled = False  # since the scaler's last update

    @property
    def scale(self) -> float:
        """What the loss is multiplied with; 1 when nothing is scaled."""
        return self.scaler.get_scale()  # sync: on reading only

    def forward(self, batch: Batch) -> Any:
        """Return the model's output, in float32."""
        with torch.autocast(self.device_type, self.dtype):
            pred = self.inner.forward(batch)
        return map_tensors(_as_float32, pred)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss, computed under autocast and not scaled."""
        with torch.autocast(self.device_type, self.dtype):
            return self.inner.loss(batch)

    def backward(self, loss: Tensor) -> None:
        """Add the scaled gradients."""
        self.inner.backward(self.scaler.scale(loss))

    def complete(self, *, is_last: bool) -> bool:
        """Undo the scale once all gradients are gathered."""
        if not self.inner.complete(is_last=is_last):
            return False
        self.scaler.unscale_(self._moving)  # type: ignore[arg-type]
        self._is_unscaled = True
        return True

    def update(self) -> bool:
        """Move the weights, unless a gradient is not finite."""
        return bool(self.scaler.step(self._moving))  # type: ignore[arg-type]  # sync: the scaler asks for overflows

    def zero(self) -> None:
        """Drop the gradients, and adapt the scale to them, whether or not a step was made."""
        if self._is_unscaled:
            self.scaler.update()
            self._is_unscaled = False
        self.inner.zero()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scaler, empty when nothing is scaled, and of the inner step."""
        return {"scaler": self.scaler.state_dict(), "inner": super().state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with them; without a saved scale, or of a step without mixed precision, the scale stays."""
        super().load_state_dict(state.get("inner", {}))
        if scaler := state.get("scaler"):
            self.scaler.load_state_dict(scaler)


@dataclass(frozen=True)
class _Moving:
    """What the scaler takes for the optimizer, so that a step is made by the inner step, with what that adds."""

    optimizer: torch.optim.Optimizer
    inner: TrainStep

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def step(self) -> bool:
        return self.inner.update()


def _as_float32(value: Tensor) -> Tensor:
    return value.float() if value.dtype in DTYPES.values() else value
