"""`VanishingHook` and `hidden`: hooks that copies do not keep, and a model without its hooks for a while.

No idea of who asks, nor of what hooks do. TorchScript compiles every hook that it finds, and torch's encoder layers have a
fast path for evaluation that they take only where there is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def hidden(model: nn.Module) -> Iterator[None]:
    """Take our hooks, and what copies have instead of them, off a model until the block is left; their order stays.

    >>> from actograph.hooks.layer_hooks import LayerHooks
    >>> from actograph.sketch.block import Block
    >>> layer = nn.Linear(2, 2)
    >>> with LayerHooks(layer, Block(), print, lambda model: False), hidden(layer):
    ...     len(layer._forward_hooks)
    0

    """
    tables = [
        table for module in model.modules() for table in (module._forward_pre_hooks, module._forward_hooks)
    ]
    kept = [(table, dict(table)) for table in tables if any(map(is_ours, table.values()))]
    for table, hooks in kept:
        for key in [key for key, hook in hooks.items() if is_ours(hook)]:
            del table[key]
    try:
        yield
    finally:
        for table, hooks in kept:
            table.clear()
            table.update(hooks)


def is_ours(hook: object) -> bool:
    """Tell whether a module's hook is one of these, or what a copy has instead of it."""
    return (
        isinstance(hook, VanishingHook) or getattr(hook, "__func__", None) is contextlib.nullcontext.__exit__
    )


class VanishingHook:
    """A hook that a copy of its module does not keep.

    Copies get the exit of a null context: it takes any arguments, does nothing, and is pickled without this package.
    """

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return contextlib.nullcontext().__exit__

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")
