"""`CSVLog`: one row per epoch in a file that can be read while training goes on.

No idea of where the values come from: the loop has them.
"""

from __future__ import annotations

import csv
import io
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from actograph.errors import UsageError
from actograph.train.distributed import this_rank
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop

FIRST_COLUMNS = ("epoch", "step", "time_s", "lr", "train_loss")  # of every log


class CSVLog(Callback):
    """Append each epoch to ``path``: epoch, optimizer steps so far, seconds it took, rate, losses and metrics.

    A file that is there is gone on with, so later and resumed fits follow in the same table (a fit that goes on from an
    earlier checkpoint says its epochs again). A value that turns up later gets a column at the end: the file is then
    replaced at once by one with the wider head. A UsageError before the fit says that the file cannot be written or
    is none of these. If writing fails during the fit, a warning says so and the fit goes on.
    """

    stage = Stage.REPORT

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.perf_counter) -> None:
        self.path = Path(path)
        self._clock = clock
        self._epoch_start = 0.0
        self._columns: list[str] = []  # empty while nothing is to be written

    def before_fit(self, loop: Loop) -> None:
        """Begin the file with its head, or go on with what is there."""
        self._columns = []
        if not loop.progress.num_epochs or not this_rank().is_main:
            return
        try:
            rows = read_rows(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._columns = rows[0] if rows else list(FIRST_COLUMNS)
            if not rows or not _ends_with_a_line(self.path):
                replace_rows(self.path, rows or [self._columns])
            with self.path.open("a"):  # may it be written?
                pass
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.path} ({error.strerror}): give CSVLog another path"
            ) from error

    def before_epoch(self, loop: Loop) -> None:
        """Start the epoch's clock."""
        self._epoch_start = self._clock()

    def after_epoch(self, loop: Loop) -> None:
        """Append the epoch's row."""
        values: dict[str, float] = {
            "epoch": loop.progress.epoch,
            "step": loop.progress.step,
            "time_s": round(self._clock() - self._epoch_start, 3),
            "lr": loop.optimizer.param_groups[-1]["lr"],
            **loop.values,
        }
        if not self._columns:
            return
        try:
            self._append(values)
        except OSError as error:
            warnings.warn(
                f"the log {self.path} ends here ({error.strerror}): the fit goes on without it", stacklevel=2
            )
            self._columns = []

    def _append(self, values: Mapping[str, float]) -> None:
        new = [name for name in values if name not in self._columns]
        if new or not self.path.exists():
            self._columns = [*self._columns, *new]
            replace_rows(self.path, [self._columns, *read_rows(self.path)[1:]])
        row = [str(values.get(name, "")) for name in self._columns]
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(_lines([row]))


def read_rows(path: Path) -> list[list[str]]:
    """Return head and rows of a log; nothing where there is no file, or an empty one. A last line cut short is left out.

    A UsageError says that the file is no log of ours.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.reader(line for line in file if line.endswith("\n")))
    if not rows or tuple(rows[0][: len(FIRST_COLUMNS)]) != FIRST_COLUMNS:
        raise UsageError(f"{path} holds something else than a CSVLog: give a path where there is no file yet")
    return rows


def replace_rows(path: Path, rows: Iterable[Iterable[str]]) -> None:
    """Write a file that takes the place of ``path`` at once: readers see the old one or the new one."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(_lines(rows), encoding="utf-8", newline="")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _lines(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _ends_with_a_line(path: Path) -> bool:
    return path.read_bytes().endswith(b"\n")
