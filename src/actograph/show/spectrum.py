"""One layer's histogram over time, made ready for drawing: the rows of the colorful-dimension picture.

No idea of colours or of Plotly. The bins stay what they are but for two things: bins beyond the outermost occupied one are
left out, and bins so close to zero that hardly any value falls there are joined to one row on either side of zero.
Without the joining, 26 octaves down to 2^-26 would fill the picture and the values that matter would share a few lines.

Positions on the axis count rows from zero: the zero row takes -1 to 1, the joined rows 1 to 2, every bin beyond one more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actograph.layout import bins
from actograph.layout.row import Floats
from actograph.runlog.view import RunView

INNER_SHARE = 0.005  # bins around zero are joined while they hold less than this of all non-zero values,
INNER_SHARE_AT_ONCE = 0.05  # and less than this of those of any one step
ZERO_ROW = 1.0  # the zero row reaches from -1 to 1: two rows high, to be seen
MIN_TICK_DISTANCE = 0.045  # of the axis: labels of 11 px on 300 px do not touch
MAX_TICKS_A_SIDE = 5
DECADES = tuple(10.0**k for k in range(-8, 6))  # 2^-26 to 2^17
MINUS = "\N{MINUS SIGN}"
FEW_DECADES = 2  # with fewer decade ticks than this, 2 and 5 times a decade are labelled too


@dataclass(frozen=True)
class Spectrum:
    """Rows from low to high value over T buckets.

    ``log_counts`` (R, T) is log1p of the mean count per recorded step. ``edges`` (R + 1,) are row borders on the axis.
    ``lows`` and ``highs`` (R,) are the values a row reaches from and to.
    """

    log_counts: Floats
    edges: Floats
    lows: Floats
    highs: Floats
    inner: int  # first magnitude bin (0 to 173) that is drawn on its own

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to draw: no step, or no finite value at any."""
        return self.log_counts.size == 0

    def position(self, value: float) -> float:
        """Return where a value stands on the axis."""
        if value == 0:
            return 0.0
        magnitude = float(np.interp(abs(value), bins.MAGNITUDE_EDGES, np.arange(1, bins.MAGNITUDES)))
        return float(np.copysign(max(self._own_rows + magnitude - self.inner, ZERO_ROW), value))

    def ticks(self) -> dict[float, str]:
        """Return positions and labels: zero and round values on either side."""
        if self.is_empty:
            return {}
        up, down = self._labels(self.edges[-1]), self._labels(-self.edges[0])
        ticks = {0.0: "0"} | up | {-at: f"{MINUS}{label}" for at, label in down.items()}
        return dict(sorted(ticks.items()))

    @property
    def _own_rows(self) -> float:
        """Where the rows of single bins begin."""
        return ZERO_ROW + min(self.inner, 1)

    def _labels(self, end: float) -> dict[float, str]:
        """Return positions and labels of round values up to a position."""
        apart = MIN_TICK_DISTANCE * float(self.edges[-1] - self.edges[0])
        begin = max(self._own_rows, apart)
        inside = [value for value in DECADES if begin <= self.position(value) <= end]
        if len(inside) < FEW_DECADES:
            finer = [value * factor for value in DECADES for factor in (1, 2, 5)]
            inside = [value for value in finer if begin <= self.position(value) <= end]
        every = -(-len(inside) // MAX_TICKS_A_SIDE) or 1
        return {self.position(value): f"{value:g}" for value in inside[::-1][::every]}


def mean_log_counts(view: RunView, layer: int | str) -> Floats:
    """Return log1p of each bin's mean count per recorded step (NUM_BINS, T), low bin first.

    The mean makes merged buckets of old steps comparable with single recent steps.
    """
    counts = view.histogram(layer) / view.num_recorded[:, None]
    return np.log1p(counts).T


def spectrum(view: RunView, layer: int | str) -> Spectrum:
    """Return the rows of one layer's picture."""
    counts = (view.histogram(layer) / view.num_recorded[:, None]).T  # (NUM_BINS, T)
    negative, positive = counts[: bins.ZERO_BIN][::-1], counts[bins.ZERO_BIN + 1 :]  # from zero outwards
    inner = _inner_bin(negative + positive)
    low_rows, low_values = _side(negative, inner)
    high_rows, high_values = _side(positive, inner)
    if not counts.any():
        return Spectrum(np.zeros((0, 0)), np.zeros(1), np.zeros(0), np.zeros(0), inner)
    rows = np.concatenate([low_rows[::-1], counts[[bins.ZERO_BIN]], high_rows])
    return Spectrum(
        log_counts=np.log1p(rows),
        edges=np.concatenate([-_row_edges(low_rows)[::-1], _row_edges(high_rows)]),
        lows=np.concatenate([-low_values[1:][::-1], [0.0], high_values[:-1]]),
        highs=np.concatenate([-low_values[:-1][::-1], [0.0], high_values[1:]]),
        inner=inner,
    )


def _inner_bin(magnitudes: Floats) -> int:
    """Return the first magnitude bin drawn on its own, given the counts (MAGNITUDES, T) of both signs."""
    totals = magnitudes.sum(axis=0)
    weighty = totals > INNER_SHARE * totals.max(initial=0.0)  # a few stray values are no reason to zoom in
    if not weighty.any():
        return 0
    cumulative = np.cumsum(magnitudes[:, weighty], axis=0)
    at_once = (cumulative / totals[weighty]).max(axis=1)
    on_the_whole = cumulative.sum(axis=1) / totals[weighty].sum()
    ends = ((on_the_whole, INNER_SHARE), (at_once, INNER_SHARE_AT_ONCE))
    return min(int(np.searchsorted(shares, limit, side="right")) for shares, limit in ends)


def _side(magnitudes: Floats, inner: int) -> tuple[Floats, Floats]:
    """Return the rows (R, T) of one sign from zero outwards and the values (R + 1,) between them."""
    occupied = np.flatnonzero(magnitudes.any(axis=1))
    if not len(occupied):
        return magnitudes[:0], np.zeros(1)
    end = max(int(occupied[-1]), inner) + 1
    values = np.concatenate([[0.0], bins.MAGNITUDE_EDGES, [np.inf]])  # between magnitude bins
    first = [0.0] if inner else []
    joined = magnitudes[:inner].sum(axis=0, keepdims=True)[: len(first)]
    return np.concatenate([joined, magnitudes[inner:end]]), np.concatenate([first, values[inner : end + 1]])


def _row_edges(rows: Floats) -> Floats:
    return ZERO_ROW + np.arange(len(rows) + 1.0)
