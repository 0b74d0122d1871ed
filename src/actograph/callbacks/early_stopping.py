"""`EarlyStopping`: end the fit when a value has not become better for some epochs.

No idea of how the value is measured: the loop has it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from actograph.callbacks.monitor import Mode, Monitor
from actograph.errors import UsageError
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import StopFit


class EarlyStopping(Callback):
    """Stop after ``patience`` epochs in a row without a better value of ``monitor``; count anew in every fit.

    ``best`` and ``best_epoch`` (counted from 0 in its fit) can be read afterwards.

    Args:
        monitor: a loss or metric, by the name in the epoch's row.
        patience: epochs without a better value that end the fit.
        min_delta: the smallest change that counts as better.
        mode: "min" or "max" for what is better; None: what the name tells.
        restore_best: give the model the weights and buffers of the best epoch when the fit ends (not after an error or
            Ctrl-C); a copy of them is kept on the device until then.

    """

    stage = Stage.CHANGE

    def __init__(
        self,
        monitor: str = "valid_loss",
        patience: int = 3,
        *,
        min_delta: float = 0.0,
        mode: Mode | None = None,
        restore_best: bool = False,
    ) -> None:
        if patience < 1:
            raise UsageError(f"patience={patience}: give the epochs to wait for a better value, at least 1")
        self.monitor = Monitor(monitor, mode, min_delta)
        self.patience = patience
        self.restore_best = restore_best
        self.best = self.monitor.worst
        self.best_epoch: int | None = None
        self.num_bad_epochs = 0
        self._best_state: dict[str, Tensor] = {}

    def before_fit(self, loop: Loop) -> None:
        """Begin to count; refuse a value that no epoch will have."""
        if loop.progress.num_epochs:
            self.monitor.check(loop)
            self.best, self.best_epoch, self.num_bad_epochs = self.monitor.worst, None, 0
            self._best_state = {}

    def after_epoch(self, loop: Loop) -> None:
        """Compare the epoch with the best so far."""
        value = self.monitor.read(loop)
        if value is None:
            return
        if self.monitor.is_better(value, than=self.best):
            self.best, self.best_epoch, self.num_bad_epochs = value, loop.progress.epoch, 0
            if self.restore_best:
                self._best_state = copied_state(loop.model)
            return
        self.num_bad_epochs += 1
        if self.num_bad_epochs >= self.patience:
            raise StopFit(self._reason(value))

    def after_fit(self, loop: Loop) -> None:
        """Give the model its best weights back, if asked to."""
        if self._best_state:
            loop.model.load_state_dict(self._best_state)

    def cleanup_fit(self, loop: Loop) -> None:
        """Let go of the copy."""
        self._best_state = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and epoch, the epochs since, and the copied weights if they are to be restored."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "num_bad_epochs": self.num_bad_epochs,
            "best_state": dict(self._best_state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.num_bad_epochs = state["num_bad_epochs"]
        self._best_state = dict(state["best_state"])

    def _reason(self, value: float) -> str:
        epochs = f"{self.num_bad_epochs} epoch{'s' if self.num_bad_epochs > 1 else ''}"
        if self.best_epoch is None:
            return f"{self.monitor.name} was {value} for {epochs}"
        restored = ", whose weights are restored" if self._best_state else ""
        return (
            f"{self.monitor.name} has not become better for {epochs}: "
            f"best {self.best:.4g} in epoch {self.best_epoch}{restored}"
        )


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's weights and buffers by name, where they are."""
    with torch.no_grad():
        return {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in model.state_dict().items()
        }
