"""Rate, momentum and loss of every training batch, and the values of every epoch.

No idea of layers or files: the run log has those.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from actograph.show.series import smoothed
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.momentum import momentum_of
from actograph.train.state import Phase
from actograph.train.waiting import MAX_WAITING

if TYPE_CHECKING:
    import plotly.graph_objects as go

FloatArray: TypeAlias = npt.NDArray[np.float64]


class Recorder(Callback):
    """Keep what happened in training; goes on over several fits.

    Arrays have one entry per training batch that had a loss. Of several parameter groups the last one is recorded.
    """

    stage = Stage.MEASURE
    unique = True

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.epochs: list[dict[str, float]] = []  # per epoch: epoch, step, losses, metrics, time_s
        self._clock = clock
        self._epoch_start = 0.0
        self._steps = array("I")
        self._lrs = array("d")
        self._momentums = array("d")
        self._losses = array("d")
        self._pending: list[torch.Tensor] = []  # 0-d, on the device, not yet fetched

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Optimizer steps made before each batch (n,); equal for batches gathered into one step."""
        return np.array(self._steps, dtype=np.int64)

    @property
    def lrs(self) -> FloatArray:
        """Learning rate of each batch (n,)."""
        return np.array(self._lrs)

    @property
    def momentums(self) -> FloatArray:
        """Momentum, or Adam's beta1, of each batch (n,); NaN where the optimizer has none."""
        return np.array(self._momentums)

    @property
    def losses(self) -> FloatArray:
        """Loss of each batch (n,)."""
        self._fetch()
        return np.array(self._losses)

    @property
    def smooth_losses(self) -> FloatArray:
        """Running mean of the losses (n,), see `show.series.smoothed`."""
        return smoothed(self.losses)

    def before_epoch(self, loop: Loop) -> None:
        """Start the epoch's clock."""
        self._epoch_start = self._clock()

    def after_loss(self, loop: Loop) -> None:
        """Note the batch, leaving the loss on the device."""
        progress = loop.progress
        if progress.phase is not Phase.TRAIN:
            return
        group = loop.optimizer.param_groups[-1]
        momentum = momentum_of(group)
        self._steps.append(progress.step)
        self._lrs.append(group["lr"])
        self._momentums.append(math.nan if momentum is None else momentum)
        self._pending.append(loop.batch.loss.detach())
        if len(self._pending) >= MAX_WAITING:
            self._fetch()

    def after_epoch(self, loop: Loop) -> None:
        """Add the epoch's row."""
        progress = loop.progress
        row = {"epoch": progress.epoch, "step": progress.step, **loop.values}
        self.epochs.append({**row, "time_s": self._clock() - self._epoch_start})

    def cleanup_fit(self, loop: Loop) -> None:
        """Fetch the last losses, so that no tensor of the device is kept."""
        self._fetch()

    def state_dict(self) -> dict[str, Any]:
        """Return what was recorded."""
        self._fetch()
        arrays = {name: torch.from_numpy(np.array(values)) for name, values in self._arrays().items()}
        return {"epochs": [dict(row) for row in self.epochs], **arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.epochs = [dict(row) for row in state["epochs"]]
        self._pending.clear()
        for name, values in self._arrays().items():
            values[:] = array(values.typecode, state[name].tolist())

    def plot_loss(self) -> go.Figure:
        """Draw the raw and the smoothed loss over the steps."""
        from actograph.show import figures  # noqa: PLC0415 - plotly is slow to import

        return figures.loss_curve(self.steps, self.losses, self.smooth_losses)

    def plot_sched(self) -> go.Figure:
        """Draw learning rate and momentum over the steps."""
        from actograph.show import figures  # noqa: PLC0415 - plotly is slow to import

        curves = {"learning rate": self.lrs, "momentum": self.momentums}
        return figures.schedule_curves(self.steps, curves)

    def _arrays(self) -> dict[str, array[Any]]:
        return {
            "steps": self._steps,
            "lrs": self._lrs,
            "momentums": self._momentums,
            "losses": self._losses,
        }

    def _fetch(self) -> None:
        if self._pending:
            self._losses.extend(torch.stack(self._pending).tolist())  # sync: once per block
            self._pending.clear()
