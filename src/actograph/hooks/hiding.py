"""`hidden`: a model without our hooks for a while, for TorchScript, which compiles every hook that it finds.

No idea of who asks, nor of what hooks do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from actograph.hooks.layer_hooks import is_ours


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
