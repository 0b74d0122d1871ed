"""How far a study is, and how long it will take: a bar on a terminal, lines elsewhere.

No idea of what the trials measure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from actograph.study.study import OnOutcome
from actograph.study.trial import Outcome

LINES = 10  # in a file, where a bar cannot be drawn


@contextmanager
def progress_of(name: str, console: Console) -> Iterator[OnOutcome]:
    """Show the progress of a study until the block is left; yields what to tell of each trial that ends."""
    if console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(name, total=None, variant="")

            def advance(done: int, total: int, outcome: Outcome) -> None:
                bar.update(task, completed=done, total=total, variant=outcome.trial.variant)

            yield advance
        return
    told = 0

    def tell(done: int, total: int, outcome: Outcome) -> None:
        nonlocal told
        if done * LINES // total > told or done == total:
            told = done * LINES // total
            console.print(Text(f"{name}: {done} of {total} trials"), soft_wrap=True)

    yield tell


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[variant]}"),
        console=console,
        transient=True,
    )
