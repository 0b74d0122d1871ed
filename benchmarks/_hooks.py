"""The hooks somebody has put on a model, its parameters and its optimizer: taken off, put back, called by hand.

No idea whose hooks they are: with this, every recorder is switched and timed in the same way, and none is asked how. The
dictionaries are torch's own (`_forward_hooks` and so on), the same from torch 2.0 to 2.14.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _models import Batch, Training
from torch import Tensor, nn

Call = tuple[Callable[..., object], tuple[Any, ...]]


@dataclass(frozen=True)
class Visit:
    """A module's forward began (``results`` is None) or ended (it holds the output)."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[object] | None = None


@dataclass(frozen=True)
class StepCalls:
    """What torch calls for a recorder in one step, in torch's order."""

    forward: list[Call]
    backward: list[Call]
    update: list[Call]
    loss: Tensor


class HookSet:
    """All hooks that are registered now."""

    def __init__(self, training: Training) -> None:
        self._training = training
        modules = list(training.model.modules())
        optimizer = training.optimizer
        tables = [table for m in modules for table in (m._forward_pre_hooks, m._forward_hooks)]
        tables += [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
        tables += [p._backward_hooks for p in training.model.parameters() if p._backward_hooks]
        self._hooks = [(table, dict(table)) for table in tables]

    @property
    def num_modules(self) -> int:
        """Modules with a forward hook, the model itself (where recorders notice a step) left out."""
        modules = list(self._training.model.modules())[1:]
        return sum(bool(module._forward_hooks) for module in modules)

    def take_off(self) -> None:
        for table, _ in self._hooks:
            table.clear()

    def put_back(self) -> None:
        for table, hooks in self._hooks:
            table.update(hooks)

    def calls(self, batch: Batch) -> StepCalls:
        """Return what torch would call in a step on a batch, with the step's real modules, inputs and outputs."""
        self.take_off()
        visits, loss = _visits(self._training, batch)
        gradients = [(p, p.grad) for p in self._training.model.parameters() if p.grad is not None]
        self._training.optimizer.zero_grad()
        self.put_back()
        optimizer = self._training.optimizer
        hooks = [
            *optimizer._optimizer_step_pre_hooks.values(),
            *optimizer._optimizer_step_post_hooks.values(),
        ]
        return StepCalls(
            forward=[call for visit in visits for call in _calls_of(visit)],
            backward=[(hook, (g,)) for p, g in gradients for hook in (p._backward_hooks or {}).values()],
            update=[(hook, (optimizer, (), {})) for hook in hooks],
            loss=loss,
        )


def _visits(training: Training, batch: Batch) -> tuple[list[Visit], Tensor]:
    """Run a step without its update, and note every module's calls with plain hooks."""
    visits: list[Visit] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        visits.append(Visit(module, args, kwargs))

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        visits.append(Visit(module, args, kwargs, (output,)))

    handles = []
    for module in training.model.modules():
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    loss = training.loss(batch)
    for handle in handles:
        handle.remove()
    loss.backward()
    return visits, loss


def _calls_of(visit: Visit) -> list[Call]:
    module = visit.module
    if visit.results is None:
        hooks, with_kwargs = module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs
    else:
        hooks, with_kwargs = module._forward_hooks, module._forward_hooks_with_kwargs
    results = visit.results or ()
    return [
        (hook, (module, visit.args, *([visit.kwargs] if key in with_kwargs else []), *results))
        for key, hook in hooks.items()
    ]


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules without children, by name."""
    return {name: module for name, module in model.named_modules() if not any(module.children())}


def only_tensor(output: object) -> torch.Tensor:
    """Return a leaf's output without its history."""
    if not isinstance(output, Tensor):
        raise TypeError(f"a leaf returned {type(output).__name__}; the peers here know tensors only")
    return output.detach()
