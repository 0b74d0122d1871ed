"""Loaders: what a training reads, and batches of tensors that are in memory already.

No idea of files or of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from actograph.data.checks import check_batch_size, check_seed
from actograph.data.normalization import Normalization
from actograph.errors import UsageError

Batch: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Loaders:
    """A train and a valid iterable of (x, y), and what is known of the data.

    ``valid`` may be None. ``input_size`` is the shape of one sample, without the batch axis. ``normalization``
    is what was done to the values of x, and has to be done to new ones before a prediction.
    """

    train: Iterable[Batch]
    valid: Iterable[Batch] | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    input_size: tuple[int, ...] | None = None
    normalization: Normalization | None = None


class TensorLoader:
    """Batches of tensors in memory, in a new random order every epoch if ``shuffle``.

    x: (samples, ...), y: (samples, ...). An epoch is one shuffled copy of both, cut into slices: faster than
    picking every batch's samples one by one, for twice the memory. Batches are safe to change in place. The
    order depends on ``seed`` and `epoch` alone, not on what happened before, and torch's global random state
    is not touched. Every ``iter()`` begins the next epoch; set `epoch` to go on from, or repeat, another.

    Raises UsageError for lengths that differ, no samples, or a batch size or seed that cannot be used.

    >>> loader = TensorLoader(torch.arange(5.0), torch.arange(5), batch_size=2)
    >>> [y.tolist() for _, y in loader], len(loader)
    ([[0, 1], [2, 3], [4]], 3)
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int = 64,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        check_batch_size(batch_size)
        check_seed(seed)
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise UsageError(
                f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; give one y for every x, samples first"
            )
        if len(x) == 0:
            raise UsageError("x and y hold no samples; give at least one")
        if drop_last and len(x) < batch_size:
            raise UsageError(
                f"drop_last leaves no batch: {len(x)} samples are fewer than batch_size {batch_size}; "
                "give a smaller batch_size"
            )
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(len(self.x), self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1

    def __iter__(self) -> Iterator[Batch]:
        """Begin the next epoch."""
        order = self._order(self.epoch)
        self.epoch += 1
        return self._batches(order)

    def _batches(self, order: Tensor | None) -> Iterator[Batch]:
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        if order is None:
            for start in starts:
                part = slice(start, start + self.batch_size)
                yield self.x[part].clone(), self.y[part].clone()
            return
        x, y = self.x[order.to(self.x.device)], self.y[order.to(self.y.device)]
        for start in starts:
            part = slice(start, start + self.batch_size)
            yield x[part], y[part]

    def _order(self, epoch: int) -> Tensor | None:
        """Return a permutation of the samples; SeedSequence mixes seed and epoch into one independent seed."""
        if not self.shuffle:
            return None
        mixed = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        return torch.randperm(len(self.x), generator=torch.Generator().manual_seed(int(mixed[0])))
