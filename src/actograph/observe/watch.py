"""`watch`: record a hand-written training loop.

No idea of rows or files. The models and optimizers are those that are given; losses, loss scales and clipping are seen at
the patch points, where nobody says them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from actograph.errors import RunNotFoundError, UsageError
from actograph.hooks.functional import AUTO, Functional, check_functional
from actograph.hooks.leaves import Select
from actograph.observe.backward import BackwardListener
from actograph.observe.patches import patched
from actograph.recording.new_run import MEMORY, free_directory, new_run
from actograph.recording.pacing import check_budget
from actograph.recording.recording import Recording, check_unattached, recordings_of
from actograph.runlog.reader import read_run
from actograph.train.device import device_of

Optimizer = torch.optim.Optimizer


def watch(
    model: nn.Module | Sequence[nn.Module],
    optimizer: Optimizer | Sequence[Optimizer],
    out: str | Path | None = None,
    *,
    name: str | None = None,
    select: Select | None = None,
    budget: float | None = 0.03,
    grad: bool = False,
    gradients: bool = False,
    functional: Functional = AUTO,
) -> Recording:
    """Record the model's layers at every optimizer step until the returned recording is closed.

    The loss is the number whose ``backward`` is called after a training forward of the model; say `Recording.loss` where
    that is not the one you mean. What torch's clip functions leave of the gradients and what a `GradScaler` multiplies the
    loss with is seen as well. Where you clip or scale by yourself, call `Recording.gradients` when the gradients are
    complete, unscaled and not clipped, and set `Recording.loss_scale`. What nobody can see is yours to say:
    `Recording.phase` ("train", "valid") and scalars, with `Recording.step`. Processes that train together record into one
    directory, each into a file of its own; call this in all of them.

    Called again for a model whose recording is still open, as when a notebook's cell is run twice, it closes that one and
    begins anew, with a warning. A recording that is used as a context manager stays open: such ones may be nested.

    Args:
        model: any module, or several; their leaf modules are recorded.
        optimizer: its ``step()`` ends a step; of several, the first one's does.
        out: run directory; None makes ``runs/<date>-<time>-<name>``, ":memory:" keeps the run in memory.
        name: what to call the run; the model's class when None.
        select: which layers: a pattern on names, a module class, a predicate (name, module), or a list of these.
        budget: share of the step time that recording may take, its first second not counted; steps are thinned evenly to
            keep it. None: every step.
        grad: whether to record the gradients by the layers' outputs too.
        gradients: whether to record the optimizer's parameters: their gradients, weights and updates.
        functional: whether to record activations called as functions (``F.relu``), which slows each call of torch in the
            forward by some microseconds; "auto" does if the first training forward has some.

    Raises:
        UsageError: the folder holds a run already, ``select`` matches no layer, an option is none of those named, or nothing
            was given.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with watch(model, optimizer, out=":memory:", budget=None) as recording:
    ...     for _ in range(3):
    ...         loss = model(torch.ones(16, 4)).square().mean()
    ...         loss.backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    >>> recording.view().column("mean").shape  # steps, layers
    (3, 3)
    >>> len(recording.view().scalar("loss"))
    3

    """
    models = [model] if isinstance(model, nn.Module) else list(model)
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    if not models or not optimizers:
        raise UsageError(
            f"watch() was given {len(models)} models and {len(optimizers)} optimizers: it needs one of each at least"
        )
    for one in models:
        check_unattached(one)
    check_budget(budget)
    check_functional(functional)
    closed = _close_open_ones(models)
    writer = new_run(
        name or type(models[0]).__name__.lower(),
        _own_directory(out, closed),
        device=str(device_of(models[0])),
    )
    recording = Recording(writer, select=select, budget=budget, grad=grad, functional=functional)
    try:
        for one in models:
            recording.attach(one)
    except Exception:
        recording.detach()
        writer.discard()
        raise
    for each in optimizers:
        recording.optimizer(each, gradients=gradients)
    recording.is_watching = True
    listener = _Listener(recording, gradients=grad)
    recording.undo.enter_context(patched(listener))
    for each in optimizers:
        recording.undo.callback(each.register_step_post_hook(lambda *_: listener.forget()).remove)
    return recording


class _Listener(BackwardListener):
    """Listens between a forward of the watched models and the end of the step, and lets errors out."""

    def __init__(self, recording: Recording, *, gradients: bool) -> None:
        def while_open(action: Callable[..., None], *args: object) -> None:
            if recording.has_forward or not torch.is_grad_enabled():
                action(*args)

        super().__init__(recording, while_open, gradients=gradients)


def _close_open_ones(models: Sequence[nn.Module]) -> list[Path]:
    """Close recordings of these models that nobody else is going to close; return their directories."""
    closed = []
    for recording in {id(one): one for model in models for one in recordings_of(model)}.values():
        if recording.is_watching and not recording.is_scoped:
            recording.close("stopped")
            closed += [] if recording.path is None else [recording.path]
            where = "in memory" if recording.path is None else f"in {recording.path}"
            warnings.warn(
                f"this model was being recorded already ({where}, {recording.num_steps} steps): that recording is closed, "
                "and a new one begins; call close() on a recording when its training is over",
                UserWarning,
                stacklevel=3,
            )
    return closed


def _own_directory(out: str | Path | None, closed: Sequence[Path]) -> str | Path | None:
    """Return ``out``, or a numbered one beside it where this very process has left a run open there."""
    if out is None or out == MEMORY:
        return out
    try:
        info = read_run(out, sketches=False).info
    except RunNotFoundError:
        return out
    is_left_open = info.status == "running" and info.pid == os.getpid()
    if not is_left_open and Path(out) not in closed:
        return out
    free = free_directory(out)
    warnings.warn(
        f"{out} holds a run that this process has begun; the new one goes to {free}",
        UserWarning,
        stacklevel=3,
    )
    return free
