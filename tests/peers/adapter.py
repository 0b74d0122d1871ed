"""`adapters`: what a script in `scripts/` gives its trainer as callbacks, beside its own: ours, if this run is to have it.

``ADAPTER`` in the environment is the folder to record into, or "joined" where ``actograph run`` records; not set: none.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

JOINED = "joined"
VARIABLE = "ADAPTER"


def adapters(library: str) -> list[Any]:
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return []
    module = importlib.import_module(f"actograph.integrations.{library}")
    options = {} if wanted == JOINED else {"out": wanted, "budget": None, "grad": True, "gradients": True}
    return [module.ActographCallback(**options)]
