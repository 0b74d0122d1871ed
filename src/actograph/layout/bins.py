"""The fixed signed logarithmic bins of every histogram.

No idea of tensors, layers or time: a bin index is read off the bits of one float32.

A bin is one quarter of an octave: the sign, the exponent and the two highest mantissa bits select it, so an index costs
a shift and a clip. This is DDSketch (Masson, Rim, Lee 2019, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees") with edges that the hardware has already computed. The widest bins span a factor of 1.25, so
a value is known within sqrt(1.25) - 1 < 12 %. Bins from low to high value::

    0                    -overflow   x <= -2^17
    1 .. 172             negative    from -2^17 to -2^-26
    173                  -underflow  -2^-26 < x < 0
    174                  zero        x == 0, either sign
    175                  +underflow  0 < x < 2^-26
    176 .. 347           positive    from 2^-26 to 2^17
    348                  +overflow   x >= 2^17
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS = 2  # bins per octave = 2^2: a relative width of at most 25 %
MIN_EXPONENT = -26  # below it float16 has no normal numbers and nothing of a network is told apart
MAX_EXPONENT = 17  # float16 ends at 65,504 < 2^17
BINS_PER_SIGN = (MAX_EXPONENT - MIN_EXPONENT) << MANTISSA_BITS  # 172
MAGNITUDES = BINS_PER_SIGN + 2  # with underflow (0) and overflow (173)
ZERO_BIN = MAGNITUDES  # 174
NUM_BINS = 2 * MAGNITUDES + 1  # 349

FLOAT32_BIAS = 127
KEY_SHIFT = 23 - MANTISSA_BITS  # the float32 mantissa has 23 bits
# float32 bits >> KEY_SHIFT counts quarter octaves; subtracting this makes 2^-26 the first regular magnitude (1)
KEY_OFFSET = ((FLOAT32_BIAS + MIN_EXPONENT) << MANTISSA_BITS) - 1  # 403


def _magnitude_edges() -> NDArray[np.float64]:
    quarters = np.arange(BINS_PER_SIGN + 1)
    exponent, mantissa = np.divmod(quarters, 1 << MANTISSA_BITS)
    edges: NDArray[np.float64] = np.ldexp(1.0 + mantissa / (1 << MANTISSA_BITS), exponent + MIN_EXPONENT)
    return edges


def _edges() -> NDArray[np.float64]:
    up = _magnitude_edges()  # 2^-26 ... 2^17
    return np.concatenate([[-np.inf], -up[::-1], [0.0, 0.0], up, [np.inf]])


MAGNITUDE_EDGES = _magnitude_edges()  # (173,)
EDGES = _edges()  # (350,): bin i lies between EDGES[i] and EDGES[i + 1]; the zero bin has no width


def _centers() -> NDArray[np.float64]:
    """Return the geometric middle of each bin; open bins are represented by their finite edge."""
    up = MAGNITUDE_EDGES
    positive = np.concatenate([[up[0] / 2], np.sqrt(up[:-1] * up[1:]), [up[-1]]])
    return np.concatenate([-positive[::-1], [0.0], positive])


CENTERS = _centers()  # (349,): the value that stands for each bin


def bin_index(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the bin of each finite value.

    ``values`` may have any shape and any float type; values are rounded to float32 first (the sign and whether it is
    zero are taken before rounding). The result has the same shape. NaN and infinity have no bin: the caller leaves them out.

    >>> bin_index(np.array([-1.0, 0.0, 1.0])).tolist()
    [68, 174, 280]
    """
    values = np.asarray(values)
    with np.errstate(over="ignore"):
        bits = np.abs(values).astype(np.float32).view(np.uint32).astype(np.int64)
    magnitude = np.clip((bits >> KEY_SHIFT) - KEY_OFFSET, 0, MAGNITUDES - 1)
    return np.where(values == 0, ZERO_BIN, ZERO_BIN + np.where(values < 0, -1, 1) * (magnitude + 1))


def histogram(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count the finite ``values`` (any shape) into the bins; returns (NUM_BINS,)."""
    finite = np.asarray(values).ravel()
    finite = finite[np.isfinite(finite)]
    return np.bincount(bin_index(finite), minlength=NUM_BINS).astype(np.int64)


def quantile(hist: NDArray[np.integer | np.floating], share: float) -> NDArray[np.float64]:
    """Return the value below which ``share`` of the counts lie, within 12 %.

    ``hist`` is (..., NUM_BINS); the result drops the last axis and is NaN where a histogram is empty.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is {share}; a quantile needs a share between 0 and 1")
    cumulative = np.cumsum(hist, axis=-1, dtype=np.float64)
    total = cumulative[..., -1:]
    index = np.argmax(cumulative >= np.maximum(share * total, np.minimum(total, 1.0)), axis=-1)
    return np.where(total[..., 0] > 0, CENTERS[index], np.nan)
