"""What a running loop knows: the batch in work, the counters, and the exceptions that steer it.

No idea of how a batch is computed or who listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import torch

from actograph.errors import UsageError


class Phase(StrEnum):
    """The two halves of an epoch; equal to the strings ``"train"`` and ``"valid"``."""

    TRAIN = "train"
    VALID = "valid"


class Batch:
    """One batch on its way through the loop; every field may be replaced by a callback.

    ``x`` and ``y`` are there from ``before_batch`` on, ``pred`` from ``after_forward``, ``loss`` from ``after_loss``.
    """

    __slots__ = ("_loss", "pred", "x", "y")

    def __init__(self, x: Any, y: Any) -> None:
        self.x: Any = x  # a tensor, or tuples, lists and dicts of tensors
        self.y: Any = y
        self.pred: Any = None
        self._loss: torch.Tensor | None = None

    @property
    def has_loss(self) -> bool:
        """False until the loss is computed: in ``after_batch`` too where the batch was skipped."""
        return self._loss is not None

    @property
    def loss(self) -> torch.Tensor:
        """The scalar loss, a tensor of no dimensions.

        A UsageError on reading before it is computed, and on writing anything but a scalar tensor.
        """
        if self._loss is None:
            raise UsageError("batch.loss was read before it was computed: it is there from after_loss on")
        return self._loss

    @loss.setter
    def loss(self, value: torch.Tensor) -> None:
        if not isinstance(value, torch.Tensor):
            raise UsageError(f"the loss must be a scalar tensor, not {type(value).__name__} ({value!r:.80})")
        if value.ndim:
            raise UsageError(
                f"the loss must be a scalar, but its shape is {tuple(value.shape)}: "
                "reduce it, for example with .mean() or reduction='mean'"
            )
        self._loss = value

    @property
    def size(self) -> int:
        """Number of samples: the length of the first axis of ``y``, else of ``x``; 1 where neither has one."""
        y = self.y
        if isinstance(y, torch.Tensor) and y.ndim:
            return y.shape[0]
        return _length(y) or _length(self.x) or 1


def _length(value: Any) -> int | None:
    """Return the length of the first axis of the first tensor found in nested containers."""
    if isinstance(value, torch.Tensor):
        return value.shape[0] if value.ndim else None
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return next((length for item in value if (length := _length(item)) is not None), None)
    return None


@dataclass(slots=True)
class Progress:
    """Where the loop stands; read by callbacks, written by the loop only."""

    epoch: int = 0  # index of the epoch in this fit
    num_epochs: int = 0  # 0 while validate() runs
    phase: Phase = Phase.TRAIN
    batch: int = 0  # index of the batch in this phase
    num_batches: int | None = None  # of this phase; None: a valid loader without a length
    step: int = 0  # optimizer steps made so far, over all fits
    num_skipped_steps: int = 0  # those due and not made (a scaler's overflow, SkipStep), over all fits
    fraction: float = 0.0  # share of this fit's training batches that lie behind, in [0, 1]
    num_gathered: int = 0  # training batches whose gradients wait for the next step
    dropped_fraction: float = 0.0  # share of this fit's training batches whose step was skipped

    def start_fit(self, num_epochs: int) -> None:
        """Go back to the start of a fit; ``step`` and ``num_skipped_steps`` go on."""
        self.num_epochs = num_epochs
        self.num_gathered, self.dropped_fraction = 0, 0.0
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Stand before the first batch of ``epoch``."""
        self.epoch, self.batch, self.phase = epoch, 0, Phase.TRAIN
        self.fraction = epoch / self.num_epochs if self.num_epochs else 0.0

    def start_phase(self, phase: Phase, num_batches: int | None) -> None:
        """Stand before the first batch of ``phase``."""
        self.phase, self.num_batches, self.batch = phase, num_batches, 0

    def start_batch(self, index: int) -> None:
        """Stand before batch ``index``: the first one of a fit sees the fraction 0, the last one (n - 1) / n."""
        self.batch = index
        if self.phase is Phase.TRAIN and self.num_batches:
            done = index / self.num_batches if index < self.num_batches else 1.0
            self.fraction = (self.epoch + done) / self.num_epochs

    @property
    def schedule_fraction(self) -> float:
        """What schedules are functions of: ``fraction`` without the batches whose step was skipped."""
        return max(self.fraction - self.dropped_fraction, 0.0)

    def end_step(self, *, is_skipped: bool) -> None:
        """Stand behind a window of gathered gradients, whether or not it moved the weights."""
        if is_skipped:
            assert self.num_batches is not None  # of a train phase they are known
            self.num_skipped_steps += 1
            self.dropped_fraction += self.num_gathered / (self.num_batches * self.num_epochs)
        else:
            self.step += 1
        self.num_gathered = 0

    def end_phase(self) -> None:
        """Stand behind the last batch of the phase."""
        if self.phase is Phase.TRAIN:
            self.fraction = (self.epoch + 1) / self.num_epochs

    def __str__(self) -> str:
        return f"epoch {self.epoch} of {self.num_epochs}, {self.phase} batch {self.batch}, step {self.step}"


@dataclass(frozen=True)
class Resume:
    """Where a fit goes on that was saved in its middle, and how what it had is put back.

    ``restore`` is called when everything that begins a fit, or an epoch, has been done again; ``start`` after it gives
    the rest of the train loader's batches.
    """

    epoch: int  # the one to go on with
    num_done: int | None  # batches of it that lie behind; None: it has not begun
    num_epochs: int
    num_batches: int  # of a training epoch
    num_frozen: int  # parameters that require no gradient
    stop_reason: str | None  # the fit had been asked to stop
    restore: Callable[[], None]
    start: Callable[[], Iterator[Any]]

    def check(self, num_epochs: int, num_batches: int, num_frozen: int) -> None:
        """Raise UsageError unless the fit that begins has the shape of the one that was saved."""
        if self.num_frozen != num_frozen:
            raise UsageError(
                f"the checkpoint was saved with {self.num_frozen} parameters frozen, but now {num_frozen} are: "
                "freeze or unfreeze as before, or begin a new fit with load_weights"
            )
        if (self.num_epochs, self.num_batches) != (num_epochs, num_batches):
            raise UsageError(
                f"the checkpoint was saved in a fit of {self.num_epochs} epochs of {self.num_batches} batches, but this "
                f"fit has {num_epochs} of {num_batches}: call the same fit again, or begin a new one with load_weights"
            )


class ControlFlow(Exception):  # noqa: N818 - a request, not an error
    """A request of a callback to the loop.

    It is heard when every callback has seen the event it was raised in, the strongest where several ask.
    """

    allowed_in: ClassVar[tuple[str, ...] | None] = None  # events; None: everywhere but in cleanup_fit
    strength: ClassVar[int] = 0


class StopFit(ControlFlow):
    """End the fit in good order: every scope that was begun still gets its ``after_`` event."""

    strength = 1

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SkipBatch(ControlFlow):
    """Go straight to ``after_batch``: no gradients, no update."""

    allowed_in = ("before_batch", "after_forward", "after_loss")


class SkipStep(ControlFlow):
    """Drop the gradients gathered so far instead of updating the weights with them."""

    allowed_in = ("after_backward", "before_step")
