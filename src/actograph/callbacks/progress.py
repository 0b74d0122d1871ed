"""Tell how training goes: a live line on a terminal, a row per epoch everywhere.

No idea of where the values come from: the loop has them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Phase

_REFRESH_S = 0.25  # between two drawings of the live line; each waits for the device
_WIDTH = 12  # of a column, in characters


class Progress(Callback):
    """Print a table with one row per epoch; on a terminal, also keep a line with batch, loss, rate and time left."""

    stage = Stage.REPORT
    unique = True

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._given_console = console
        self._clock = clock
        self._console = Console()
        self._live: Live | None = None
        self._fit_start = 0.0
        self._epoch_start = 0.0
        self._next_refresh = 0.0

    def before_fit(self, loop: Loop) -> None:
        """Print the table's head and start the live line."""
        self._console = self._given_console or Console()
        self._fit_start = self._next_refresh = self._clock()
        if not loop.progress.num_epochs:
            return  # validate() has no epochs to print
        self._print("".join(f"{name:>{_WIDTH}}" for name in ("epoch", *columns(loop), "time")))
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def before_epoch(self, loop: Loop) -> None:
        """Start the epoch's clock."""
        self._epoch_start = self._clock()

    def after_batch(self, loop: Loop) -> None:
        """Redraw the live line, if it is time."""
        if self._live is None or (now := self._clock()) < self._next_refresh:
            return
        self._live.update(Text(live_line(loop, now - self._fit_start)), refresh=True)
        self._next_refresh = now + _REFRESH_S

    def after_epoch(self, loop: Loop) -> None:
        """Print the epoch's row."""
        values = loop.values
        cells = [str(loop.progress.epoch)]
        cells += [f"{values[name]:.4f}" if name in values else "-" for name in columns(loop)]
        cells.append(duration(self._clock() - self._epoch_start))
        self._print("".join(f"{cell:>{_WIDTH}}" for cell in cells))

    def after_fit(self, loop: Loop) -> None:
        """Say why the fit ended early, if it did."""
        if loop.stop_reason is not None:
            self._print(f"stopped: {loop.stop_reason}")

    def cleanup_fit(self, loop: Loop) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


def columns(loop: Loop) -> tuple[str, ...]:
    """Return the names of the values an epoch can have."""
    if loop.valid_loader is None:
        return ("train_loss",)
    return ("train_loss", "valid_loss", *loop.metrics)


def live_line(loop: Loop, elapsed_s: float) -> str:
    """Return epoch, batch, loss, rate and time left in one line."""
    progress = loop.progress
    total = "?" if progress.num_batches is None else progress.num_batches
    parts = [
        f"epoch {progress.epoch + 1}/{progress.num_epochs}",
        f"{progress.phase} {progress.batch + 1}/{total}",
    ]
    mean = loop.train_loss if progress.phase is Phase.TRAIN else loop.valid_loss
    parts.append(f"loss {mean.compute():.4f}")  # sync: at the pace of the live line
    parts.append(f"lr {loop.optimizer.param_groups[-1]['lr']:.3g}")
    if progress.fraction > 0:
        left_s = elapsed_s * (1 - progress.fraction) / progress.fraction
        parts.append(f"{duration(left_s)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds in words.

    >>> duration(3.21), duration(125), duration(7384)
    ('3.2 s', '2:05', '2:03:04')
    """
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, whole_s = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_s:02}" if hours else f"{minutes}:{whole_s:02}"
