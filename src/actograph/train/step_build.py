"""Put the wrappers of a step around it, from the options that a Learner has.

No idea of what they do.
"""

from __future__ import annotations

import torch

from actograph.errors import UsageError
from actograph.train.step import TrainStep
from actograph.train.step_accumulate import Accumulate
from actograph.train.step_clip import Clip
from actograph.train.step_closure import Reevaluate, needs_closure
from actograph.train.step_precision import MixedPrecision, Precision


def wrapped(
    step: TrainStep,
    optimizer: torch.optim.Optimizer,
    *,
    accumulate: int = 1,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    amp: Precision | None = None,
) -> TrainStep:
    """Return ``step`` with the wrappers that the options ask for.

    A UsageError says that the optimizer computes the loss itself and cannot be combined with accumulation, clipping or fp16.
    """
    is_clipped = clip_norm is not None or clip_value is not None
    if amp is not None:
        step = MixedPrecision(step, optimizer, amp)
    if needs_closure(optimizer):
        if accumulate != 1 or is_clipped or amp == "fp16":
            raise UsageError(
                f"{type(optimizer).__name__} computes loss and gradients itself, several times a step: "
                'leave out accumulate, clip_norm, clip_value and amp="fp16"'
            )
        return Reevaluate(step, optimizer)
    if is_clipped:
        step = Clip(step, optimizer, norm=clip_norm, value=clip_value)
    return step if accumulate == 1 else Accumulate(step, optimizer, accumulate)
