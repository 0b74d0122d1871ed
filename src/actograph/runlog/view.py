"""`RunView`: a run as numpy columns. The only place where std, shares, quantiles and dead units are derived.

No idea whether training is live or long over, and none of files or torch. Rules, figures, terminal and report read runs
through this and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from actograph.errors import UsageError
from actograph.layout import bins
from actograph.layout.layer import LayerInfo, Quantity
from actograph.layout.row import Counts, Field, Floats, Moments, empty_rows, moments
from actograph.runlog.buckets import Bucket, packed_size, with_all_layers
from actograph.runlog.facts import FactView
from actograph.runlog.flags import Flags, WideFlags
from actograph.runlog.names import position_of
from actograph.runlog.parameters import ParameterView
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.schema import Event, RankInfo, RunInfo
from actograph.runlog.statistic import Statistic, ratio
from actograph.runlog.timeaxis import TimeAxis

DEAD_WINDOW = 20  # recorded steps without firing before a unit counts as dead: 1,280 samples at batch 64


@dataclass(frozen=True)
class RunView(TimeAxis[Bucket]):
    """A run: who made it, its layers, the sketch timeline of the training phase, scalars, events and parameters.

    Axes: T buckets in time order (one recorded step each while the run is short, more later), L layers in the order of
    their first call, U units of one layer. Layers are those of activations; `gradients` has the same view of the others.
    """

    info: RunInfo
    layers: tuple[LayerInfo, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    scalars: Mapping[tuple[str, str], ScalarSeries] = field(default_factory=dict)  # by (phase, name)
    events: tuple[Event, ...] = ()
    parameters: ParameterView = field(default_factory=ParameterView)
    wide_flags: Mapping[str, WideFlags] = field(
        default_factory=dict
    )  # by layer: these are not in the buckets
    gradient_layers: tuple[LayerInfo, ...] = ()
    gradient_buckets: tuple[Bucket, ...] = ()
    ranks: tuple[
        RankInfo, ...
    ] = ()  # of several processes, those that are merged here; empty for one process
    facts: FactView = field(default_factory=FactView)

    def __post_init__(self) -> None:
        object.__setattr__(self, "buckets", tuple(with_all_layers(self.buckets)))

    @property
    def num_steps(self) -> int:
        """Number of steps the run has seen."""
        tracks = [series for (phase, _), series in self.scalars.items() if phase == "train" and len(series)]
        last = max(
            [*(int(series.steps[-1]) for series in tracks), *self.last_steps[-1:].tolist()], default=-1
        )
        return max(last + 1, self.info.cost.steps_seen)

    @property
    def final_step(self) -> int:
        """The last step; 0 of a run that has seen none."""
        return max(self.num_steps - 1, 0)

    @property
    def missing_ranks(self) -> list[int]:
        """Ranks of which nothing can be read."""
        there = {one.info.rank for one in self.ranks}
        return [rank for rank in range(self.info.world_size) if rank not in there] if there else []

    # What was recorded

    @cached_property
    def rows(self) -> Floats:
        """Rows (T, L, NUM_FIELDS)."""
        if not self.buckets:
            return empty_rows(0, len(self.layers))
        return np.stack([bucket.rows for bucket in self.buckets])

    def histogram(self, layer: int | str) -> Counts:
        """Return the counts (T, NUM_BINS) of one layer."""
        index = self.layer_index(layer)
        if not self.buckets:
            return np.zeros((0, bins.NUM_BINS), np.uint32)
        return np.stack([bucket.hist[index] for bucket in self.buckets])

    def fired(self, layer: int | str) -> Flags:
        """Tell whether each unit left the flat region at least once in each bucket: (T, U).

        U is 0 for a layer without a flat region.
        """
        index = self.layer_index(layer)
        info, num_units = self.layers[index], self.layers[index].num_flags
        if info.name in self.wide_flags:
            return self.wide_flags[info.name].fired(self.first_steps, self.last_steps, num_units)
        before = [one for one in self.layers[:index] if one.name not in self.wide_flags]
        begin = sum(packed_size(one.num_flags) for one in before)
        size = packed_size(num_units)
        packed = [bucket.fired[begin : begin + size] for bucket in self.buckets]
        if not packed:
            return np.zeros((0, num_units), np.bool_)
        return np.unpackbits(np.stack(packed), axis=1, count=num_units, bitorder="little").astype(np.bool_)

    def scalar(self, name: str, phase: str = "train") -> ScalarSeries:
        """Return a scalar's series; empty when it was never recorded."""
        return self.scalars.get((phase, name), ScalarSeries.join([], []))

    @cached_property
    def gradients(self) -> RunView:
        """The gradients by the layers' outputs: a view whose layers have the same names, none where none was recorded."""
        return replace(
            self,
            layers=self.gradient_layers,
            buckets=self.gradient_buckets,
            wide_flags={},
            gradient_layers=(),
            gradient_buckets=(),
        )

    # What follows from it

    def layer_index(self, layer: int | str) -> int:
        """Return the position of a layer given by position (negative too) or name.

        Raises UsageError that names close matches, or the valid positions.
        """
        return position_of(layer, [info.name for info in self.layers], "layer")

    def column(self, name: str) -> Floats:
        """Return one of `STATISTICS` for all layers over time: (T, L), NaN where it is not defined."""
        if name not in STATISTICS:
            raise UsageError(f"no statistic {name!r}: choose one of {', '.join(STATISTICS)}")
        if name not in self._derived:
            self._derived[name] = STATISTICS[name].derive(self)
            self._derived[name].setflags(write=False)
        return self._derived[name]

    @cached_property
    def _derived(self) -> dict[str, Floats]:
        return {}

    @cached_property
    def moments(self) -> Moments:
        """Number, mean and M2 of the finite values, each (T, L)."""
        return moments(self.rows)

    def quantile(self, layer: int | str, share: float) -> Floats:
        """Return the value below which ``share`` of a layer's values lie, within 12 %: (T,)."""
        return bins.quantile(self.histogram(layer), share)

    def was_called(self, layer: int | str) -> Flags:
        """Tell in which buckets a layer gave any value (T,): where it gave none it is not silent but absent."""
        rows = self.rows[:, self.layer_index(layer)]
        called: Flags = (
            rows[:, [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NAN, Field.INF]].sum(axis=1) > 0
        )
        return called

    def steps_silent(self, layer: int | str) -> Floats:
        """Count the recorded steps with the layer since each unit last fired, up to the end of each bucket: (T, U)."""
        fired = self.fired(layer)
        ends = np.cumsum(np.where(self.was_called(layer), self.num_recorded, 0), dtype=np.float64)[:, None]
        last = (
            np.maximum.accumulate(np.where(fired, ends, 0.0), axis=0) if len(fired) else np.zeros(fired.shape)
        )
        return ends - last

    def dead(self, layer: int | str, window: int = DEAD_WINDOW) -> Flags:
        """Tell whether each unit has not fired in the last ``window`` recorded steps or more: (T, U)."""
        return self.steps_silent(layer) >= window

    def first_non_finite(self, layer: int | str) -> int | None:
        """Return the exact first step with a NaN or Inf in the layer's output, None if there was none."""
        steps = self.rows[:, self.layer_index(layer), Field.FIRST_NON_FINITE]
        first = steps.min(initial=np.inf)
        return int(first) if np.isfinite(first) else None


def split_quantities(
    layers: Sequence[LayerInfo], buckets: Sequence[Bucket]
) -> dict[Quantity, tuple[tuple[LayerInfo, ...], tuple[Bucket, ...]]]:
    """Part layers and their buckets by quantity; gradients have no flags, so these stay with the activations."""
    if all(layer.quantity is Quantity.ACTIVATION for layer in layers):
        return {Quantity.ACTIVATION: (tuple(layers), tuple(buckets)), Quantity.GRADIENT: ((), ())}
    whole = with_all_layers(buckets)
    num_known = len(whole[0].rows) if whole else 0
    parts = {}
    for quantity in Quantity:
        chosen = [index for index, layer in enumerate(layers) if layer.quantity is quantity]
        known = [index for index in chosen if index < num_known]  # others have no bucket yet
        part = tuple(_chosen(bucket, known) for bucket in whole)
        parts[quantity] = (tuple(layers[index] for index in chosen), part)
    return parts


def _chosen(bucket: Bucket, layers: list[int]) -> Bucket:
    return replace(bucket, rows=bucket.rows[layers], hist=bucket.hist[layers])


def _share_of(rows_field: Field) -> Callable[[RunView], Floats]:
    return lambda view: ratio(view.rows[..., rows_field], view.moments.num)


def _mean(view: RunView) -> Floats:
    return np.where(view.moments.num > 0, view.moments.mean, np.nan)


def _std(view: RunView) -> Floats:
    """Unbiased standard deviation: sqrt(M2 / (n - 1))."""
    return np.sqrt(ratio(view.moments.m2, view.moments.num - 1.0))


def _rms(view: RunView) -> Floats:
    return np.sqrt(ratio(view.moments.m2, view.moments.num) + _mean(view) ** 2)


def _extreme(rows_field: Field) -> Callable[[RunView], Floats]:
    return lambda view: np.where(view.moments.num > 0, view.rows[..., rows_field], np.nan)


def _non_finite(view: RunView) -> Floats:
    bad = view.rows[..., Field.NAN] + view.rows[..., Field.INF]
    return ratio(bad, view.moments.num + bad)


def _flat(view: RunView) -> Floats:
    has_region = np.array([info.flat is not None for info in view.layers], np.bool_)
    return np.where(has_region, ratio(view.rows[..., Field.FLAT], view.moments.num), np.nan)


def _dead(view: RunView) -> Floats:
    """Share of dead units; NaN before the window has passed and for layers whose units cannot die."""
    shares = np.full((len(view.buckets), len(view.layers)), np.nan)
    for index, info in enumerate(view.layers):
        if info.num_flags:
            shares[:, index] = view.dead(index).mean(axis=1)
    shares[np.cumsum(view.num_recorded) < DEAD_WINDOW] = np.nan
    return shares


def _quantile(share: float) -> Callable[[RunView], Floats]:
    def derive(view: RunView) -> Floats:
        columns = [view.quantile(index, share) for index in range(len(view.layers))]
        return np.stack(columns, axis=1) if columns else np.zeros((len(view.buckets), 0))

    return derive


STATISTICS: Mapping[str, Statistic[RunView]] = {
    statistic.name: statistic
    for statistic in (
        Statistic("mean", "mean", _mean),
        Statistic("std", "standard deviation", _std),
        Statistic("rms", "root mean square", _rms),
        Statistic("near_zero", "share near zero (|x| ≤ 0.05)", _share_of(Field.NEAR_ZERO), is_share=True),
        Statistic("zeros", "share of exact zeros", _share_of(Field.ZEROS), is_share=True),
        Statistic("flat", "share in the flat region", _flat, is_share=True),
        Statistic("dead", "share of dead units", _dead, is_share=True),
        Statistic("non_finite", "share of NaN and Inf", _non_finite, is_share=True),
        Statistic("min", "minimum", _extreme(Field.MIN)),
        Statistic("max", "maximum", _extreme(Field.MAX)),
        Statistic("q05", "5 % quantile", _quantile(0.05)),
        Statistic("q50", "median", _quantile(0.50)),
        Statistic("q95", "95 % quantile", _quantile(0.95)),
    )
}
