"""A loop's whole state saved and taken up again: the fit that goes on is bit for bit the one that was not interrupted.

No idea of when to save: the callback `Checkpoint` has. Saved are the model, the optimizer, the step (a scaler), progress,
the means and metrics of the open epoch, the callbacks that have a state, where the loaders stand, and the random states of
Python, numpy, torch and CUDA.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.models.weights import check_weights, load_weights, weights_to_bytes
from actograph.train.batches import length
from actograph.train.checkpoint_file import CheckpointFile, read_checkpoint, write_checkpoint
from actograph.train.distributed import this_rank
from actograph.train.events import Callback
from actograph.train.loop import Loop, num_frozen, settings
from actograph.train.names import snake_name
from actograph.train.parameter_groups import listed
from actograph.train.position import (
    LoaderStart,
    State,
    Stateful,
    check_loader_state,
    check_replayable,
    is_left,
    loader_state,
    random_state,
    replayed,
    set_loader_state,
    set_random_state,
)
from actograph.train.state import Phase, Progress, Resume
from actograph.train.step_wrapper import parameters_of

IN_ABOUT = ("optimizer", "lengths", "position")  # what going on needs of a file
IN_STATE = (
    "optimizer",
    "own_groups",
    "unsaved",
    "parts",
    "progress",
    "loaders",
    "left",
    "train_start",
    "is_train_open",
    "random",
)


def save_checkpoint(loop: Loop, path: Path | str, callbacks: Iterable[Callback] = ()) -> None:
    """Save everything that the loop's later course depends on into one file, whole or not at all.

    Inside a fit in ``after_batch`` of the train phase, where an optimizer step has just been made, or in ``after_epoch``;
    its callbacks are saved then, else those given. Raises UsageError at any other moment, for a loader that cannot be
    brought to the same place again, and for a state that could not be read back. Of several processes that train together
    rank 0 writes.
    """
    position = _position(loop)
    if loop.is_running:
        check_replayable(loop.train_loader)
        callbacks = loop.callbacks
    state = {
        "optimizer": loop.optimizer.state_dict(),
        "own_groups": loop.own_groups if loop.is_running else settings(loop.optimizer),
        "unsaved": _unsaved(loop),
        "parts": {name: dict(part.state_dict()) for name, part in _parts(loop, callbacks).items()},
        "progress": asdict(loop.progress) | {"phase": str(loop.progress.phase)},
        "loaders": [loader_state(loader) for loader in _loaders(loop)],
        "left": _left(loop, position),
        "train_start": asdict(loop.train_start),
        "is_train_open": loop.is_train_open,
        "random": random_state(),
    }
    about = {
        "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        "model": type(loop.model).__name__,
        "optimizer": type(loop.optimizer).__name__,
        "lengths": _lengths(loop),
        "step": loop.progress.step,
        "position": position,
    }
    if this_rank().is_main:
        write_checkpoint(Path(path), about, weights_to_bytes(loop.model), state)


def load_checkpoint(loop: Loop, path: Path | str, callbacks: Iterable[Callback] = ()) -> None:
    """Go back to the moment in which a checkpoint was saved.

    If that was inside a fit, the next fit, which has to be the same one, goes on from there; its callbacks get their states
    back then, and ``callbacks`` only otherwise. Raises UsageError, with everything as before, for a file that is not there
    or not whole, and for another model, optimizer, or other loaders.
    """
    if loop.is_running:
        raise UsageError("a checkpoint cannot be loaded while a fit runs")
    file = read_checkpoint(Path(path))
    state = file.state
    _check(loop, file, state)
    load_weights(loop.model, file.weights, file.path)
    _load_optimizer(loop.optimizer, state["optimizer"], state["own_groups"])
    position = file.about["position"]
    if position is None:
        loop.resume = None
        _restore(loop, file, tuple(callbacks))
        return
    loop.progress.step = state["progress"]["step"]
    start = LoaderStart(**state["train_start"])
    loop.resume = Resume(
        **position,
        restore=lambda: _restore(loop, file, loop.callbacks),
        start=lambda: _rest_of_epoch(loop, start, position["num_done"], state["random"]),
    )


def load_weights_of(model: nn.Module, path: Path | str) -> None:
    """Copy a checkpoint's weights into the model, and nothing else. Raises UsageError as `load_checkpoint` does."""
    file = read_checkpoint(Path(path))
    load_weights(model, file.weights, file.path)


def _position(loop: Loop) -> dict[str, Any] | None:
    """Return what is known of where a fit stands (the plain fields of `Resume`), None outside of a fit."""
    if not loop.is_running:
        return None
    progress, event = loop.progress, loop.event
    if event is Callback.after_batch and progress.phase is Phase.TRAIN:
        if progress.num_gathered:
            raise UsageError(
                "gradients are being gathered: save a checkpoint where a step was made (progress.num_gathered is 0)"
            )
        epoch, num_done = progress.epoch, progress.batch + 1
    elif event is Callback.after_epoch:
        epoch, num_done = progress.epoch + 1, None
    else:
        name = "before the first event" if event is None else event.__name__
        raise UsageError(
            f"a checkpoint cannot be saved in {name}: save it in after_batch of the train phase, in after_epoch, "
            "or between fits"
        )
    return {
        "epoch": epoch,
        "num_done": num_done,
        "num_epochs": progress.num_epochs,
        "num_batches": loop.num_train_batches,
        "num_frozen": num_frozen(loop.model),
        "stop_reason": loop.stop_reason,
    }


def _parts(loop: Loop, callbacks: Iterable[Callback]) -> dict[str, Stateful]:
    """Return what has a state of its own by name; a second callback of a class is called ``name_2``."""
    named: dict[str, object] = {
        "step": loop.step,
        "train_loss": loop.train_loss,
        "valid_loss": loop.valid_loss,
    }
    named |= {f"metric {name}": metric for name, metric in loop.metrics.items()}
    for callback in callbacks:
        name, count = f"callback {snake_name(type(callback))}", 1
        while (key := name if count == 1 else f"{name}_{count}") in named:
            count += 1
        named[key] = callback
    return {name: part for name, part in named.items() if isinstance(part, Stateful)}


def _restore(loop: Loop, file: CheckpointFile, callbacks: Iterable[Callback]) -> None:
    """Put everything back, the random states last."""
    state = file.state
    load_weights(loop.model, file.weights, file.path)
    unsaved = _unsaved(loop)
    with torch.no_grad():
        for name, value in state["unsaved"].items():
            unsaved[name].copy_(value)
    loop.optimizer.load_state_dict(state["optimizer"])
    _load_parts(_parts(loop, callbacks), state["parts"], file.path)
    _load_progress(loop.progress, state["progress"])
    for loader, of_loader, was_left in zip(_loaders(loop), state["loaders"], state["left"], strict=True):
        set_loader_state(loader, of_loader)
        if was_left:
            iter(loader)  # the epoch it stands in is not to be gone on with
    loop.train_start = LoaderStart(**state["train_start"])
    loop.is_train_open = state["is_train_open"]
    set_random_state(state["random"])


def _rest_of_epoch(loop: Loop, start: LoaderStart, num_done: int, random: State) -> Iterator[Any]:
    loader = loop.train_loader
    items = iter(loader) if isinstance(loader, Stateful) else replayed(loader, start, num_done)
    set_random_state(random)
    return items


def _load_parts(parts: Mapping[str, Stateful], states: Mapping[str, State], path: Path) -> None:
    lost = [name for name in states if name not in parts]
    if lost:
        warnings.warn(
            f"{path} has states of what is not here any more: {', '.join(lost)}; they are left out",
            stacklevel=2,
        )
    for name, part in parts.items():
        if name in states:
            part.load_state_dict(states[name])


def _load_progress(progress: Progress, values: Mapping[str, Any]) -> None:
    for field in fields(progress):
        if field.name in values:
            setattr(progress, field.name, values[field.name])
    progress.phase = Phase(progress.phase)


def _load_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], own_groups: Iterable[Mapping[str, Any]]
) -> None:
    """Load the optimizer's state with the settings it had outside of the fit: a fit sets its own."""
    groups = [
        {"params": group["params"], **own}
        for group, own in zip(state["param_groups"], own_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _check(loop: Loop, file: CheckpointFile, state: State) -> None:
    """Raise UsageError for a checkpoint that the loop cannot take up."""
    lacking = [
        name
        for names, there in ((IN_ABOUT, file.about), (IN_STATE, state))
        for name in names
        if name not in there
    ]
    if lacking:
        raise UsageError(
            f"{file.path} is no whole checkpoint: it lacks {', '.join(lacking)}; take an earlier one"
        )
    check_weights(loop.model, file.weights, file.path)
    _check_unsaved(loop, file, state)
    name = type(loop.optimizer).__name__
    if file.about["optimizer"] != name:
        raise UsageError(
            f"{file.path} was saved with the optimizer {file.about['optimizer']}, not {name}: give the same one, "
            "or take the weights alone with load_weights"
        )
    sizes = [
        [len(group["params"]) for group in groups]
        for groups in (state["optimizer"]["param_groups"], loop.optimizer.param_groups)
    ]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"{file.path} has an optimizer with parameter groups of {sizes[0]} parameters, but this one has {sizes[1]}: "
            "make the same groups (freeze and unfreeze as before), or take the weights alone with load_weights"
        )
    _check_loaders(loop, file, state)


def _check_unsaved(loop: Loop, file: CheckpointFile, state: State) -> None:
    saved, own = (
        {name: tensor.shape for name, tensor in tensors.items()}
        for tensors in (state["unsaved"], _unsaved(loop))
    )
    if different := [name for name in {**own, **saved} if own.get(name) != saved.get(name)]:
        raise UsageError(
            f"{file.path} is of another model or loss function: {listed(different)} (in no state_dict of the model) "
            "are not in both, or of another shape"
        )


def _check_loaders(loop: Loop, file: CheckpointFile, state: State) -> None:
    if file.about["lengths"] != _lengths(loop):
        raise UsageError(
            f"{file.path} was saved with loaders of {file.about['lengths']} batches (train, valid), but these have "
            f"{_lengths(loop)}: give the same data and batch size, or take the weights alone with load_weights"
        )
    for loader, of_loader in zip(_loaders(loop), state["loaders"], strict=True):
        check_loader_state(loader, of_loader)


def _loaders(loop: Loop) -> list[Iterable[Any]]:
    return [loader for loader in (loop.train_loader, loop.valid_loader) if loader is not None]


def _left(loop: Loop, position: Mapping[str, Any] | None) -> list[bool]:
    """Tell of each loader whether its next epoch begins anew although it stands in the middle of one."""
    is_read = position is not None and position["num_done"] is not None
    train = not is_read and is_left(loop.train_loader, is_open=loop.is_train_open)
    return [train, *(is_left(loader, is_open=False) for loader in _loaders(loop)[1:])]


def _lengths(loop: Loop) -> list[int | None]:
    return [length(loader) for loader in _loaders(loop)]


def _unsaved(loop: Loop) -> dict[str, Tensor]:
    """Return what is not in the weights file: unsaved buffers, and parameters that are not the model's."""
    own = set(loop.model.parameters())
    others = [parameter.detach() for parameter in parameters_of(loop.optimizer) if parameter not in own]
    named = {f"parameter {number} of the loss function": other for number, other in enumerate(others)}
    return unsaved_buffers(loop.model) | named


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that are in no state_dict (``persistent=False``): a copy does not need them, going on does."""
    saved = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}
