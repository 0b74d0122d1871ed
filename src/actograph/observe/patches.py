"""`patched`: the closed list of places in torch that are replaced while a foreign script is watched.

No idea of what is done with what is seen there. Everything else is seen by torch's public hooks. Each place gets its
original back; a replacement that the script has kept (``from torch.nn.utils import clip_grad_norm_``) calls the original.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional
from torch.nn.utils import clip_grad

from actograph.hooks.hiding import hidden
from actograph.recording.facts.loss_call import MEAN, NO_CLASS, PLACES, LossCall

HUB = "_actograph_hub"  # attribute of what is patched
Function = Callable[..., Any]


class Listener(Protocol):
    """What is told of the script's calls; it must not raise."""

    def before_backward(self, tensors: object) -> None:
        """Note that ``torch.autograd.backward`` is about to run on these."""

    def before_clip(self, kind: str, limit: object) -> None:
        """Note that gradients are about to be clipped, by "norm" or by "value", at a limit."""

    def after_loss(self, call: LossCall) -> None:
        """Note what a loss was computed of."""

    def after_scale(self, scaler: GradScaler, outputs: object, scaled: object) -> None:
        """Note what a scaler has multiplied with its scale."""

    def before_scaled_step(self) -> None:
        """Note that a scaler is about to let an optimizer move, or not."""

    def after_scaled_step(self, scaler: GradScaler, optimizer: object) -> None:
        """Note that it has done so."""


@contextlib.contextmanager
def patched(listener: Listener) -> Iterator[None]:
    """Tell the listener of backwards, clips, scalings and losses until the block is left.

    Several may listen at once and leave in any order: the places are patched for the first and put back after the last.
    """
    hub = getattr(torch.autograd.backward, HUB, None)
    if not isinstance(hub, _Hub) or not hub.listeners:
        hub = _Hub()
        hub.install()
    hub.listeners.append(listener)
    try:
        yield
    finally:
        hub.listeners.remove(listener)
        if not hub.listeners:
            hub.put_back()


def listeners() -> list[Listener]:
    """Return who listens now, in the order in which they came."""
    hub = getattr(torch.autograd.backward, HUB, None)
    return list(hub.listeners) if isinstance(hub, _Hub) else []


class _Hub:
    """Hands on to all listeners. The patched function itself holds it, so that the next listener finds it there."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self._replaced: list[tuple[object, str, Function, Function]] = []

    def install(self) -> None:
        places: list[tuple[object, str, Callable[[Function, Listener], Function]]] = [
            (torch.autograd, "backward", _backward),  # Tensor.backward calls it
            *[
                (module, name, _clip)
                for module in (torch.nn.utils, clip_grad)
                for name in ("clip_grad_norm_", "clip_grad_value_")
            ],
            (GradScaler, "scale", _scale),
            *[
                (functional, name, _loss) for name in PLACES
            ],  # torch.nn.CrossEntropyLoss and its like call them
            (GradScaler, "step", _scaled_step),
            (
                torch.jit._recursive,
                "create_script_module",
                _create_script_module,
            ),  # `torch.jit.script` calls it
        ]
        for owner, name, wrap in places:
            original = getattr(owner, name)
            replacement = wrap(original, self)
            setattr(replacement, HUB, self)
            # torch.jit.script asks for it, and compiles what is there in place of the wrapper
            vars(replacement)["__prepare_scriptable__"] = functools.partial(_return, original)
            setattr(owner, name, replacement)
            self._replaced.append((owner, name, original, replacement))

    def put_back(self) -> None:
        for owner, name, original, replacement in self._replaced:
            if getattr(owner, name) is replacement:  # else somebody has put something of theirs around it
                setattr(owner, name, original)

    def before_backward(self, tensors: object) -> None:
        for listener in tuple(self.listeners):
            listener.before_backward(tensors)

    def before_clip(self, kind: str, limit: object) -> None:
        for listener in tuple(self.listeners):
            listener.before_clip(kind, limit)

    def after_loss(self, call: LossCall) -> None:
        for listener in tuple(self.listeners):
            listener.after_loss(call)

    def after_scale(self, scaler: GradScaler, outputs: object, scaled: object) -> None:
        for listener in tuple(self.listeners):
            listener.after_scale(scaler, outputs, scaled)

    def before_scaled_step(self) -> None:
        for listener in tuple(self.listeners):
            listener.before_scaled_step()

    def after_scaled_step(self, scaler: GradScaler, optimizer: object) -> None:
        for listener in tuple(self.listeners):
            listener.after_scaled_step(scaler, optimizer)


def _return(original: Function) -> Function:
    return original


# A compiler that traces through these sees that it compiles as a constant, and nothing but the original.


def _backward(original: Function, listener: Listener) -> Function:
    @functools.wraps(original)
    def backward(*args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling():
            listener.before_backward(args[0] if args else kwargs.get("tensors"))
        return original(*args, **kwargs)

    return backward


def _clip(original: Function, listener: Listener) -> Function:
    kind = original.__name__.removeprefix("clip_grad_").removesuffix("_")  # "norm" or "value"
    keyword = "max_norm" if kind == "norm" else "clip_value"

    @functools.wraps(original)
    def clip(*args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling():
            listener.before_clip(kind, args[1] if len(args) > 1 else kwargs.get(keyword))
        return original(*args, **kwargs)

    return clip


def _loss(original: Function, listener: Listener) -> Function:
    name = original.__name__
    places = PLACES[name]

    @functools.wraps(original)
    def loss(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if not torch.compiler.is_compiling() and not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            listener.after_loss(
                LossCall(
                    name,
                    _argument(args, kwargs, 0, "input"),
                    _argument(args, kwargs, 1, "target"),
                    _argument(args, kwargs, places.ignored, "ignore_index", NO_CLASS),
                    _argument(args, kwargs, places.reduction, "reduction", MEAN),
                    _argument(args, kwargs, places.smoothing, "label_smoothing", 0.0),
                    result,
                )
            )
        return result

    return loss


def _argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: int | None, name: str, default: Any = None
) -> Any:
    return args[place] if place is not None and len(args) > place else kwargs.get(name, default)


def _scale(original: Function, listener: Listener) -> Function:
    @functools.wraps(original)
    def scale(scaler: GradScaler, outputs: Tensor) -> Any:
        scaled = original(scaler, outputs)
        listener.after_scale(scaler, outputs, scaled)
        return scaled

    return scale


def _scaled_step(original: Function, listener: Listener) -> Function:
    @functools.wraps(original)
    def step(scaler: GradScaler, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        listener.before_scaled_step()
        result = original(scaler, optimizer, *args, **kwargs)
        listener.after_scaled_step(scaler, optimizer)
        return result

    return step


def _create_script_module(original: Function, listener: Listener) -> Function:
    @functools.wraps(original)
    def create_script_module(nn_module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with hidden(nn_module):
            return original(nn_module, *args, **kwargs)

    return create_script_module
