"""`EveryNth`: a fixed pace, for who wants to say it.

No idea of what is recorded, nor of what it costs.
"""

from __future__ import annotations

from actograph.errors import UsageError
from actograph.recording.pacing import Pacer


class EveryNth(Pacer):
    """Records the first step and every ``every``-th after it, whatever that costs.

    Raises UsageError when ``every`` is below 1.

    >>> pacer = EveryNth(3)
    >>> recorded = []
    >>> for step in range(7):
    ...     recorded += [step] if pacer.records_now else []
    ...     pacer.end_step(elapsed_s=1.0, measuring_s=0.5)
    >>> recorded
    [0, 3, 6]
    """

    def __init__(self, every: int) -> None:
        super().__init__(budget=None)
        if every < 1:
            raise UsageError(f"every={every}: give 1 to record each step, 10 for every tenth")
        self._wanted = every

    def _interval(self) -> int:
        return self._wanted
