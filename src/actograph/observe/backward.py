"""`BackwardListener`: takes losses and unclipped gradients to a recording, as the patch points show them.

No idea of optimizers and steps; whoever has told it of a step's end says so (`forget`).
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from actograph.hooks.recomputation import is_in_backward
from actograph.recording.facts.loss_call import LossCall
from actograph.recording.recording import Recording
from actograph.sketch.observe import is_measurable


class BackwardListener:
    """Listens at the patch points (`patches.Listener`); ``guarded`` calls an action and lets no error out."""

    def __init__(self, recording: Recording, guarded: Callable[..., None], *, gradients: bool) -> None:
        self.is_clipped = False  # since the last backward
        self._has_moved = False  # an optimizer, since a scaler began its step
        self._recording = recording
        self._guarded = guarded
        self._gradients = gradients
        # scaled losses, the losses, the scales, what the losses were divided by
        self._scaled: list[tuple[ref[Tensor], tuple[Tensor, float, float]]] = []

    def forget(self) -> None:
        """Let go of losses that were scaled: an optimizer has stepped."""
        self._scaled.clear()
        self._has_moved = True

    def before_backward(self, tensors: object) -> None:
        """Note the loss, if it is one number and no backward is running."""
        if not is_in_backward():
            self._guarded(self._note_loss, tensors)

    def before_clip(self, kind: str, limit: object) -> None:
        """Measure the gradients, once after a backward: a second clip finds them clipped."""
        if isinstance(limit, (int, float)):
            self._guarded(self._recording.clips, kind, float(limit))
        if not self.is_clipped:
            self.is_clipped = True
            self._guarded(self._recording.gradients)

    def after_scale(self, scaler: GradScaler, outputs: object, scaled: object) -> None:
        """Remember the loss that was scaled."""
        self._guarded(self._note_scale, scaler, outputs, scaled)

    def after_loss(self, call: LossCall) -> None:
        """Note what a loss was computed of."""
        self._guarded(self._recording.loss_call, call)

    def before_scaled_step(self) -> None:
        """Watch whether an optimizer is going to move."""
        self._has_moved = False

    def after_scaled_step(self, scaler: GradScaler, optimizer: object) -> None:
        """Note an update that the scaler has left out."""
        if not scaler.is_enabled() or not isinstance(optimizer, torch.optim.Optimizer):
            return
        has_moved = self._has_moved
        if not has_moved:
            self.forget()  # of losses whose update was left out
        self._guarded(self._note_scaled_step, scaler, optimizer, has_moved)

    def _note_loss(self, tensors: object) -> None:
        self.is_clipped = False
        self._recording.before_backward()
        loss = tensors[0] if isinstance(tensors, (tuple, list)) and len(tensors) == 1 else tensors
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not is_measurable(loss):
            return
        known = [one for scaled, one in self._scaled if scaled() is loss]
        value, scale, divisor = known[0] if known else (loss, 1.0, divisor_of(loss))
        self._recording.see_scale(scale)
        if known or not self._scaled:  # else it was made from a scaled one
            self._recording.see_loss(value, divided_by=divisor)

    def _note_scaled_step(
        self, scaler: GradScaler, optimizer: torch.optim.Optimizer, has_moved: object
    ) -> None:
        # sync: of a step left out only, for which the scaler has waited for the device already
        scale = 0.0 if has_moved else scaler.get_scale()
        self._recording.scaled_step(optimizer, scale, has_moved=bool(has_moved))

    def _note_scale(self, scaler: GradScaler, outputs: object, scaled: object) -> None:
        if isinstance(outputs, Tensor) and isinstance(scaled, Tensor) and scaler.is_enabled():
            # sync: only where gradients by outputs are recorded
            scale = scaler.get_scale() if self._gradients else 1.0
            self._scaled.append((ref(scaled), (outputs.detach(), scale, divisor_of(outputs))))


def divisor_of(loss: Tensor) -> float:
    """Return the number on the host that a loss was divided by last, 1 where there is none.

    >>> import torch
    >>> divisor_of(torch.ones(3, requires_grad=True).sum() / 4 / 1)
    4.0
    """
    made_by, divisor = loss.grad_fn, 1.0
    while (
        divisor == 1.0 and made_by is not None and made_by.name() == "DivBackward0"
    ):  # a trainer in another one's loop
        number = made_by._raw_saved_other.data  # type: ignore[attr-defined]  # raw: no hook of a checkpoint is run
        if not isinstance(number, Tensor) or number.device.type != "cpu" or number.numel() != 1:
            return 1.0
        divisor = float(number)  # no sync: it is on the host
        made_by = made_by.next_functions[0][0]
    return divisor
