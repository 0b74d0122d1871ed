"""Let one of torch's schedulers set the rates: `torch.optim.lr_scheduler`.

No idea of its shape. Schedules of our own are functions of progress: ``callbacks/schedule.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch.optim import lr_scheduler

from actograph.callbacks.monitor import Monitor
from actograph.callbacks.schedule import RateCallback
from actograph.errors import UsageError
from actograph.train.loop import Loop

Per: TypeAlias = Literal["step", "epoch"]
SchedulerFactory: TypeAlias = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


class LRScheduler(RateCallback):
    """Make a scheduler when a fit begins, and advance it after each optimizer step, or after each epoch.

    It is not advanced after a skipped step, nor after an epoch without a step. It begins at the optimizer's own rates,
    which come back after the fit. ``ReduceLROnPlateau`` is given the epoch's value ``monitor``: ``valid_loss`` if none is
    named, or ``train_loss`` where there is no valid loader. With another schedule in the same fit (`fit_one_cycle`,
    `fit(lr=...)`) it is a UsageError.

    >>> halve = LRScheduler(lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5), per="epoch")
    """

    def __init__(self, factory: SchedulerFactory, per: Per = "epoch", monitor: str | None = None) -> None:
        if per not in get_args(Per):
            raise UsageError(f'per is "step" or "epoch", not {per!r}')
        self.factory = factory
        self.per = per
        self.monitor = monitor
        self._scheduler: lr_scheduler.LRScheduler | None = None
        self._has_stepped = False  # in this epoch

    def before_fit(self, loop: Loop) -> None:
        """Make the scheduler, which sets the first rates; ``validate()`` needs none."""
        if not loop.progress.num_epochs:
            return
        self._scheduler, self._has_stepped = self.factory(loop.optimizer), False
        is_plateau = isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau)
        if is_plateau and self.per == "step":
            raise UsageError('ReduceLROnPlateau looks at a value of the epoch: give per="epoch"')
        if self.monitor is not None and not is_plateau:
            raise UsageError(f"{type(self._scheduler).__name__} looks at no value: leave out monitor")
        if is_plateau:
            self._monitored(loop).check(loop)

    def after_step(self, loop: Loop) -> None:
        """Advance by a step."""
        self._has_stepped = True
        if self.per == "step":
            assert self._scheduler is not None  # there are steps in a fit only
            self._scheduler.step()

    def after_epoch(self, loop: Loop) -> None:
        """Advance by an epoch."""
        scheduler, has_stepped = self._scheduler, self._has_stepped
        self._has_stepped = False
        if self.per == "step" or scheduler is None or not has_stepped:
            return
        if not isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step()
        elif (value := self._monitored(loop).read(loop)) is not None:
            scheduler.step(value)

    def cleanup_fit(self, loop: Loop) -> None:
        """Give the optimizer its own rates back."""
        super().cleanup_fit(loop)
        self._scheduler = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scheduler, empty outside of a fit."""
        if self._scheduler is None:
            return {}
        return {"scheduler": self._scheduler.state_dict(), "has_stepped": self._has_stepped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from it, in a fit that has begun."""
        if self._scheduler is not None and state:
            self._scheduler.load_state_dict(state["scheduler"])
            self._has_stepped = state["has_stepped"]

    def _monitored(self, loop: Loop) -> Monitor:
        default = "train_loss" if loop.valid_loader is None else "valid_loss"
        return Monitor(self.monitor or default, mode="min")  # the scheduler itself knows which way is better
