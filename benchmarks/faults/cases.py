"""All cases, from the files of their families.

No idea of any single one.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from faults.case import Case


def _all() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for file in sorted(Path(__file__).parent.glob("cases_*.py")):
        for case in importlib.import_module(f"faults.{file.stem}").CASES:
            assert case.id not in found, f"two cases are called {case.id}"
            found[case.id] = case
    return found


CASES: dict[str, Case] = _all()
