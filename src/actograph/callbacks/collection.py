"""The callbacks of a Learner, found again by class or by snake-case name.

No idea of what they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar, overload

from actograph.errors import UsageError
from actograph.train.events import Callback
from actograph.train.names import snake_name

C = TypeVar("C", bound=Callback)


class CallbackNotFoundError(UsageError, KeyError):
    """No callback of that class or name; the message says which there are."""

    __str__ = Exception.__str__  # KeyError's own puts the message in quotes


class CallbackCollection:
    """Those that run in every fit, and those that were given to one fit only.

    Look-up by class also finds subclasses; where several match, the latest given wins.

    >>> from actograph.callbacks.recorder import Recorder
    >>> callbacks = CallbackCollection([Recorder()])
    >>> callbacks[Recorder] is callbacks["recorder"]
    True
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self._permanent = tuple(callbacks)
        self._visitors: tuple[Callback, ...] = ()

    @property
    def permanent(self) -> tuple[Callback, ...]:
        """Those that run in every fit."""
        return self._permanent

    def keep(self, visitors: Iterable[Callback]) -> None:
        """Keep the callbacks of one fit reachable; they replace earlier visitors of the same class."""
        new = tuple(visitors)
        classes = {type(callback) for callback in new}
        self._visitors = (*(old for old in self._visitors if type(old) not in classes), *new)

    @overload
    def __getitem__(self, key: type[C]) -> C: ...
    @overload
    def __getitem__(self, key: str) -> Callback: ...
    def __getitem__(self, key: type[Callback] | str) -> Callback:
        found = self._find(key)
        if found is None:
            name = key if isinstance(key, str) else key.__name__
            there = ", ".join(snake_name(type(callback)) for callback in self) or "none"
            raise CallbackNotFoundError(f"no callback {name} here; there are: {there}")
        return found

    def __contains__(self, key: object) -> bool:
        if isinstance(key, str) or (isinstance(key, type) and issubclass(key, Callback)):
            return self._find(key) is not None
        return any(callback is key for callback in self)

    def __iter__(self) -> Iterator[Callback]:
        yield from (*self._permanent, *self._visitors)

    def __len__(self) -> int:
        return len(self._permanent) + len(self._visitors)

    def __repr__(self) -> str:
        return f"CallbackCollection({', '.join(snake_name(type(callback)) for callback in self)})"

    def _find(self, key: type[Callback] | str) -> Callback | None:
        for callback in reversed(tuple(self)):
            matches = snake_name(type(callback)) == key if isinstance(key, str) else isinstance(callback, key)
            if matches:
                return callback
        return None
