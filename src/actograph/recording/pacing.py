"""`Pacer`: which steps to record so that recording keeps within its budget.

No idea of what is recorded. Steps are thinned evenly: every step, every second, every third, ...; which one is decided by
what recorded steps have cost so far and how long steps take without it. The first second of recording is free: a short
training, which nobody waits for, is recorded whole, and so is the beginning of a long one, where most faults show.
"""

from __future__ import annotations

import math

from actograph.errors import UsageError
from actograph.runlog.schema import Cost

FREE_S = 1.0  # of recording: not felt, and enough for some hundred steps of a small network
WARM_UP_STEPS = 3  # the first steps allocate, discover and warm caches: they are recorded but teach nothing
LONGEST_INTERVAL = (
    10_000  # steps between two recorded ones, where steps take no time of their own that is worth a mention
)
LONG = 64  # steps: longer intervals double at most, as one that is too long, after a slow moment, is not seen until it ends
LONG_MEMORY = 0.99  # of storing, which comes once in many steps
MEMORY = 0.9  # weight of the past in the running means: about the last ten steps


class Pacer:
    """Keeps the recorder's share of the time at or below ``budget`` (a share of the step time without it; None: no limit).

    What the first ``free_s`` seconds of recording take is not counted.

    Raises UsageError when the budget is not between 0 and 1.
    """

    def __init__(self, budget: float | None, free_s: float = FREE_S) -> None:
        self.budget = check_budget(budget)
        self.free_s = free_s
        self.every = 1
        self.recorder_s = 0.0
        self.elapsed_s = 0.0
        self.steps_seen = 0
        self.steps_recorded = 0
        self._next_step = 0  # the next one to record
        self._cost_s = math.nan  # running mean of a recorded step's cost
        self._store_s = 0.0  # running mean over all steps of what storing takes
        self._step_s = math.nan  # running mean of a step without the recorder's part

    @property
    def records_now(self) -> bool:
        """Whether the step that is open is to be recorded."""
        return self.steps_seen >= self._next_step

    @property
    def records_next(self) -> bool:
        """Whether the step after the open one is known to be recorded; one right after a recorded step is not."""
        return self.steps_seen + 1 == self._next_step

    def end_step(self, elapsed_s: float, measuring_s: float, storing_s: float = 0.0) -> None:
        """Note how long the open step took, and what the recorder's two parts of that were; open the next step.

        ``measuring_s`` comes with each recorded step, ``storing_s`` now and then, whatever the step.
        """
        was_recorded = self.records_now
        recorder_s = measuring_s + storing_s
        self.recorder_s += recorder_s
        self.elapsed_s += elapsed_s
        self.steps_recorded += was_recorded
        if self.steps_seen >= WARM_UP_STEPS:
            self._step_s = _mean(self._step_s, max(elapsed_s - recorder_s, 0.0))
            self._store_s = _mean(self._store_s, storing_s, LONG_MEMORY)
            if was_recorded:
                self._cost_s = _mean(self._cost_s, measuring_s)
        self.steps_seen += 1
        if was_recorded:
            self.every = self._interval()
            self._next_step = self.steps_seen - 1 + self.every

    def cost(self) -> Cost:
        """Return what recording has cost so far."""
        return Cost(self.recorder_s, self.elapsed_s, self.steps_seen, self.steps_recorded, self.budget)

    def take_up(self, cost: Cost) -> None:
        """Count on from what recording had cost; the pace is found anew."""
        self.recorder_s, self.elapsed_s = cost.recorder_s, cost.elapsed_s
        self.steps_seen, self.steps_recorded = cost.steps_seen, cost.steps_recorded
        self._next_step = self.steps_seen

    def _interval(self) -> int:
        if self.budget is None or math.isnan(self._cost_s) or self.recorder_s < self.free_s:
            return 1
        allowed_s = max(self.budget * self._step_s - self._store_s, self._cost_s / LONGEST_INTERVAL)
        wanted = max(1, math.ceil(self._cost_s / allowed_s)) if allowed_s > 0.0 else 1
        return min(wanted, max(LONG, 2 * self.every))


def check_budget(budget: float | None) -> float | None:
    """Return the budget; raises UsageError when it is not a share."""
    if budget is not None and not 0.0 < budget < 1.0:
        raise UsageError(
            f"budget={budget}: give the share of the step time that recording may take, between 0 and 1 "
            "(0.03 is 3 %), or None to record every step"
        )
    return budget


def _mean(old: float, new: float, memory: float = MEMORY) -> float:
    return new if math.isnan(old) else memory * old + (1.0 - memory) * new
