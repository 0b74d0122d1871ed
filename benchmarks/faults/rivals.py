"""Diagnosers of a recorded run by name: ours, and others' rules as plain functions.

No idea of cases, nor of the packages that have to watch the training themselves (`packages`).
"""

from __future__ import annotations

from faults.rival_autotrainer import autotrainer
from faults.rival_smd import smd, smd_tensors
from faults.said import Diagnoser
from faults.score import ours

DIAGNOSERS: dict[str, Diagnoser] = {
    "ours": ours,
    "smd": smd,
    "smd-tensors": smd_tensors,
    "autotrainer": autotrainer,
}
