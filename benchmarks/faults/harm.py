"""`does_harm`: whether a fault counts, by comparison with its healthy twin.

No idea of diagnosers. The criterion is DeepCrime's (Humbatova, Jahangirova, Tonella 2021): p < 0.05 and |Cohen's d| >= 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

SIGNIFICANT = 0.05
LARGE = 0.5  # Cohen's d
OF_THE_TWIN = 0.95  # of its metric: what must be reached
FEWEST = 3  # seeds

Result = Mapping[str, Any]  # what `run_job` keeps


def does_harm(broken: Sequence[Result], twins: Sequence[Result]) -> bool | None:
    """Tell whether the broken runs do worse than their twins in any of three numbers; None: too few seeds to tell."""
    if len(broken) < FEWEST or len(twins) < FEWEST:
        return None
    goal = OF_THE_TWIN * float(np.mean([result["test_metric"] for result in twins]))
    numbers = (
        lambda result: _or_worst(result["metric"]),
        lambda result: _or_worst(result["test_metric"]),
        lambda result: -steps_to(result, goal),
    )
    return any(is_worse([one(result) for result in broken], [one(result) for result in twins]) for one in numbers)


def is_worse(broken: Sequence[float], twins: Sequence[float]) -> bool:
    """Tell whether the first numbers are lower by Welch's t-test and Cohen's d."""
    a, b = np.array(broken), np.array(twins)
    difference = b.mean() - a.mean()
    spread = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    if difference <= 0:
        return False
    if spread == 0:
        return True
    p = float(stats.ttest_ind(a, b, equal_var=False).pvalue)
    return p < SIGNIFICANT and difference / spread >= LARGE


def steps_to(result: Result, goal: float) -> float:
    """Return the steps to a validation metric; one evaluation more than there were where it was not reached."""
    reached = [step for step, _, metric in result["curve"] if metric >= goal]
    return float(min(reached, default=result["num_steps"] * 1.1))


def _or_worst(metric: float) -> float:
    return float(metric) if math.isfinite(metric) else -1.0  # it died
