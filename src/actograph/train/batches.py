"""Turn any iterable of ``(x, y)`` into batches on a device, and count them.

No idea of models or callbacks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from actograph.errors import UsageError
from actograph.train.device import move
from actograph.train.state import Batch, Progress
from actograph.train.step import describe


def length(loader: Iterable[Any]) -> int | None:
    """Return the number of batches, or None where the loader cannot tell."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:  # also raised by a DataLoader over an iterable dataset
        return None


def num_train_batches(loader: Iterable[Any], steps: int | None) -> int:
    """Return the batches of a training epoch: ``steps``, or all that the loader has.

    A UsageError says that the loader is empty, that neither tells, or that ``steps`` asks for more than there are.
    """
    available = length(loader)
    if available == 0:
        raise UsageError(
            "the train loader is empty: it has 0 batches (fewer samples than one batch, with drop_last?)"
        )
    if steps is None:
        if available is None:
            raise UsageError("the train loader has no length: say how many batches make an epoch with steps=")
        return available
    if steps < 1 or (available is not None and steps > available):
        limit = "" if available is None else f" and at most {available}, the batches of the train loader"
        raise UsageError(f"steps must be at least 1{limit}, not {steps}")
    return steps


def batches(
    loader: Iterable[Any], device: torch.device, progress: Progress, limit: int | None, num_done: int = 0
) -> Iterator[Batch]:
    """Yield the batches of a phase, at most ``limit`` with the ``num_done`` before them, keeping ``progress`` up to date.

    A UsageError says that an item is no pair, or that there was no batch at all.
    """
    phase, num_batches = progress.phase, progress.num_batches
    seen = num_done
    for item in islice(loader, None if limit is None else limit - num_done):
        progress.start_batch(seen)
        if not isinstance(item, (tuple, list)) or len(item) != 2:  # noqa: PLR2004 - x and y
            raise UsageError(f"the {phase} loader must give pairs (x, y), but gave {_arity(item)}")
        seen += 1
        yield Batch(move(item[0], device), move(item[1], device))
    if not seen:
        raise UsageError(
            f"the {phase} loader gave no batch in epoch {progress.epoch}: is it used up, or empty?"
        )
    if num_batches not in (None, seen):
        warnings.warn(f"the {phase} loader gave {seen} batches, not {num_batches} as announced", stacklevel=2)


def _arity(item: Any) -> str:
    if isinstance(item, (tuple, list)):
        return f"{len(item)} things: {describe(item)}"
    return describe(item)
