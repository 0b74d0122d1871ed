"""Run calls side by side in processes of their own, or one by one in this one.

No idea of trials. `Executor` is all a study asks of an engine: another one (a cluster) needs the same method.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeAlias, TypeVar

import torch

from actograph.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")
Ended: TypeAlias = Iterator[tuple[Item, Result | BrokenProcessPool]]

SPAWN = "spawn"  # a forked process inherits torch's threads in a state that can hang


class Executor(Protocol):
    """Where calls run."""

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Ended[Item, Result]:
        """Call the function with each item; yield the item and its result, in the order in which they end.

        In place of a result comes the error of a process that died. What the function raises goes through.
        """


class InProcess:
    """One call after the other, in this process, with the threads it has."""

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Ended[Item, Result]:
        """Call the function with each item."""
        for item in items:
            yield item, function(item)


class Processes:
    """Up to ``jobs`` calls side by side, each process with its share of the processor's threads.

    Functions and items must be importable by name, or plain data. A process that dies (for want of memory, say) takes no
    other call with it: those that ran beside it are made again, one by one.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise UsageError(f"jobs is {jobs}; give at least 1")
        self.jobs = jobs

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Ended[Item, Result]:
        """Call the function with each item."""
        waiting, suspects = deque(items), deque[Item]()
        while waiting:
            yield from self._run_until_one_dies(function, waiting, suspects, self.jobs)
        for suspect in list(suspects):
            died = deque[Item]()
            yield from self._run_until_one_dies(function, deque([suspect]), died, 1)
            if died:
                yield suspect, BrokenProcessPool("its process was ended, as when memory runs out")

    def _run_until_one_dies(
        self,
        function: Callable[[Item], Result],
        waiting: deque[Item],
        suspects: deque[Item],
        jobs: int,
    ) -> Ended[Item, Result]:
        """Take items from ``waiting``; those that run when a process dies go to ``suspects``."""
        others = set(multiprocessing.active_children())
        threads = max((os.cpu_count() or 1) // self.jobs, 1)
        pool = ProcessPoolExecutor(
            min(jobs, len(waiting)),
            multiprocessing.get_context(SPAWN),
            initializer=_begin_worker,
            initargs=(threads,),
        )
        running: dict[Future[Result], Item] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    item = waiting.popleft()
                    running[pool.submit(function, item)] = item
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            suspects.extend(running.values())
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # Ctrl-C ends the study now, not when its trials are done
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker(num_threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that began the study ends this one
    torch.set_num_threads(num_threads)


def executor_for(jobs: int | None) -> Executor:
    """Return where trials run: ``jobs`` at a time, None for as many as there are cores; one runs in this process."""
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    return Processes(jobs) if jobs != 1 else InProcess()
