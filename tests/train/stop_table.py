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

DOCUMENT = Path(__file__).parents[2] / "docs" / "loop.md"
NUM_EPOCHS, NUM_TRAIN_BATCHES, NUM_VALID_BATCHES = 2, 2, 1
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

    def __init__(self, exception: str, event: str, phase: str | None) -> None:
        self.exception, self.event, self.phase = exception, event, phase
        self.is_done = False

    def at(self, loop: Loop, event: str) -> None:
        is_phase = self.phase is None or loop.progress.phase == self.phase
        if event == self.event and is_phase and not self.is_done:
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


def small_loop() -> Loop:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(NUM_TRAIN_BATCHES)]
    step = Supervised(model, nn.functional.mse_loss, optimizer)
    return Loop(model, optimizer, step, batches, batches[:NUM_VALID_BATCHES])


def table_rows(text: str) -> dict[str, list[str]]:
    """Return the cells of the stop table by way to stop."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    header = next(index for index, line in enumerate(lines) if line.startswith("| way to stop"))
    assert cells_of(lines[header])[1:] == [*(f"`{name}`" for name in NAMES), "leaves `fit`"]
    rows = {}
    for line in lines[header + 2 :]:
        way, *cells = cells_of(line)
        if len(cells) != len(NAMES) + 1:
            break
        rows[way] = cells
    return rows


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def observed(way: str) -> list[str]:
    """Stop a real fit in the given way and return the row that the table should have."""
    words = re.findall(r"`(\w+)", way)
    counting = Counting()
    loop = small_loop()
    callbacks: list[Callback] = [counting]
    if len(words) > 1:
        callbacks.append(Raiser(words[0], words[1], "valid" if "valid phase" in way else None))
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

if __name__ == "__main__":
    print("| way to stop |", " | ".join(f"`{name}`" for name in NAMES), "| leaves `fit` |")
    print("|---" * (len(NAMES) + 2) + "|")
    for _way in WAYS:
        print("|", _way, "|", " | ".join(observed(_way)), "|")
