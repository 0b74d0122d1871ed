"""Loaders: what a training reads, and batches of tensors that are in memory already.

No idea of files or of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from actograph.data.augment import Transform
from actograph.data.checks import check_batch_size, check_seed
from actograph.data.normalization import Normalization
from actograph.errors import UsageError

Batch: TypeAlias = tuple[Tensor, Tensor]
LoaderState: TypeAlias = dict[str, int | bool]

# Samples picked at once. From 1 to 4 MiB a batch of 64 digits takes 53 us, picked one by one 64, in one copy 57.
CHUNK_BYTES = 2 * 1024**2
ORDER_STREAM, TRANSFORM_STREAM = 0, 1  # independent random numbers of one epoch


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

    x: (samples, ...), y: (samples, ...), on any device and of any dtype; batches keep both. Samples are picked
    some batches at a time and cut into slices, faster than batch by batch, for 2 MiB of memory. Batches are
    safe to change in place. ``transform(x, generator)`` gives the x of a batch another look (see ``augment``).
    Order and transform depend on ``seed``, `epoch` and the batch alone, not on what happened before, and
    torch's global random state is not touched. Every ``iter()`` begins the next epoch; set `epoch` to go on
    from, or repeat, another.

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
        transform: Transform | None = None,
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
        if transform is not None and not callable(transform):
            raise UsageError(
                f"transform is {transform!r}; give a function of (x, generator), or a Compose of them"
            )
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.transform = transform
        self._next = _Position()
        self._current: _Position | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next ``iter()`` begins, or goes on with after `load_state_dict`."""
        return self._next.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._next, self._current = _Position(epoch), None

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""
        whole, rest = divmod(len(self.x), self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1

    def __iter__(self) -> Iterator[Batch]:
        """Begin the next epoch, or the rest of the one that was loaded."""
        self._current, self._next = self._next, _Position(self._next.epoch + 1)
        return self._batches(self._current)

    def state_dict(self) -> LoaderState:
        """Return where the newest iterator stands: after k batches of an epoch, or before the next epoch.

        As with torchdata's StatefulDataLoader an iterator that gave its last batch, but was not asked for
        one more, still stands in its epoch: loaded from there, the next ``iter()`` gives no batch.
        """
        position = self._current or self._next
        return {"epoch": position.epoch, "batch": position.batch, **self._identity()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Make the next ``iter()`` go on after the k batches of ``state``; the epochs after it follow.

        Raises UsageError, and stays as it is, for a state of a loader that would give other batches.
        """
        position = _Position(_count(state, "epoch"), _count(state, "batch"))
        for name, own in self._identity().items():
            if state.get(name) != own:
                raise UsageError(
                    f"the state is of a loader with {name} {state.get(name)!r}, but this one has {own!r}; "
                    "make the loader as it was when the state was saved"
                )
        if position.batch > len(self):
            raise UsageError(f"the state stands after batch {position.batch}, but an epoch has {len(self)}")
        self._next, self._current = position, None

    def _identity(self) -> LoaderState:
        return {
            "samples": len(self.x),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "seed": self.seed,
        }

    def _batches(self, position: _Position) -> Iterator[Batch]:
        batches = self._shuffled(position) if self.shuffle else self._in_order(position)
        for x, y in self._transformed(batches, position) if self.transform is not None else batches:
            position.batch += 1
            yield x, y
        if self._current is position:
            self._current = None

    def _in_order(self, position: _Position) -> Iterator[Batch]:
        for batch in range(position.batch, len(self)):
            part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            yield self.x[part].clone(), self.y[part].clone()

    def _shuffled(self, position: _Position) -> Iterator[Batch]:
        (seed,) = self._seeds(position.epoch, ORDER_STREAM, 1)
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        order, chunk = order[: len(self) * self.batch_size], self._chunk()
        for_x, for_y = order.to(self.x.device), order.to(self.y.device)
        for start in range(position.batch * self.batch_size, len(order), chunk):
            x, y = self.x[for_x[start : start + chunk]], self.y[for_y[start : start + chunk]]
            for first in range(0, len(x), self.batch_size):
                part = slice(first, first + self.batch_size)
                yield x[part], y[part]

    def _chunk(self) -> int:
        """Return how many samples to pick at once: whole batches of about CHUNK_BYTES, at least one."""
        batch_bytes = self.batch_size * max(self.x[0].nbytes + self.y[0].nbytes, 1)
        return max(CHUNK_BYTES // batch_bytes, 1) * self.batch_size

    def _transformed(self, batches: Iterator[Batch], position: _Position) -> Iterator[Batch]:
        assert self.transform is not None
        generator = torch.Generator(self.x.device)
        seeds = self._seeds(position.epoch, TRANSFORM_STREAM, len(self))
        for x, y in batches:
            changed = self.transform(x, generator.manual_seed(seeds[position.batch]))
            if not isinstance(changed, Tensor) or len(changed) != len(y):
                got = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
                raise UsageError(
                    f"transform made {got} of a batch of shape {tuple(x.shape)}; it has to keep the samples"
                )
            yield changed, y

    def _seeds(self, epoch: int, stream: int, count: int) -> list[int]:
        """Return independent seeds for this epoch: SeedSequence mixes what it is given."""
        mixed = np.random.SeedSequence([self.seed, epoch, stream]).generate_state(count, np.uint64)
        return [int(seed) for seed in mixed]


@dataclass(slots=True)
class _Position:
    """After ``batch`` batches of ``epoch``."""

    epoch: int = 0
    batch: int = 0


def _count(state: Mapping[str, object], name: str) -> int:
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"the state has {name} {value!r}; give what state_dict() of a TensorLoader returned")
    return value
