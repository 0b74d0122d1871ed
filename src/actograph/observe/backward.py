"""`BackwardListener`: takes losses and unclipped gradients to a recording, as the patch points show them.

No idea of optimizers and steps; whoever has told it of a step's end says so (`forget`).
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from actograph.hooks.recomputation import is_in_backward
from actograph.recording.recording import Recording
from actograph.sketch.observe import is_measurable


class BackwardListener:
    """Listens at the patch points (`patches.Listener`); ``guarded`` calls an action and lets no error out."""

    def __init__(self, recording: Recording, guarded: Callable[..., None], *, gradients: bool) -> None:
        self.is_clipped = False  # since the last backward
        self._recording = recording
        self._guarded = guarded
        self._gradients = gradients
        self._scaled: list[tuple[ref[Tensor], Tensor, float]] = []  # scaled losses, the losses, the scales

    def forget(self) -> None:
        """Let go of losses that were scaled: an optimizer has stepped."""
        self._scaled.clear()

    def before_backward(self, tensors: object) -> None:
        """Note the loss, if it is one number and no backward is running."""
        if not is_in_backward():
            self._guarded(self._note_loss, tensors)

    def before_clip(self) -> None:
        """Measure the gradients, once after a backward: a second clip finds them clipped."""
        if not self.is_clipped:
            self.is_clipped = True
            self._guarded(self._recording.gradients)

    def after_scale(self, scaler: GradScaler, outputs: object, scaled: object) -> None:
        """Remember the loss that was scaled."""
        self._guarded(self._note_scale, scaler, outputs, scaled)

    def _note_loss(self, tensors: object) -> None:
        self.is_clipped = False
        loss = tensors[0] if isinstance(tensors, (tuple, list)) and len(tensors) == 1 else tensors
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not is_measurable(loss):
            return
        known = [(unscaled, scale) for scaled, unscaled, scale in self._scaled if scaled() is loss]
        value, self._recording.loss_scale = known[0] if known else (loss, 1.0)
        if known or not self._scaled:  # else it was made from a scaled one
            self._recording.loss(value)

    def _note_scale(self, scaler: GradScaler, outputs: object, scaled: object) -> None:
        if isinstance(outputs, Tensor) and isinstance(scaled, Tensor) and scaler.is_enabled():
            # sync: only where gradients by outputs are recorded
            scale = scaler.get_scale() if self._gradients else 1.0
            self._scaled.append((ref(scaled), outputs.detach(), scale))
