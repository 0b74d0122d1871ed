"""What one stretch of recorded steps holds: `Bucket` of all layers, `ParameterBucket` of all parameters.

No idea of how many there are or where they are kept. Buckets merge in time order; what only later ones know is taken over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from actograph.layout.parameter import empty_parameter_rows, merge_parameter_rows
from actograph.layout.row import Counts, Floats, empty_rows, merge_counts, merge_rows

MERGED_AT_ONCE = 32  # buckets whose copies are in memory beside them

N = TypeVar("N", bound=np.generic)


@dataclass(frozen=True)
class Stretch:
    """Consecutive recorded steps and what was measured in them, one row for each thing measured."""

    first_step: int
    last_step: int
    num_steps: int
    rows: Floats


@dataclass(frozen=True)
class Bucket(Stretch):
    """All layers over consecutive recorded steps.

    ``rows`` is (layers, NUM_FIELDS), ``hist`` (layers, NUM_BINS) unsigned, ``fired`` the layers' unit flags, each layer's
    bits packed into whole bytes (`packed_size`) and joined.
    """

    hist: Counts
    fired: NDArray[np.uint8]


@dataclass(frozen=True)
class ParameterBucket(Stretch):
    """All parameters over consecutive recorded steps; ``rows`` is (parameters, NUM_PARAMETER_FIELDS)."""


def packed_size(num_units: int) -> int:
    """Return the bytes that hold one flag for each unit."""
    return (num_units + 7) // 8


def merge_buckets(buckets: Sequence[Bucket], size: int) -> list[Bucket]:
    """Merge each ``size`` neighbours, the last ones too where there are fewer; layers that only later ones know are added.

    Of as many groups as possible at once: a call of numpy costs as much as the numbers of some layers.
    """
    if size == 1 or len(buckets) == 1:
        return list(buckets)
    whole = len(buckets) - len(buckets) % size
    at_once = max(MERGED_AT_ONCE // size, 1) * size
    merged: list[Bucket] = []
    for begin in range(0, whole, at_once):
        merged += _merge_groups(with_all_layers(buckets[begin : min(begin + at_once, whole)]), size)
    rest = buckets[whole:]
    return [*merged, *(_merge_groups(with_all_layers(rest), len(rest)) if rest else [])]


def with_all_layers(buckets: Sequence[Bucket]) -> list[Bucket]:
    """Return the buckets with the same layers in each: those of the last one."""
    if not buckets:
        return []
    most = max(buckets, key=lambda bucket: len(bucket.rows))
    return [_with_layers(bucket, len(most.rows), len(most.fired)) for bucket in buckets]


def merge_parameter_buckets(buckets: Sequence[ParameterBucket], size: int) -> list[ParameterBucket]:
    """Merge each ``size`` neighbours, the last ones too where there are fewer; later ones may know more parameters."""
    groups = (buckets[begin : begin + size] for begin in range(0, len(buckets), size))
    return [_merge_parameters(group) for group in groups]


def with_all_parameters(buckets: Sequence[ParameterBucket]) -> list[ParameterBucket]:
    """Return the buckets with the same parameters in each: those of the one that has most."""
    most = max((len(bucket.rows) for bucket in buckets), default=0)
    return [_with_parameters(bucket, most - len(bucket.rows)) for bucket in buckets]


def _merge_groups(buckets: Sequence[Bucket], size: int) -> list[Bucket]:
    """Merge each ``size`` neighbours of buckets with the same layers."""
    rows = _in_groups([bucket.rows for bucket in buckets], size)  # (size, groups, layers, NUM_FIELDS)
    counts = _in_groups([bucket.hist for bucket in buckets], size)
    hist = list(merge_counts(counts))
    if hist[0].dtype.kind == "f":  # a count of one group has outgrown 32 bits: the others stay exact
        hist = [merge_counts(group) for group in counts.swapaxes(0, 1)]
    fired = np.bitwise_or.reduce(_in_groups([bucket.fired for bucket in buckets], size))
    groups = [buckets[begin : begin + size] for begin in range(0, len(buckets), size)]
    parts = zip(groups, merge_rows(rows), hist, fired, strict=True)
    return [Bucket(*_span(group), *merged) for group, *merged in parts]


def _in_groups(arrays: Sequence[NDArray[N]], size: int) -> NDArray[N]:
    """Return (size, groups, ...): the n-th of each group together."""
    stacked = np.stack(arrays)
    return stacked.reshape(len(arrays) // size, size, *stacked.shape[1:]).swapaxes(0, 1)


def _span(buckets: Sequence[Bucket | ParameterBucket]) -> tuple[int, int, int]:
    """Return first step, last step and number of steps of neighbours."""
    return buckets[0].first_step, buckets[-1].last_step, sum(bucket.num_steps for bucket in buckets)


def _merge_parameters(buckets: Sequence[ParameterBucket]) -> ParameterBucket:
    if len(buckets) == 1:
        return buckets[0]
    rows = np.stack([bucket.rows for bucket in with_all_parameters(buckets)])
    return ParameterBucket(*_span(buckets), merge_parameter_rows(rows))


def _with_layers(bucket: Bucket, num_layers: int, fired_bytes: int) -> Bucket:
    """Return the bucket with empty entries for layers discovered after it (new layers come last)."""
    missing = num_layers - len(bucket.rows)
    if missing == 0:
        return bucket
    return replace(
        bucket,
        rows=np.concatenate([bucket.rows, empty_rows(missing)]),
        hist=np.concatenate([bucket.hist, np.zeros((missing, bucket.hist.shape[1]), bucket.hist.dtype)]),
        fired=np.concatenate([bucket.fired, np.zeros(fired_bytes - len(bucket.fired), np.uint8)]),
    )


def _with_parameters(bucket: ParameterBucket, missing: int) -> ParameterBucket:
    if missing == 0:
        return bucket
    return replace(bucket, rows=np.concatenate([bucket.rows, empty_parameter_rows(missing)]))
