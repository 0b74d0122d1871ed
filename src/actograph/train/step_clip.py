"""Limit the gradients before they move the weights.

No idea of where they come from.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

from actograph.errors import UsageError
from actograph.train.step import TrainStep
from actograph.train.step_wrapper import StepWrapper, parameters_of


class Clip(StepWrapper):
    """Scale the gradients down to an overall norm of ``norm``, or cut each of their values off at ``value``.

    ``before_step`` sees them as they were. ``last_clip_ratio`` is the norm after over the norm before, 1 where nothing was
    cut: a tensor of no dimensions that stays on its device; None before the first step.
    """

    def __init__(
        self,
        inner: TrainStep,
        optimizer: torch.optim.Optimizer,
        *,
        norm: float | None = None,
        value: float | None = None,
    ) -> None:
        limit = norm if value is None else value
        if limit is None or (norm is not None and value is not None):
            raise UsageError("clip either by norm or by value: give one of the two")
        if not limit > 0:
            raise UsageError(f"the limit to clip gradients at must be positive, not {limit}")
        super().__init__(inner)
        self.optimizer = optimizer
        self.norm = norm
        self.value = value
        self.last_clip_ratio: Tensor | None = None

    def update(self) -> bool:
        """Clip, then move the weights."""
        parameters = parameters_of(self.optimizer)
        if self.norm is not None:
            self.last_clip_ratio = (self.norm / clip_grad_norm_(parameters, self.norm)).clamp(max=1.0)
        else:
            assert self.value is not None  # one of the two
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            before = get_total_norm(gradients)
            clip_grad_value_(parameters, self.value)
            ratio = get_total_norm(gradients) / before
            self.last_clip_ratio = torch.where(before == 0, 1.0, ratio)
        return self.inner.update()
