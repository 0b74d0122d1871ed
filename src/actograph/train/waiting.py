"""`Waiting`: numbers that wait on their device, so that training need not, until many come to the host in one copy.

No idea of what the numbers are.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MAX_WAITING = 64  # let no more wait than these: each copy waits for the device

Note = TypeVar("Note")


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

    def __len__(self) -> int:
        return len(self._notes)

    def add(self, note: Note, numbers: Tensor) -> None:
        """Let a tensor of any shape wait; it must not be changed afterwards."""
        self._notes.append(note)
        self._numbers.append(numbers.detach().reshape(-1))

    def take(self) -> list[tuple[Note, npt.NDArray[np.float64]]]:
        """Return notes and numbers (n,) in order, and keep none."""
        if not self._notes:
            return []
        notes, numbers = self._notes, self._numbers
        self._notes, self._numbers = [], []
        on_host = torch.cat(numbers).cpu().double().numpy()  # sync: once for all that waited
        ends = np.cumsum([len(one) for one in numbers])
        return list(zip(notes, np.split(on_host, ends[:-1]), strict=True))
