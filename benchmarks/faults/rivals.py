"""Diagnosers by name: ours, and others' rules as plain functions of a recorded run.

No idea of cases.
"""

from __future__ import annotations

from faults.score import Diagnoser, ours

DIAGNOSERS: dict[str, Diagnoser] = {"ours": ours}
