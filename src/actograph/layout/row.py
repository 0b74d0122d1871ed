"""A row: the sufficient statistics of one tensor, and how rows merge.

No idea of how a row is measured. A row is `NUM_FIELDS` float64 numbers, a histogram of `NUM_BINS` counts and, where the
layer has a flat region, one flag per unit that fired. Moments are kept for x < 0 and x > 0 apart (zeros need none): the
mean and spread of the whole follow exactly, and so does the row of a ReLU from that of its producer (`sketch/derived.py`).

Moments, minimum, maximum and histogram are over finite values. Merging adds counts, takes min and max, and joins the
moments pairwise (Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances").
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NEAR_ZERO = 0.05  # |x| <= 0.05 is "near zero": fastai's figure, but two-sided (fastai counts every negative)

MOST_COUNT = int(np.iinfo(np.uint32).max)

Floats = NDArray[np.float64]
Counts = NDArray[np.integer | np.floating]


class Field(IntEnum):
    """Positions in a row, each with what it holds."""

    NEG_COUNT = 0  # finite values below zero
    NEG_MEAN = 1
    NEG_M2 = 2  # sum of squared deviations from NEG_MEAN
    POS_COUNT = 3  # finite values above zero
    POS_MEAN = 4
    POS_M2 = 5
    ZEROS = 6  # exact zeros of either sign
    NEAR_ZERO = 7  # finite values with |x| <= 0.05, exact zeros among them
    NAN = 8
    INF = 9
    FLAT = 10  # values in the flat region of the layer's own nonlinearity; 0 where it has none
    MIN = 11  # of finite values; +inf when there are none
    MAX = 12  # of finite values; -inf when there are none
    FIRST_NON_FINITE = 13  # step at which a NaN or Inf was first seen; +inf when never
    NEAR_ZERO_NEG = (
        14  # of NEAR_ZERO, those below zero: a ReLU that follows makes zeros of them like of all below
    )
    INF_NEG = 15  # of INF, those that are -inf: of these, too


NUM_FIELDS = len(Field)

_SUMS = [
    Field.ZEROS,
    Field.NEAR_ZERO,
    Field.NAN,
    Field.INF,
    Field.FLAT,
    Field.NEAR_ZERO_NEG,
    Field.INF_NEG,
]
_MINIMA = [Field.MIN, Field.FIRST_NON_FINITE]


class Moments(NamedTuple):
    """Number of values, their mean and sum of squared deviations, each of any one shape."""

    num: Floats
    mean: Floats
    m2: Floats


def empty_rows(*shape: int) -> Floats:
    """Return rows (*shape, NUM_FIELDS) of nothing measured: the neutral element of `merge_rows`."""
    rows = np.zeros((*shape, NUM_FIELDS))
    rows[..., [Field.MIN, Field.FIRST_NON_FINITE]] = np.inf
    rows[..., Field.MAX] = -np.inf
    return rows


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Join the moments of two disjoint samples (Chan et al. 1979, eq. 2.1)."""
    num = a.num + b.num
    share = b.num / np.maximum(num, 1.0)
    delta = b.mean - a.mean
    return Moments(num, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.num * share)


def negative_moments(rows: Floats) -> Moments:
    """Return the moments of the values below zero of rows (..., NUM_FIELDS)."""
    return Moments(rows[..., Field.NEG_COUNT], rows[..., Field.NEG_MEAN], rows[..., Field.NEG_M2])


def positive_moments(rows: Floats) -> Moments:
    """Return the moments of the values above zero of rows (..., NUM_FIELDS)."""
    return Moments(rows[..., Field.POS_COUNT], rows[..., Field.POS_MEAN], rows[..., Field.POS_M2])


def moments(rows: Floats) -> Moments:
    """Return the moments of all finite values of rows (..., NUM_FIELDS)."""
    zeros = rows[..., Field.ZEROS]
    nothing = np.zeros_like(zeros)
    signed = merge_moments(negative_moments(rows), positive_moments(rows))
    return merge_moments(signed, Moments(zeros, nothing, nothing))


def merge_rows(rows: Floats) -> Floats:
    """Merge rows (n, ..., NUM_FIELDS) over their first axis: counts, min and max exactly, moments to rounding."""
    merged = np.empty(rows.shape[1:])
    for first in (Field.NEG_COUNT, Field.POS_COUNT):
        num, mean, m2 = rows[..., first], rows[..., first + 1], rows[..., first + 2]
        total = num.sum(axis=0)
        center = (num * mean).sum(axis=0) / np.maximum(total, 1.0)
        merged[..., first] = total
        merged[..., first + 1] = center
        merged[..., first + 2] = (m2 + num * (mean - center) ** 2).sum(axis=0)
    merged[..., _SUMS] = rows[..., _SUMS].sum(axis=0)
    merged[..., _MINIMA] = rows[..., _MINIMA].min(axis=0)
    merged[..., Field.MAX] = rows[..., Field.MAX].max(axis=0)
    return merged


def merge_counts(counts: Counts) -> Counts:
    """Add histograms over their first axis: exact in 32 bits, and as float32 (7 digits) once a count outgrows them."""
    if counts.dtype.kind == "u" and int(counts.max(initial=0)) * len(counts) <= MOST_COUNT:
        small: Counts = counts.sum(axis=0, dtype=np.uint32)
        return small
    total: Floats = counts.sum(axis=0, dtype=np.float64)  # exact up to 2^53
    fits = not total.size or total.max() <= MOST_COUNT
    return total.astype(np.uint32 if fits else np.float32)
