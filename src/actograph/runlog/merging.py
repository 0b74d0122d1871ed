"""`RankMerge`: the runs that the ranks of one training wrote, as one run.

No idea of files. Each rank has thinned and merged its steps by itself, so the first thing is a common time axis
(`common_ends`); then rows merge as those of micro-batches do. One rank after the other is taken in: time is linear in their
number, and memory that of one run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import LayerInfo
from actograph.layout.parameter import ParameterField, empty_parameter_rows
from actograph.layout.row import Floats, empty_rows
from actograph.runlog.buckets import (
    Bucket,
    ParameterBucket,
    Stretch,
    merge_buckets,
    merge_parameter_buckets,
    packed_size,
)
from actograph.runlog.flags import FlagBucket, WideFlags, is_wide, merge_flags
from actograph.runlog.parameters import ParameterView
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.schema import Cost, RankInfo
from actograph.runlog.view import RunView

GRAD_NORM = (
    "grad_norm"  # the scalar that is a norm over all parameters; one of several optimizers has a suffix
)

S = TypeVar("S", Bucket, ParameterBucket, FlagBucket)
Merge: TypeAlias = Callable[[Sequence[S], int], list[S]]
Steps: TypeAlias = NDArray[np.int64]
Key: TypeAlias = tuple[str, str]  # phase and name of a scalar


class RankMerge:
    """Takes in the views of one rank after the other; `view` is the run of all of them.

    What is not measured but told (name, environment, events) is that of the first rank given.
    """

    def __init__(self, first: RunView) -> None:
        self._first = first
        self._ranks = [rank_info(first)]
        self._layers, self._buckets = first.layers, first.buckets
        self._gradient_layers, self._gradient_buckets = first.gradient_layers, first.gradient_buckets
        self._wide_flags = dict(first.wide_flags)
        self._parameters = first.parameters
        self._scalars = dict(first.scalars)
        self._shares = {key: np.ones(len(series)) for key, series in first.scalars.items()}

    def add(self, view: RunView) -> None:
        """Take in one more rank."""
        rank = view.info.rank
        self._ranks.append(rank_info(view))
        self._layers, names, self._buckets = _merge_sketches(
            self._layers, self._buckets, view.layers, view.buckets, rank
        )
        self._gradient_layers, _, self._gradient_buckets = _merge_sketches(
            self._gradient_layers, self._gradient_buckets, view.gradient_layers, view.gradient_buckets, rank
        )
        self._merge_wide_flags({names[name]: flags for name, flags in view.wide_flags.items()})
        self._parameters = merge_parameters(self._parameters, view.parameters)
        self._merge_scalars(view.scalars)

    def view(self) -> RunView:
        """Return the run of all ranks taken in so far."""
        return replace(
            self._first,
            info=replace(self._first.info, cost=merge_costs([one.info.cost for one in self._ranks])),
            layers=self._layers,
            buckets=self._buckets,
            gradient_layers=self._gradient_layers,
            gradient_buckets=self._gradient_buckets,
            wide_flags=self._wide_flags,
            parameters=self._parameters,
            scalars=self._scalars,
            ranks=tuple(self._ranks),
        )

    def _merge_wide_flags(self, others: Mapping[str, WideFlags]) -> None:
        for name, flags in others.items():
            mine = self._wide_flags.get(name)
            joined = (*flags.long, *flags.recent)
            if mine is not None:
                joined = tuple(merge_over_ranks((*mine.long, *mine.recent), joined, merge_flags, merge_flags))
            self._wide_flags[name] = WideFlags(joined, ())

    def _merge_scalars(self, others: Mapping[Key, ScalarSeries]) -> None:
        shards = [parameter.is_shard for parameter in self._parameters.parameters]
        for key, series in others.items():
            mine, share = self._scalars.get(key), np.ones(len(series))
            if mine is None:
                self._scalars[key], self._shares[key] = series, share
            elif shards and all(shards) and key[1].startswith(GRAD_NORM):
                self._scalars[key] = join_norms(mine, series)
            else:
                merged = merge_series(mine, self._shares[key], series, share)
                self._scalars[key], self._shares[key] = merged


def rank_info(view: RunView) -> RankInfo:
    """Return what one rank's view tells of itself."""
    return RankInfo(view.info, view.num_steps)


def merge_costs(costs: Sequence[Cost]) -> Cost:
    """Return the ranks' seconds together, so that the share is their mean, and the fewest steps recorded by one of them."""
    return Cost(
        recorder_s=sum(cost.recorder_s for cost in costs),
        elapsed_s=sum(cost.elapsed_s for cost in costs),
        steps_seen=max(cost.steps_seen for cost in costs),
        steps_recorded=min(cost.steps_recorded for cost in costs),
        budget=costs[0].budget,
    )


def common_ends(a: Steps, b: Steps) -> Steps:
    """Return the last step of each part of a time axis on which two ranks can be merged.

    ``a`` and ``b`` (n, 2) have first and last step of each rank's buckets. A part ends where each rank has finished one
    bucket at least; what reaches over that end belongs to the next part. Equal axes stay as they are, of nested ones the
    coarser stands, and others give a part no wider than the wider bucket and a step to it. Nobody waits for a rank that
    has not begun, or has ended.

    >>> common_ends(np.array([[0, 0], [1, 1], [2, 2], [3, 3]]), np.array([[0, 0], [1, 2]])).tolist()
    [0, 2, 3]
    """
    if np.array_equal(a, b):
        return a[:, 1]
    ends: list[int] = []
    first_a, last_a, first_b, last_b = (column.tolist() for column in (*a.T, *b.T))
    i = j = 0
    while i < len(a) and j < len(b):
        end = max(last_a[i], last_b[j])
        if (j == 0 and first_b[0] > last_a[i]) or (i == 0 and first_a[0] > last_b[j]):
            end = min(last_a[i], last_b[j])
        ends.append(end)
        while i < len(a) and last_a[i] <= end:
            i += 1
        while j < len(b) and last_b[j] <= end:
            j += 1
    return np.array([*ends, *last_a[i:], *last_b[j:]], np.int64)


def merge_over_ranks(a: Sequence[S], b: Sequence[S], in_time: Merge[S], of_ranks: Merge[S]) -> list[S]:
    """Return two ranks' buckets as one sequence; ``in_time`` joins neighbours of one rank, ``of_ranks`` pairs of both.

    ``num_steps`` is that of the rank with more of them: it counts steps, not what was seen in them.
    """
    ends = common_ends(_spans(a), _spans(b))
    mine, theirs = _in_parts(a, ends, in_time), _in_parts(b, ends, in_time)
    both = sorted(mine.keys() & theirs.keys())
    pairs = of_ranks([bucket for part in both for bucket in (mine[part], theirs[part])], 2) if both else []
    merged = mine | theirs | dict(zip(both, pairs, strict=True))
    return [
        _spanning(merged[part], [one[part] for one in (mine, theirs) if part in one], ends, part)
        for part in sorted(merged)
    ]


def _spans(buckets: Sequence[Stretch] | Sequence[FlagBucket]) -> Steps:
    return np.array([(one.first_step, one.last_step) for one in buckets], np.int64).reshape(-1, 2)


def _in_parts(buckets: Sequence[S], ends: Steps, merge: Merge[S]) -> dict[int, S]:
    """Return one bucket for each part in which there is any."""
    parts = np.searchsorted(ends, [bucket.last_step for bucket in buckets]).tolist()
    found = {}
    for part, group in itertools.groupby(zip(parts, buckets, strict=True), key=lambda one: one[0]):
        members = [bucket for _, bucket in group]
        found[part] = members[0] if len(members) == 1 else merge(members, len(members))[0]
    return found


def _spanning(bucket: S, of: Sequence[S], ends: Steps, part: int) -> S:
    """Return a merged bucket with the steps it stands for; those of the part before are not among them."""
    begin = int(ends[part - 1]) + 1 if part else 0
    first = max(min(one.first_step for one in of), begin)
    return replace(
        bucket,
        first_step=first,
        last_step=max(one.last_step for one in of),
        num_steps=max(one.num_steps for one in of),
    )


# Layers


def _merge_sketches(
    layers: tuple[LayerInfo, ...],
    buckets: tuple[Bucket, ...],
    other_layers: tuple[LayerInfo, ...],
    other_buckets: tuple[Bucket, ...],
    rank: int,
) -> tuple[tuple[LayerInfo, ...], dict[str, str], tuple[Bucket, ...]]:
    """Return all layers, what the other's are called among them, and the buckets of both."""
    positions, all_layers = _match(layers, other_layers, rank)
    names = {one.name: all_layers[at].name for one, at in zip(other_layers, positions, strict=True)}
    mine = [_aligned(one, layers, list(range(len(layers))), all_layers) for one in buckets]
    theirs = [_aligned(one, other_layers, positions, all_layers) for one in other_buckets]
    return all_layers, names, tuple(merge_over_ranks(mine, theirs, merge_buckets, merge_buckets))


def _match(
    layers: tuple[LayerInfo, ...], others: tuple[LayerInfo, ...], rank: int
) -> tuple[list[int], tuple[LayerInfo, ...]]:
    """Return where each of another rank's layers stands among all layers; those of its own come last.

    A layer with another number of units (a part of it is on each rank) is none that can be merged.
    """
    known = {(layer.name, layer.num_flags): position for position, layer in enumerate(layers)}
    names = {layer.name for layer in layers}
    positions, added = [], list(layers)
    for layer in others:
        position = known.get((layer.name, layer.num_flags))
        if position is None:
            position = len(added)
            is_taken = layer.name in names
            added.append(replace(layer, name=f"{layer.name}@rank{rank}") if is_taken else layer)
        positions.append(position)
    return positions, tuple(added)


def _aligned(
    bucket: Bucket, layers: Sequence[LayerInfo], positions: list[int], all_layers: Sequence[LayerInfo]
) -> Bucket:
    """Return a bucket with a row for each of ``all_layers``, empty where it has none."""
    num_known = len(bucket.rows)
    if num_known == len(all_layers) and positions == list(range(len(all_layers))):
        return bucket
    rows = empty_rows(len(all_layers))
    hist = np.zeros((len(all_layers), NUM_BINS), bucket.hist.dtype)
    rows[positions[:num_known]], hist[positions[:num_known]] = bucket.rows, bucket.hist
    sizes = [_flag_bytes(layer) for layer in all_layers]
    fired = [np.zeros(size, np.uint8) for size in sizes]
    begin = 0
    for layer, position in zip(layers[:num_known], positions[:num_known], strict=True):
        fired[position] = bucket.fired[begin : begin + _flag_bytes(layer)]
        begin += _flag_bytes(layer)
    return replace(bucket, rows=rows, hist=hist, fired=np.concatenate([*fired, np.zeros(0, np.uint8)]))


def _flag_bytes(layer: LayerInfo) -> int:
    """Return the bytes of a layer's flags in a bucket; wide layers have theirs elsewhere."""
    return 0 if is_wide(layer.num_flags) else packed_size(layer.num_flags)


# Parameters


def merge_parameters(a: ParameterView, b: ParameterView) -> ParameterView:
    """Return both ranks' parameters: copies are averaged, shards are put together to the norm of the whole.

    The norm of the whole is exact where a bucket holds one step. Where it holds several, it is the root of the sum of
    the squares of the shards' mean norms, which is at most the mean of the whole's norms.
    """
    parameters = list(a.parameters)
    known = {parameter.name: position for position, parameter in enumerate(parameters)}
    parameters += [parameter for parameter in b.parameters if parameter.name not in known]
    known = {parameter.name: position for position, parameter in enumerate(parameters)}
    positions = [known[parameter.name] for parameter in b.parameters]
    is_shard = np.array([parameter.is_shard for parameter in parameters], np.bool_)
    mine = [_with_parameters(one, list(range(len(one.rows))), len(parameters)) for one in a.buckets]
    theirs = [_with_parameters(one, positions[: len(one.rows)], len(parameters)) for one in b.buckets]

    def of_ranks(pairs: Sequence[ParameterBucket], size: int) -> list[ParameterBucket]:
        merged = merge_parameter_buckets(pairs, size)
        for bucket, one, other in zip(merged, pairs[::2], pairs[1::2], strict=True):
            _join_shards(bucket.rows, one.rows, other.rows, is_shard)
        return merged

    return ParameterView(
        tuple(parameters), tuple(merge_over_ranks(mine, theirs, merge_parameter_buckets, of_ranks))
    )


def _with_parameters(bucket: ParameterBucket, positions: list[int], num_parameters: int) -> ParameterBucket:
    rows = empty_parameter_rows(num_parameters)
    rows[positions] = bucket.rows
    return replace(bucket, rows=rows)


def _join_shards(merged: Floats, a: Floats, b: Floats, is_shard: NDArray[np.bool_]) -> None:
    """Put into merged rows (parameters, NUM_PARAMETER_FIELDS) the shards' norms joined, times the steps they count for."""
    for norm, steps in (
        (ParameterField.GRAD_NORM, ParameterField.FINITE),
        (ParameterField.WEIGHT_NORM, ParameterField.MOVED),
        (ParameterField.UPDATE_NORM, ParameterField.MOVED),
    ):
        means = [rows[:, norm] / np.maximum(rows[:, steps], 1.0) for rows in (a, b)]
        whole = np.hypot(*means) * merged[:, steps]
        merged[:, norm] = np.where(is_shard, whole, merged[:, norm])


# Scalars


def merge_series(
    a: ScalarSeries, num_a: Floats, b: ScalarSeries, num_b: Floats
) -> tuple[ScalarSeries, Floats]:
    """Return the mean over ranks of a scalar, and of how many points each is made; ``low`` and ``high`` are over all.

    ``num_a`` and ``num_b`` (n,) say of how many points those given are made.
    """
    ends = common_ends(_points(a), _points(b))
    parts = np.searchsorted(ends, np.concatenate([a.steps, b.steps]))
    nums, values = np.concatenate([num_a, num_b]), np.concatenate([a.values, b.values])
    low, high = np.full(len(ends), np.inf), np.full(len(ends), -np.inf)
    num = np.bincount(parts, nums, len(ends)).astype(np.float64)
    with np.errstate(invalid="ignore"):  # NaN stays NaN, and so is inf - inf
        np.minimum.at(low, parts, np.concatenate([a.low, b.low]))
        np.maximum.at(high, parts, np.concatenate([a.high, b.high]))
        mean = np.bincount(parts, nums * values, len(ends)) / num
    mean = np.where(low == high, low, mean)  # equal on all ranks: no rounding
    firsts = [one.first_non_finite for one in (a, b) if one.first_non_finite is not None]
    return ScalarSeries(ends.astype(np.float64), mean, low, high, min(firsts, default=None)), num


def join_norms(a: ScalarSeries, b: ScalarSeries) -> ScalarSeries:
    """Return the norm of the whole from norms of two parts, at the steps that both have."""
    steps, at_a, at_b = np.intersect1d(a.steps, b.steps, assume_unique=True, return_indices=True)
    values, low, high = (
        np.hypot(one[at_a], other[at_b])
        for one, other in ((a.values, b.values), (a.low, b.low), (a.high, b.high))
    )
    firsts = [one.first_non_finite for one in (a, b) if one.first_non_finite is not None]
    return ScalarSeries(steps, values, low, high, min(firsts, default=None))


def _points(series: ScalarSeries) -> Steps:
    return np.stack([series.steps, series.steps], axis=1).astype(np.int64)
