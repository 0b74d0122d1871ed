"""`watch`: record a hand-written training loop; `new_run`: the run directory every driver begins with.

No idea of hooks, rows or files.
"""

from __future__ import annotations

import itertools
import os
import platform
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from actograph.errors import RunInUseError
from actograph.hooks.functional import AUTO, Functional, check_functional
from actograph.hooks.leaves import Select
from actograph.recording.pacing import check_budget
from actograph.recording.recording import Recording, check_unattached
from actograph.runlog.schema import DATABASE, RUNS, RunInfo
from actograph.runlog.store import RunWriter
from actograph.train.device import device_of

MEMORY = ":memory:"


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
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

    Gradients are as the optimizer finds them. If you clip them or undo a loss scale yourself, call `Recording.gradients`
    where they are complete, unscaled and not clipped; that also gives the clip ratio. With a loss scale, set
    `Recording.loss_scale` as well, so that ``grad`` is measured without it.

    Args:
        model: any module; its leaf modules are recorded.
        optimizer: its ``step()`` ends a step.
        out: run directory; None makes ``runs/<date>-<time>-<name>``, ":memory:" keeps the run in memory.
        name: what to call the run; the model's class when None.
        select: which layers: a pattern on names, a module class, a predicate (name, module), or a list of these.
        budget: share of the step time that recording may take; steps are thinned evenly to keep it. None: every step.
        grad: whether to record the gradients by the layers' outputs too.
        gradients: whether to record the optimizer's parameters: their gradients, weights and updates.
        functional: whether to record activations called as functions (``F.relu``), which slows each call of torch in the
            forward by some microseconds; "auto" does if the first training forward has some.

    Raises:
        UsageError: the folder holds a run already, ``select`` matches no layer, or an option is none of those named.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with watch(model, optimizer, out=":memory:", budget=None) as recording:
    ...     for _ in range(3):
    ...         loss = model(torch.ones(16, 4)).square().mean()
    ...         recording.loss(loss)
    ...         loss.backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    >>> recording.view().column("mean").shape  # steps, layers
    (3, 3)

    """
    check_unattached(model)
    check_budget(budget)
    check_functional(functional)
    writer = new_run(name or type(model).__name__.lower(), out, device=str(device_of(model)))
    recording = Recording(writer, select=select, budget=budget, grad=grad, functional=functional)
    try:
        recording.attach(model)
    except Exception:
        writer.discard()
        raise
    recording.optimizer(optimizer, gradients=gradients)
    return recording


def new_run(
    name: str, out: str | Path | None = None, device: str = "cpu", config: Mapping[str, Any] | None = None
) -> RunWriter:
    """Make a run directory (see `watch` for ``out``) and return its writer; raises RunInUseError when it is taken."""
    now = datetime.now().astimezone()
    info = RunInfo(
        name=name,
        created=now.isoformat(timespec="seconds"),
        pid=os.getpid(),
        host=platform.node(),
        environment={"python": platform.python_version(), "torch": torch.__version__, "device": device},
        config=dict(config or {}),
    )
    if out == MEMORY:
        return RunWriter(None, info)
    if out is not None:
        return RunWriter(Path(out), info)
    return _in_fresh_directory(f"{now:%Y%m%d-%H%M%S}-{_file_name(name)}", info)


def free_directory(out: str | Path | None) -> str | Path | None:
    """Return ``out`` for a run that goes on from a checkpoint; where it holds one already, ``out-2``, ``out-3``, ..."""
    if out is None or out == MEMORY:
        return out
    path = Path(out)
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not (free / DATABASE).exists())


def _in_fresh_directory(stem: str, info: RunInfo) -> RunWriter:
    """Two runs of one name may begin within a second: the later ones get a number."""
    for attempt in range(1, 100):
        try:
            return RunWriter(RUNS / (stem if attempt == 1 else f"{stem}-{attempt}"), info)
        except RunInUseError:
            if not (RUNS / stem).is_dir():  # not taken, but not writable
                raise
    raise RunInUseError(f"{RUNS / stem} and 98 numbered variants are taken; choose an output folder")


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
