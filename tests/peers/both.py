"""Run a script in this process, observed and plainly, with our adapter and without, and print what each has left, as JSON.

Observed first, so that what a library imports from torch while it loads is what it gets under ``actograph run``.
``python -m tests.peers.both LIBRARY FOLDER SCRIPT [ADAPTER]``; where the library is not installed it prints null.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable

from tests.observe.harness import leftovers
from tests.peers.adapter import JOINED, VARIABLE

if __name__ == "__main__":
    library, folder, script = sys.argv[1:4]
    ways: dict[str, Callable[[], dict[str, str]]] = {"observed": lambda: leftovers(folder, script)}
    if sys.argv[4:]:
        ways[JOINED] = lambda: leftovers(f"{folder}/{JOINED}", script)
        ways["adapter"] = lambda: leftovers("-", script)
    ways["plain"] = lambda: leftovers("-", script)
    values = {JOINED: JOINED, "adapter": f"{folder}/adapter"}
    left = {}
    for way, run in ways.items() if importlib.util.find_spec(library) is not None else ():
        os.environ.pop(VARIABLE, None)
        os.environ.update({VARIABLE: values[way]} if way in values else {})
        left[way] = run()
    print(json.dumps(left or None))
