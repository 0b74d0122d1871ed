"""Run calls side by side in processes of their own, or one by one in this one.

No idea of trials. `Executor` is all a study asks of an engine: another one (a cluster) needs the same method.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from multiprocessing.process import BaseProcess
from typing import Protocol, TypeAlias, TypeVar

from actograph.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")
Ended: TypeAlias = Iterator[tuple[Item, Result | BrokenProcessPool]]

DIED = (
    "its process was ended, as when memory runs out, or could not begin: a script that runs a study needs "
    "if __name__ == '__main__'"
)
SPAWN = "spawn"  # a forked process inherits torch's threads in a state that can hang


class Executor(Protocol):
    """Where calls run."""

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Ended[Item, Result]:
        """Call the function with each item; yield the item and its result, in the order in which they end.

        In place of a result comes the error of a process that died. What the function raises goes through.
        """


class InProcess:
    """One call after the other, in this process."""

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Ended[Item, Result]:
        """Call the function with each item."""
        for item in items:
            yield item, function(item)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Do nothing: there is nothing to end."""


class Processes:
    """Up to ``jobs`` calls side by side, in processes that are kept for the next run until `close`.

    Functions and items must be importable by name, or plain data. A process that dies (for want of memory, say) takes no
    other call with it: those that ran beside it are made again, one by one. Use as a context manager.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise UsageError(f"jobs is {jobs}; give at least 1")
        self.jobs = jobs
        self._pool: ProcessPoolExecutor | None = None
        self._workers: set[BaseProcess] = set()

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Ended[Item, Result]:
        """Call the function with each item."""
        waiting, suspects = deque(items), list[Item]()
        while waiting:
            suspects += yield from self._run_until_one_dies(function, waiting, self.jobs)
        for suspect in suspects:
            if (yield from self._run_until_one_dies(function, deque([suspect]), 1)):
                yield suspect, BrokenProcessPool(DIED)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()

    def _run_until_one_dies(
        self, function: Callable[[Item], Result], waiting: deque[Item], jobs: int
    ) -> Generator[tuple[Item, Result], None, list[Item]]:
        """Take items from ``waiting`` and yield their results; return those that ran when a process died."""
        running: dict[Future[Result], Item] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running[self._submit(function, waiting[0])] = waiting[0]
                    waiting.popleft()  # now, for a pool that breaks takes nothing
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            self.close()
            return list(running.values())
        except BaseException:
            for process in self._workers:
                process.terminate()  # Ctrl-C ends what runs now, not when it is done
            self.close()
            raise
        return []

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.jobs, multiprocessing.get_context(SPAWN), initializer=_ignore_interrupt
            )
            self._workers = set()
        others = set(multiprocessing.active_children())
        future = self._pool.submit(function, item)  # starts a process where one more is needed
        self._workers |= set(multiprocessing.active_children()) - others
        return future


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that began the study ends this one


def executor_for(jobs: int | None) -> AbstractContextManager[Executor]:
    """Return where trials run: ``jobs`` at a time, None for as many as there are cores; one runs in this process."""
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    return Processes(jobs) if jobs != 1 else InProcess()
