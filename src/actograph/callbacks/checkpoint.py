"""`Checkpoint`: save the fit while it runs, so that it can go on after a crash; and keep its best epoch.

No idea of what a checkpoint holds: ``train/checkpoint.py`` has that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actograph.callbacks.monitor import Mode, Monitor
from actograph.errors import UsageError
from actograph.train.checkpoint import save_checkpoint
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.position import check_replayable
from actograph.train.state import Phase

LAST, BEST = "last.ckpt", "best.ckpt"


class Checkpoint(Callback):
    """Save ``last.ckpt`` after every epoch and ``best.ckpt`` after the best one; each replaces the one before, whole.

    After a crash ``learn.load_checkpoint(directory / "last.ckpt")`` and the same fit again go on from there.

    Args:
        directory: where the files go; made when the first is saved.
        monitor: the loss or metric that says which epoch is best; None: ``valid_loss``, or ``train_loss`` where there is no
            valid loader.
        mode: "min" or "max" for what is better; None: what the name tells.
        last: save ``last.ckpt``.
        best: save ``best.ckpt``.
        every_steps: save ``last.ckpt`` after so many optimizer steps as well, for long epochs.
        keep_epochs: keep ``epoch<number>.ckpt`` of every so many epochs, counted from 1.

    Raises:
        UsageError: nothing is to be saved, or a number below 1; at the fit's beginning: no epoch will have the monitored
            value, or the train loader cannot be brought to the same place again.

    """

    stage = Stage.SAVE

    def __init__(
        self,
        directory: Path | str,
        monitor: str | None = None,
        *,
        mode: Mode | None = None,
        last: bool = True,
        best: bool = True,
        every_steps: int | None = None,
        keep_epochs: int | None = None,
    ) -> None:
        for name, number in (("every_steps", every_steps), ("keep_epochs", keep_epochs)):
            if number is not None and number < 1:
                raise UsageError(f"{name} is {number}; give at least 1, or None")
        if every_steps is not None and not last:
            raise UsageError(
                "every_steps says when last.ckpt is saved, but last is False: leave one of them out"
            )
        if not (last or best or keep_epochs):
            raise UsageError("nothing is to be saved: leave last or best True, or give keep_epochs")
        self.directory = Path(directory)
        self.monitor = None if monitor is None else Monitor(monitor, mode)
        self.last = last
        self.best = best
        self.every_steps = every_steps
        self.keep_epochs = keep_epochs
        self.best_value: float | None = None
        self._saved_step = 0

    def before_fit(self, loop: Loop) -> None:
        """Refuse what can be told now, not after hours."""
        if not loop.progress.num_epochs:
            return
        check_replayable(loop.train_loader)
        if self.best:
            self._monitor(loop).check(loop)
        self._saved_step = loop.progress.step

    def after_batch(self, loop: Loop) -> None:
        """Save the last state, if it is time."""
        progress = loop.progress
        if self.every_steps is None or progress.phase is not Phase.TRAIN or progress.num_gathered:
            return
        if progress.step - self._saved_step >= self.every_steps:
            self._saved_step = progress.step
            save_checkpoint(loop, self.directory / LAST)

    def after_epoch(self, loop: Loop) -> None:
        """Save the last state, the best one, and those to keep."""
        number = loop.progress.epoch + 1
        names = [f"epoch{number}.ckpt"] if self.keep_epochs and number % self.keep_epochs == 0 else []
        if self.best and self._is_best(loop):
            names.append(BEST)
        for name in [*names, LAST] if self.last else names:
            save_checkpoint(loop, self.directory / name)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far and when the last state was saved."""
        return {"best_value": self.best_value, "saved_step": self._saved_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.best_value, self._saved_step = state["best_value"], state["saved_step"]

    def _is_best(self, loop: Loop) -> bool:
        monitor = self._monitor(loop)
        value = monitor.read(loop)
        if value is None:
            return False
        best = monitor.worst if self.best_value is None else self.best_value
        if not monitor.is_better(value, than=best):
            return False
        self.best_value = value
        return True

    def _monitor(self, loop: Loop) -> Monitor:
        if self.monitor is not None:
            return self.monitor
        return Monitor("train_loss" if loop.valid_loader is None else "valid_loss")
