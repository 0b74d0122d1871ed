"""`Waiting`: numbers that wait on their device, so that training need not, until many come to the host in one copy.

No idea of what the numbers are. Who cannot wait for the copy either gets it the next time.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from actograph.sketch.transit import HostCopy

MAX_WAITING = 64  # let no more wait than these before they are copied

Note = TypeVar("Note")


class _Sent(NamedTuple, Generic[Note]):
    """What is on its way to the host."""

    notes: list[Note]
    sizes: list[int]
    copy: HostCopy


class Waiting(Generic[Note]):
    """Tensors of one device, each with a note that stays on the host.

    >>> waiting = Waiting[str]()
    >>> waiting.add("loss", torch.tensor(0.5))
    >>> waiting.take()
    [('loss', array([0.5]))]
    """

    def __init__(self) -> None:
        self._notes: list[Note] = []
        self._numbers: list[Tensor] = []
        self._sent: deque[_Sent[Note]] = deque()

    def __len__(self) -> int:
        return len(self._notes) + sum(len(sent.notes) for sent in self._sent)

    def add(self, note: Note, numbers: Tensor) -> None:
        """Let a tensor of any shape wait; it must not be changed afterwards."""
        self._notes.append(note)
        self._numbers.append(numbers.detach().reshape(-1))

    def take(self, *, waits: bool = True) -> list[tuple[Note, npt.NDArray[np.float64]]]:
        """Return notes and numbers (n,) in order, and keep none; without ``waits`` only those that have come by now."""
        if self._notes:
            sizes = [len(numbers) for numbers in self._numbers]
            self._sent.append(_Sent(self._notes, sizes, HostCopy(torch.cat(self._numbers))))
            self._notes, self._numbers = [], []
        taken: list[tuple[Note, npt.NDArray[np.float64]]] = []
        while self._sent and (waits or self._sent[0].copy.has_arrived()):
            notes, sizes, copy = self._sent.popleft()
            numbers = copy.wait().astype(np.float64)
            taken += zip(notes, np.split(numbers, np.cumsum(sizes)[:-1]), strict=True)
        return taken
