"""`Pacer`: which steps to record so that recording keeps within its budget.

No idea of what is recorded. Steps are thinned evenly: every step, every second, every third, ...; which one is decided by
what recorded steps have cost so far and how long steps take without it.
"""

from __future__ import annotations

import math

from actograph.errors import UsageError
from actograph.runlog.schema import Cost

WARM_UP_STEPS = 3  # the first steps allocate, discover and warm caches: they are recorded but teach nothing
LONGEST_INTERVAL = (
    10_000  # steps between two recorded ones, where steps take no time of their own that is worth a mention
)
MEMORY = 0.9  # weight of the past in the running means: about the last ten steps


class Pacer:
    """Keeps the recorder's share of the time at or below ``budget`` (a share of the step time without it; None: no limit).

    Raises UsageError when the budget is not between 0 and 1.
    """

    def __init__(self, budget: float | None) -> None:
        if budget is not None and not 0.0 < budget < 1.0:
            raise UsageError(
                f"budget={budget}: give the share of the step time that recording may take, between 0 and 1 "
                "(0.03 is 3 %), or None to record every step"
            )
        self.budget = budget
        self.every = 1
        self.recorder_s = 0.0
        self.elapsed_s = 0.0
        self.steps_seen = 0
        self.steps_recorded = 0
        self._next_step = 0  # the next one to record
        self._cost_s = math.nan  # running mean of a recorded step's cost
        self._step_s = math.nan  # running mean of a step without the recorder's part

    @property
    def records_now(self) -> bool:
        """Whether the step that is open is to be recorded."""
        return self.steps_seen >= self._next_step

    def end_step(self, elapsed_s: float, recorder_s: float) -> None:
        """Note how long the open step took, the recorder's part included, and what that part was; open the next one."""
        was_recorded = self.records_now
        self.recorder_s += recorder_s
        self.elapsed_s += elapsed_s
        self.steps_recorded += was_recorded
        if self.steps_seen >= WARM_UP_STEPS:
            self._step_s = _mean(self._step_s, max(elapsed_s - recorder_s, 0.0))
            if was_recorded:
                self._cost_s = _mean(self._cost_s, recorder_s)
        self.steps_seen += 1
        if was_recorded:
            self.every = self._interval()
            self._next_step = self.steps_seen - 1 + self.every

    def cost(self) -> Cost:
        """Return what recording has cost so far."""
        return Cost(self.recorder_s, self.elapsed_s, self.steps_seen, self.steps_recorded, self.budget)

    def _interval(self) -> int:
        if self.budget is None or math.isnan(self._cost_s):
            return 1
        allowed_s = max(self.budget * self._step_s, self._cost_s / LONGEST_INTERVAL)
        return max(1, math.ceil(self._cost_s / allowed_s)) if allowed_s > 0.0 else 1


def _mean(old: float, new: float) -> float:
    return new if math.isnan(old) else MEMORY * old + (1.0 - MEMORY) * new
