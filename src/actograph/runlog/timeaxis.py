"""`TimeAxis`: which steps the buckets of a view hold.

No idea of what else is in them.
"""

from __future__ import annotations

from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from actograph.runlog.buckets import Stretch

B = TypeVar("B", bound=Stretch)


class TimeAxis(Generic[B]):
    """What has buckets in time order: T of them."""

    buckets: tuple[B, ...]

    @cached_property
    def first_steps(self) -> NDArray[np.int64]:
        """First step of each bucket (T,)."""
        return np.array([bucket.first_step for bucket in self.buckets], np.int64)

    @cached_property
    def last_steps(self) -> NDArray[np.int64]:
        """Last step of each bucket (T,)."""
        return np.array([bucket.last_step for bucket in self.buckets], np.int64)

    @cached_property
    def num_recorded(self) -> NDArray[np.int64]:
        """Recorded steps of each bucket (T,)."""
        return np.array([bucket.num_steps for bucket in self.buckets], np.int64)
