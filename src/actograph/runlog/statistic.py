"""`Statistic`: a derived number over time and how to name it, and what deriving has in common.

No idea of what is derived from what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from actograph.layout.row import Floats

V = TypeVar("V")


@dataclass(frozen=True)
class Statistic(Generic[V]):
    """A derived number of a layer (or parameter) over time: how to name it, and whether it is a share in [0, 1]."""

    name: str
    label: str
    derive: Callable[[V], Floats]
    is_share: bool = False


def ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where the whole is not positive."""
    share: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return share
