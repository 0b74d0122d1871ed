"""Make real fits stop in the ways that docs/loop.md lists, and count the events each of them fires."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from actograph.train.events import EVENTS, Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import SkipBatch, SkipStep, StopFit
from actograph.train.step import Supervised
from actograph.train.step_accumulate import Accumulate

DOCUMENT = Path(__file__).parents[2] / "docs" / "loop.md"
NUM_EPOCHS, NUM_TRAIN_BATCHES, NUM_VALID_BATCHES = 2, 2, 1
WINDOW, NUM_WINDOW_BATCHES = 3, 5  # of the second table: a window of three batches and one of two in an epoch
PLAIN, ACCUMULATING = "way to stop", "way to stop, windows of three"  # headers of the two tables
NAMES = [event.__name__ for event in EVENTS]
EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "StopFit": lambda: StopFit("enough"),
    "SkipBatch": SkipBatch,
    "SkipStep": SkipStep,
    "ValueError": lambda: ValueError("broken"),
    "KeyboardInterrupt": KeyboardInterrupt,
}


class Raiser(Callback):
    """Raises once: when the event fires for the first time in the given phase."""

    stage = Stage.SETUP

    def __init__(self, exception: str, event: str, phase: str | None, *, is_last: bool = False) -> None:
        self.exception, self.event, self.phase, self.is_last = exception, event, phase, is_last
        self.is_done = False

    def at(self, loop: Loop, event: str) -> None:
        is_phase = self.phase is None or loop.progress.phase == self.phase
        is_batch = not self.is_last or loop.progress.batch + 1 == loop.progress.num_batches
        if event == self.event and is_phase and is_batch and not self.is_done:
            self.is_done = True
            raise EXCEPTIONS[self.exception]()


class Counting(Callback):
    """Counts the events, after everyone else."""

    stage = Stage.REPORT

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def at(self, loop: Loop, event: str) -> None:
        self.counts[event] += 1


def _forward_to_at(cls: type[Raiser] | type[Counting], name: str) -> None:
    def method(self: Raiser | Counting, loop: Loop) -> None:
        self.at(loop, name)

    setattr(cls, name, method)


for _name in NAMES:
    _forward_to_at(Raiser, _name)
    _forward_to_at(Counting, _name)


def small_loop(*, is_accumulating: bool = False) -> Loop:
    torch.manual_seed(0)
    num_batches = NUM_WINDOW_BATCHES if is_accumulating else NUM_TRAIN_BATCHES
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(num_batches)]
    plain = Supervised(model, nn.functional.mse_loss, optimizer)
    step = Accumulate(plain, optimizer, WINDOW) if is_accumulating else plain
    return Loop(model, optimizer, step, batches, batches[:NUM_VALID_BATCHES])


def table_rows(text: str, title: str) -> dict[str, list[str]]:
    """Return the cells of the stop table with this header by way to stop."""
    lines = text.splitlines()
    header = next(index for index, line in enumerate(lines) if line.startswith(f"| {title} |"))
    assert cells_of(lines[header])[1:] == [*(f"`{name}`" for name in NAMES), "leaves `fit`"]
    rows = {}
    for line in lines[header + 2 :]:
        if not line.startswith("|"):
            break
        way, *cells = cells_of(line)
        rows[way] = cells
    return rows


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def observed(way: str, *, is_accumulating: bool = False) -> list[str]:
    """Stop a real fit in the given way and return the row that the table should have."""
    words = re.findall(r"`(\w+)", way)
    counting = Counting()
    loop = small_loop(is_accumulating=is_accumulating)
    callbacks: list[Callback] = [counting]
    if len(words) > 1:
        phase = "valid" if "valid phase" in way else None
        callbacks.append(Raiser(words[0], words[1], phase, is_last="last batch" in way))
    leaves = "nothing"
    try:
        if words == ["validate"]:
            loop.validate(callbacks)
        else:
            loop.fit(NUM_EPOCHS, callbacks)
    except BaseException as error:
        leaves = f"`{type(error).__name__}`"
    return [*(str(counting.counts[name] or "") for name in NAMES), leaves]


WAYS = [
    "normal end",
    "`validate()`",
    *(f"`StopFit` in `{name}`" for name in NAMES[:-1]),
    *(f"`StopFit` in `{name}`, valid phase" for name in NAMES[2:6]),
    "`StopFit` in `after_batch`, valid phase",
    *(f"`SkipBatch` in `{name}`" for name in SkipBatch.allowed_in),
    "`SkipBatch` in `after_loss`, valid phase",
    *(f"`SkipStep` in `{name}`" for name in SkipStep.allowed_in),
    *(f"`ValueError` in `{name}`" for name in NAMES),
    "`KeyboardInterrupt` in `before_batch`",
    "`KeyboardInterrupt` in `after_step`",
    "`KeyboardInterrupt` in `after_loss`, valid phase",
]

ACCUMULATING_WAYS = [
    "normal end",
    *(f"`StopFit` in `{name}`" for name in ("after_backward", "before_step", "after_step", "after_batch")),
    *(f"`SkipBatch` in `{name}`" for name in SkipBatch.allowed_in),
    *(f"`SkipBatch` in `{name}`, last batch" for name in SkipBatch.allowed_in),
    *(f"`SkipStep` in `{name}`" for name in SkipStep.allowed_in),
    *(f"`SkipStep` in `{name}`, last batch" for name in SkipStep.allowed_in),
    "`ValueError` in `after_backward`",
    "`KeyboardInterrupt` in `after_batch`",
]
TABLES = {PLAIN: WAYS, ACCUMULATING: ACCUMULATING_WAYS}

if __name__ == "__main__":
    for _title, _ways in TABLES.items():
        print("|", _title, "|", " | ".join(f"`{name}`" for name in NAMES), "| leaves `fit` |")
        print("|---" * (len(NAMES) + 2) + "|")
        for _way in _ways:
            print("|", _way, "|", " | ".join(observed(_way, is_accumulating=_title == ACCUMULATING)), "|")
        print()
