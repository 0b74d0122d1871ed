"""Run a script twice in this process, observed and plainly, and print what each has left, as JSON.

Observed first, so that what a library imports from torch while it loads is what it gets under ``actograph run``.
``python -m tests.peers.both LIBRARY FOLDER SCRIPT``; where the library is not installed it prints null.
"""

from __future__ import annotations

import importlib.util
import json
import sys

from tests.observe.harness import leftovers

if __name__ == "__main__":
    library, folder, script = sys.argv[1:]
    known = importlib.util.find_spec(library) is not None
    print(json.dumps([leftovers(folder, script), leftovers("-", script)] if known else None))
