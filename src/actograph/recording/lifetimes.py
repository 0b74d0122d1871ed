"""`Lifetimes`: things known by their ids while they live; whoever keeps something of them is told when one is gone.

No idea of what the things are. An id is used again once its owner is gone, which is told before that can happen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakMethod, ref

Thing = TypeVar("Thing")


class Lifetimes(Generic[Thing]):
    """Keeps nothing alive: neither the things nor whose method is told of their ids.

    It is told in the middle of anything, whenever Python frees an object: it may take entries out of tables, and who goes
    through such a table goes through a copy.
    """

    def __init__(self, on_gone: Callable[[int], None]) -> None:
        self._on_gone = WeakMethod(on_gone)
        self._known: dict[int, ref[Thing]] = {}

    def add(self, thing: Thing) -> int:
        """Know a thing from now on; return its id."""
        key = id(thing)
        if key not in self._known:
            self._known[key] = ref(thing, functools.partial(_end, ref(self), key))
        return key

    def __contains__(self, thing: object) -> bool:
        return id(thing) in self._known

    def end(self, key: int) -> None:
        """Forget a thing that is gone."""
        del self._known[key]
        tell = self._on_gone()
        if tell is not None:
            tell(key)


def _end(lifetimes: ref[Lifetimes[Thing]], key: int, _: object) -> None:
    found = lifetimes()
    if found is not None:
        found.end(key)
