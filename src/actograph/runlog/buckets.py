"""What one stretch of recorded steps holds: `Bucket` of all layers, `ParameterBucket` of all parameters.

No idea of how many there are or where they are kept. Buckets merge in time order; what only later ones know is taken over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from actograph.layout.parameter import empty_parameter_rows, merge_parameter_rows
from actograph.layout.row import Counts, Floats, empty_rows, merge_counts, merge_rows


@dataclass(frozen=True)
class Bucket:
    """All layers over consecutive recorded steps.

    ``rows`` is (layers, NUM_FIELDS), ``hist`` (layers, NUM_BINS) unsigned, ``fired`` the layers' unit flags, each layer's
    bits packed into whole bytes (`packed_size`) and joined.
    """

    first_step: int
    last_step: int
    num_steps: int
    rows: Floats
    hist: Counts
    fired: NDArray[np.uint8]


@dataclass(frozen=True)
class ParameterBucket:
    """All parameters over consecutive recorded steps; ``rows`` is (parameters, NUM_PARAMETER_FIELDS)."""

    first_step: int
    last_step: int
    num_steps: int
    rows: Floats


def packed_size(num_units: int) -> int:
    """Return the bytes that hold one flag for each unit."""
    return (num_units + 7) // 8


def merge_buckets(buckets: Sequence[Bucket]) -> Bucket:
    """Merge buckets in time order; layers that only later ones know are taken over."""
    if len(buckets) == 1:
        return buckets[0]
    last = buckets[-1]
    buckets = [_with_layers(bucket, len(last.rows), len(last.fired)) for bucket in buckets]
    return Bucket(
        first_step=buckets[0].first_step,
        last_step=last.last_step,
        num_steps=sum(bucket.num_steps for bucket in buckets),
        rows=merge_rows(np.stack([bucket.rows for bucket in buckets])),
        hist=merge_counts(np.stack([bucket.hist for bucket in buckets])),
        fired=np.bitwise_or.reduce([bucket.fired for bucket in buckets]),
    )


def with_all_layers(buckets: Sequence[Bucket]) -> list[Bucket]:
    """Return the buckets with the same layers in each: those of the last one."""
    if not buckets:
        return []
    most = max(buckets, key=lambda bucket: len(bucket.rows))
    return [_with_layers(bucket, len(most.rows), len(most.fired)) for bucket in buckets]


def merge_parameter_buckets(buckets: Sequence[ParameterBucket]) -> ParameterBucket:
    """Merge buckets in time order; parameters that only later ones know are taken over."""
    if len(buckets) == 1:
        return buckets[0]
    rows = merge_parameter_rows(np.stack([bucket.rows for bucket in with_all_parameters(buckets)]))
    num_steps = sum(bucket.num_steps for bucket in buckets)
    return ParameterBucket(buckets[0].first_step, buckets[-1].last_step, num_steps, rows)


def with_all_parameters(buckets: Sequence[ParameterBucket]) -> list[ParameterBucket]:
    """Return the buckets with the same parameters in each: those of the one that has most."""
    most = max((len(bucket.rows) for bucket in buckets), default=0)
    return [_with_parameters(bucket, most - len(bucket.rows)) for bucket in buckets]


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
