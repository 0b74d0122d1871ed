"""Sentences about estimates: which is better and by how much, or that the seeds do not tell.

No idea of studies.
"""

from __future__ import annotations

from collections.abc import Sequence

from actograph.show import words
from actograph.study.estimate import Estimate

MOST_POINTS = 100.0  # that two shares can differ


def better(a: str, b: str, difference: Estimate, what: str, *, is_share: bool = True) -> str:
    """Say how a compares with b in ``what``, of which more is better; ``difference`` is a minus b, seeds paired.

    >>> better("A", "B", Estimate(0.02, 0.01, 0.03, 5), "accuracy")
    'A has 2.0 points more accuracy than B (1.0 to 3.0).'
    >>> better("A", "B", Estimate(0.01, -0.01, 0.03, 5), "accuracy")
    'Whether A or B has more accuracy cannot be told: the difference is 1.0 points, and lies between -1.0 and 3.0.'
    >>> better("A", "B", Estimate(-0.48, -1.186, 0.223, 3), "accuracy")[-24:]
    'between -100.0 and 22.3.'
    """
    told = _points if is_share else words.number
    unit = "points " if is_share else ""
    if not difference.is_known:
        return f"Whether {a} or {b} has more {what} cannot be told: too few trainings came through."
    low, high = sorted((told(difference.low), told(difference.high)), key=float)
    if not difference.excludes_zero:
        size = f"{told(difference.value)} {unit}".strip()
        return (
            f"Whether {a} or {b} has more {what} cannot be told: the difference is {size}, and lies between {low} and "
            f"{high}."
        )
    size, more = told(abs(difference.value)), "more" if difference.value > 0 else "less"
    ends = sorted((abs(difference.low), abs(difference.high)))
    return f"{a} has {size} {unit}{more} {what} than {b} ({told(ends[0])} to {told(ends[1])})."


def points(gain: Estimate) -> str:
    """Return a difference of shares in percentage points, signed, with its ends.

    >>> points(Estimate(0.02, 0.01, 0.03, 5))
    '+2.0 points (+1.0 to +3.0)'
    """
    if not gain.is_known:
        return "an unknown amount"
    low, value, high = (f"{100 * one:+.1f}" for one in (gain.low, gain.value, gain.high))
    return f"{value} points ({low} to {high})"


def share(value: float) -> str:
    """Return a share in percent."""
    return words.percent(value)


def joined(parts: Sequence[str]) -> str:
    """Join words as a sentence does.

    >>> joined(["a", "b", "c"]), joined(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def _points(difference: float) -> str:
    """Return a difference of shares in percentage points; beyond the 100 that shares can differ an end says nothing."""
    return f"{min(max(100 * difference, -MOST_POINTS), MOST_POINTS):.1f}"
