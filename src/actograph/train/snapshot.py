"""What a fit changes, kept in memory and put back bit for bit.

No idea of files (``checkpoint.py`` has those) or of why training has to be undone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actograph.train.checkpoint import unsaved_buffers
from actograph.train.loop import Loop
from actograph.train.position import (
    State,
    Stateful,
    is_left,
    loader_state,
    random_state,
    set_loader_state,
    set_random_state,
)
from actograph.train.step_wrapper import parameters_of


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Copies, on their devices, of what the later course of a loop depends on between two fits.

    The model's state, the optimizer's, that of the step (a scaler), the place of the train loader, the random states of
    Python, numpy, torch and CUDA. Gradients are not kept: a fit begins without any.
    """

    loop: Loop
    model: Mapping[str, Any]
    buffers: Mapping[str, Tensor]  # those in no state_dict
    others: list[tuple[Tensor, Tensor]]  # parameters of no model (a loss function's), and their values
    optimizer: dict[str, Any]
    step: dict[str, Any] | None  # None: it has no state
    loader: State
    is_loader_left: bool
    random: State

    @classmethod
    def of(cls, loop: Loop) -> Snapshot:
        """Copy everything as it is now."""
        own = set(loop.model.parameters())
        others = [parameter for parameter in parameters_of(loop.optimizer) if parameter not in own]
        return cls(
            loop,
            copy.deepcopy(loop.model.state_dict()),
            copy.deepcopy(unsaved_buffers(loop.model)),
            [(parameter, parameter.detach().clone()) for parameter in others],
            copy.deepcopy(loop.optimizer.state_dict()),
            copy.deepcopy(dict(loop.step.state_dict())) if isinstance(loop.step, Stateful) else None,
            loader_state(loop.train_loader),
            is_left(loop.train_loader, is_open=loop.is_train_open),
            random_state(),
        )

    def restore_learned(self) -> None:
        """Put model, optimizer and step back, and drop all gradients; the loader and the random numbers go on."""
        loop = self.loop
        loop.step.zero()
        loop.model.load_state_dict(self.model)
        buffers = dict(loop.model.named_buffers())
        with torch.no_grad():
            for name, value in self.buffers.items():
                buffers[name].copy_(value)
            for parameter, value in self.others:
                parameter.copy_(value)
        loop.optimizer.load_state_dict(copy.deepcopy(self.optimizer))  # it keeps the tensors it is given
        if self.step is not None:
            assert isinstance(loop.step, Stateful)
            loop.step.load_state_dict(copy.deepcopy(self.step))

    def restore(self) -> None:
        """Put everything back."""
        self.restore_learned()
        set_loader_state(self.loop.train_loader, self.loader)
        if self.is_loader_left:
            iter(self.loop.train_loader)  # the epoch it stands in is not to be gone on with
        set_random_state(self.random)


@contextmanager
def undone(loop: Loop) -> Iterator[Snapshot]:
    """Put everything back in the end, after errors and Ctrl-C too.

    >>> from actograph.testing.callbacks import tiny_loop, weights
    >>> loop = tiny_loop()
    >>> before = weights(loop.model)
    >>> with undone(loop):
    ...     loop.fit(1)
    >>> weights(loop.model) == before
    True
    """
    snapshot = Snapshot.of(loop)
    try:
        yield snapshot
    finally:
        snapshot.restore()
