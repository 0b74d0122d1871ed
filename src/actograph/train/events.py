"""The events of the loop, in firing order, as the methods of ``Callback``; and who runs when.

No idea of what happens between two events: that is ``loop.py``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from actograph.errors import UsageError
from actograph.train.names import snake_name
from actograph.train.state import ControlFlow

if TYPE_CHECKING:
    from actograph.train.loop import Loop

Event: TypeAlias = "Callable[[Callback, Loop], None]"
Handler: TypeAlias = "Callable[[Loop], None]"

_EVENT_PREFIXES = ("before_", "after_", "cleanup_")


class Stage(IntEnum):
    """When a callback runs among the others that handle the same event; list order inside a stage."""

    SETUP = 0  # make things ready: devices, files, hooks
    CHANGE = 1  # change the batch, the rates or the course of the fit
    MEASURE = 2  # look at what is final now
    REPORT = 3  # tell people
    SAVE = 4  # keep what everybody else has done with the event


class Callback:
    """Look into the loop, and change it, at the events that a subclass overrides.

    What may be written in which event: ``docs/loop.md``.

    >>> class StopEarly(Callback):
    ...     def after_step(self, loop: Loop) -> None:
    ...         if loop.progress.step == 100:
    ...             raise StopFit("a hundred steps are enough")
    """

    stage: ClassVar[Stage] = Stage.CHANGE
    unique: ClassVar[bool] = False  # True: two of this class in one fit are an error

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _check_events(cls)

    def before_fit(self, loop: Loop) -> None:
        """Prepare for a new fit; also called before ``validate()``, where ``progress.num_epochs`` is 0."""

    def before_epoch(self, loop: Loop) -> None:
        """Begin an epoch: a train phase, then a valid phase if there is a valid loader."""

    def before_phase(self, loop: Loop) -> None:
        """Begin a phase: ``progress.phase`` is set, the model is in train or eval mode."""

    def before_batch(self, loop: Loop) -> None:
        """See, or replace, ``batch.x`` and ``batch.y``, which are on the device."""

    def after_forward(self, loop: Loop) -> None:
        """See, or replace, ``batch.pred``."""

    def after_loss(self, loop: Loop) -> None:
        """See, or replace, ``batch.loss``."""

    def after_backward(self, loop: Loop) -> None:
        """See gradients that may be partial or scaled; in the train phase only."""

    def before_step(self, loop: Loop) -> None:
        """See gradients that are complete and unscaled, not yet clipped; once per optimizer step."""

    def after_step(self, loop: Loop) -> None:
        """See the moved weights, with the gradients that moved them; only if the optimizer did."""

    def after_batch(self, loop: Loop) -> None:
        """End a batch, a skipped one too; the gradients are zeroed."""

    def after_phase(self, loop: Loop) -> None:
        """End a phase."""

    def after_epoch(self, loop: Loop) -> None:
        """End an epoch; ``loop.values`` has its losses and metrics."""

    def after_fit(self, loop: Loop) -> None:
        """End a fit that ran to its end or was stopped by ``StopFit``."""

    def cleanup_fit(self, loop: Loop) -> None:
        """Release what was acquired; always called, in reverse order, after errors and Ctrl-C too."""


EVENTS: tuple[Event, ...] = tuple(
    event for name, event in vars(Callback).items() if name.startswith(_EVENT_PREFIXES)
)
_EVENT_NAMES = tuple(event.__name__ for event in EVENTS)


def _check_events(cls: type[Callback]) -> None:
    """Refuse a method that looks like an event and is none, and an event that cannot take the loop."""
    for name, method in vars(cls).items():
        if not (name.startswith(_EVENT_PREFIXES) and callable(method)):
            continue
        if name not in _EVENT_NAMES:
            close = difflib.get_close_matches(name, _EVENT_NAMES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the events are {', '.join(_EVENT_NAMES)}"
            raise TypeError(f"{cls.__name__}.{name} is not an event: {hint}")
        try:
            inspect.signature(method).bind(None, None)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.{name} must take (self, loop): {error}") from None


def handler_name(handler: Handler) -> str:
    """Return the snake name of the callback whose method ``handler`` is."""
    return snake_name(type(handler.__self__))  # type: ignore[attr-defined]


def check_allowed(request: ControlFlow, event: Event, handler: Handler) -> None:
    """Refuse a request in an event that has no room for it."""
    if request.allowed_in is not None and event.__name__ not in request.allowed_in:
        raise UsageError(
            f"{type(request).__name__} was raised by the callback {handler_name(handler)} in {event.__name__}, "
            f"but only {', '.join(request.allowed_in)} can take it"
        ) from request


def in_order(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Sort by stage, keeping the given order inside a stage; refuse two of a class that is ``unique``."""
    ordered = tuple(sorted(callbacks, key=lambda callback: callback.stage))
    for cls in {cls for callback in ordered for cls in type(callback).__mro__ if vars(cls).get("unique")}:
        same = [type(callback).__name__ for callback in ordered if isinstance(callback, cls)]
        if len(same) > 1:
            which = "" if set(same) == {cls.__name__} else f" ({', '.join(same)})"
            raise UsageError(
                f"{len(same)} callbacks of class {cls.__name__} in one fit{which}: give only one"
            )
    return ordered


def dispatch_table(callbacks: Sequence[Callback]) -> Mapping[Event, tuple[Handler, ...]]:
    """Return the overridden methods of each event, so that an event nobody handles costs nearly nothing."""
    return {
        event: tuple(
            getattr(callback, event.__name__)
            for callback in callbacks
            if getattr(type(callback), event.__name__) is not event
        )
        for event in EVENTS
    }


@dataclass(frozen=True)
class Plan:
    """Who runs when: the callbacks of each event in the order they are called; print it."""

    rows: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        width = max(map(len, self.rows))
        return "\n".join(
            f"{event:{width}}  {', '.join(names)}".rstrip() for event, names in self.rows.items()
        )


def plan(callbacks: Iterable[Callback]) -> Plan:
    """Return which callback handles which event; ``cleanup_fit`` is called in reverse order.

    >>> class Say(Callback):
    ...     def after_fit(self, loop: Loop) -> None: ...
    >>> plan([Say()]).rows["after_fit"]
    ('say',)
    """
    table = dispatch_table(in_order(callbacks))
    rows = {
        event.__name__: tuple(handler_name(handler) for handler in handlers)
        for event, handlers in table.items()
    }
    rows["cleanup_fit"] = rows["cleanup_fit"][::-1]
    return Plan(rows)
