"""Tell how training goes: a row per epoch, and a line about what is going on.

No idea of where the values come from: the loop has them; nor of where they are shown: ``screens.py``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rich.console import Console

from actograph.callbacks.screens import Screen, screen_for
from actograph.train.distributed import this_rank
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Phase

_SMALL, _LARGE = 1e-3, 1e4  # numbers between them are shown with four decimals, others as powers of ten


class Progress(Callback):
    """Show a table with one row per epoch, and a line with batch, loss, rate and time left.

    On a terminal and in a notebook the line is drawn anew a few times a second; in a file or a pipe there is one a minute.
    Of several processes that train together rank 0 shows it.
    """

    stage = Stage.REPORT
    unique = True

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._console = console
        self._clock = clock
        self._screen: Screen | None = None  # while a fit runs
        self._fit_start: tuple[float, float] | None = None  # time, and share of the fit that lay behind
        self._epoch_start = 0.0
        self._next_line = 0.0

    def before_fit(self, loop: Loop) -> None:
        """Find out where to show it; ``validate()`` has no epochs to show."""
        self._fit_start = None
        if loop.progress.num_epochs and this_rank().is_main:
            self._screen = screen_for(self._console or Console())

    def before_epoch(self, loop: Loop) -> None:
        """Start the clocks."""
        self._epoch_start = self._clock()
        if self._fit_start is None:
            self._fit_start = self._epoch_start, loop.progress.fraction
        if self._screen is not None:
            self._next_line = self._epoch_start + self._screen.refresh_s

    def after_batch(self, loop: Loop) -> None:
        """Show the line, if it is time."""
        if self._screen is None or (now := self._clock()) < self._next_line:
            return
        self._screen.line(live_line(loop, self._left_s(loop, now)))
        self._next_line = now + self._screen.refresh_s

    def after_epoch(self, loop: Loop) -> None:
        """Show the epoch's row."""
        if self._screen is not None:
            cells = {name: number(value) for name, value in loop.values.items()}
            time_s = self._clock() - self._epoch_start
            self._screen.row({"epoch": str(loop.progress.epoch), **cells, "time": duration(time_s)})

    def after_fit(self, loop: Loop) -> None:
        """Say why the fit ended early, if it did."""
        if self._screen is not None and loop.stop_reason is not None:
            self._screen.note(f"stopped: {loop.stop_reason}")

    def cleanup_fit(self, loop: Loop) -> None:
        """Take the line away."""
        if self._screen is not None:
            self._screen.close()
            self._screen = None

    def _left_s(self, loop: Loop, now: float) -> float | None:
        """Return how long the rest will take at the pace so far; None while nothing is done."""
        began, fraction_then = self._fit_start or (now, 0.0)
        done = loop.progress.fraction - fraction_then
        return (now - began) * (1 - loop.progress.fraction) / done if done > 0 else None


def live_line(loop: Loop, left_s: float | None) -> str:
    """Return epoch, batch, loss, rate and time left in one line."""
    progress = loop.progress
    total = "?" if progress.num_batches is None else progress.num_batches
    parts = [
        f"epoch {progress.epoch + 1}/{progress.num_epochs}",
        f"{progress.phase} {progress.batch + 1}/{total}",
    ]
    mean = loop.train_loss if progress.phase is Phase.TRAIN else loop.valid_loss
    parts.append(f"loss {number(mean.compute())}")  # sync: at the pace of the screen
    parts.append(f"lr {loop.optimizer.param_groups[-1]['lr']:.3g}")
    if left_s is not None:
        parts.append(f"{duration(left_s)} left")
    return "  ".join(parts)


def number(value: float) -> str:
    """Return a loss or a metric with four decimals, or as a power of ten where these would say nothing.

    >>> number(0.98765), number(0.0), number(2.5e-5)
    ('0.9877', '0.0000', '2.500e-05')
    """
    is_plain = value == 0 or _SMALL <= abs(value) < _LARGE or not math.isfinite(value)
    return f"{value:.4f}" if is_plain else f"{value:.3e}"


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
