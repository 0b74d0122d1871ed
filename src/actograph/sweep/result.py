"""`LRFind`: what a range test measured, the rates it suggests, and its figure.

No idea of training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actograph.errors import UsageError
from actograph.layout.row import Floats
from actograph.show.plain import plain_number
from actograph.show.rate_picture import rate_picture
from actograph.show.series import smoothed
from actograph.sweep.refusal import refusal
from actograph.sweep.suggestions import SUGGESTIONS, usable_part

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class LRFind:
    """The curve of a range test, and the learning rates that are read off it.

    The rates are those of the parameter group with the largest one, as a number given to ``fit`` is.

    Attributes:
        rates: (n,) of each iteration, rising.
        losses: (n,) of each iteration, before its step; the mean over the repeats where there are several.
        smoothed: (n,) running mean of the losses.
        suggestions: rates by name: valley, steep, minimum, slide; of several repeats the median. Empty if ``refusal``.
        refusal: why nothing is suggested, or None.
        repeats: each by itself, where there are several.

    """

    rates: Floats
    losses: Floats
    smoothed: Floats
    suggestions: Mapping[str, float]
    refusal: str | None = None
    repeats: tuple[LRFind, ...] = ()

    @property
    def valley(self) -> float:
        """A rate in the longest fall of the loss; the one to take where in doubt."""
        return self._suggested("valley")

    @property
    def steep(self) -> float:
        """The rate at which the loss falls fastest, per unit of the rate's logarithm."""
        return self._suggested("steep")

    @property
    def minimum(self) -> float:
        """A tenth of the rate at which the loss is smallest."""
        return self._suggested("minimum")

    @property
    def slide(self) -> float:
        """The highest rate before the loss bends upwards."""
        return self._suggested("slide")

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest suggestion of the repeats, by name; of one test alone twice the same."""
        each = [one.suggestions for one in self.repeats or (self,) if one.suggestions]
        return {name: (min(s[name] for s in each), max(s[name] for s in each)) for name in self.suggestions}

    def plot(self) -> go.Figure:
        """Draw the loss over the rates, with the suggestions."""
        from actograph.show.rate_curve import rate_curve  # noqa: PLC0415 - plotly is slow to import

        repeats = [(one.rates, one.smoothed) for one in self.repeats]
        return rate_curve(self.rates, self.losses, self.smoothed, self.suggestions, repeats)

    def picture(self) -> str:
        """Return the curve and the suggestions as lines of text, for a terminal."""
        return rate_picture(self.rates, self.smoothed, self.suggestions)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; a loss that is not finite is null."""
        return {
            "suggestions": dict(self.suggestions),
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "refusal": self.refusal,
            "rates": self.rates.tolist(),
            "losses": [plain_number(loss) for loss in self.losses.tolist()],
            "smoothed": [plain_number(loss) for loss in self.smoothed.tolist()],
            "repeats": [one.to_json() for one in self.repeats],
        }

    def __str__(self) -> str:
        if self.refusal is not None:
            return f"no learning rate is suggested: {self.refusal}"
        told = ", ".join(map(self._told, self.suggestions.items()))
        num_refusing = sum(one.refusal is not None for one in self.repeats)
        return told + (
            f"; {num_refusing} of {len(self.repeats)} repeats suggest nothing" if num_refusing else ""
        )

    def _told(self, suggestion: tuple[str, float]) -> str:
        name, rate = suggestion
        low, high = self.ranges[name]
        return f"{name} {rate:.2g}" + (f" ({low:.2g} to {high:.2g})" if self.repeats else "")

    def _suggested(self, name: str) -> float:
        if self.refusal is not None:
            raise UsageError(f"no learning rate is suggested: {self.refusal}")
        return self.suggestions[name]


def read_off(rates: Floats, losses: Floats, num_it: int, end: str) -> LRFind:
    """Return what one test of at most ``num_it`` iterations shows, rates and losses (n,); ``end`` says why it ended."""
    smooth = smoothed(losses)
    reason = refusal(losses, smooth, num_it, end)
    part = usable_part(smooth, num_it)
    suggestions = (
        {} if reason else {name: suggest(rates[part], smooth[part]) for name, suggest in SUGGESTIONS.items()}
    )
    return LRFind(rates, losses, smooth, suggestions, reason)


def joined(tests: Sequence[LRFind]) -> LRFind:
    """Return several tests of the same rates as one: mean losses, median suggestions.

    Nothing is suggested where half of the tests or more suggest nothing.
    """
    if len(tests) == 1:
        return tests[0]
    length = min(len(test.rates) for test in tests)
    losses = np.mean([test.losses[:length] for test in tests], axis=0)
    suggesting = [test for test in tests if test.refusal is None]
    reason = None
    if 2 * len(suggesting) <= len(tests):
        first = next(test.refusal for test in tests if test.refusal is not None)
        reason = f"in {len(tests) - len(suggesting)} of {len(tests)} repeats; in the first of them {first}"
    suggestions = (
        {} if reason else {name: _median([t.suggestions[name] for t in suggesting]) for name in SUGGESTIONS}
    )
    return LRFind(tests[0].rates[:length], losses, smoothed(losses), suggestions, reason, tuple(tests))


def _median(rates: Sequence[float]) -> float:
    """Return the median rate, between two the geometric mean."""
    return math.sqrt(statistics.median_low(rates) * statistics.median_high(rates))
