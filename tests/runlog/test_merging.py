"""The files of several ranks merge to what one process would have recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actograph.layout.layer import LayerInfo
from actograph.layout.parameter import ParameterField, ParameterInfo, empty_parameter_rows
from actograph.layout.row import Field, merge_rows
from actograph.runlog.buckets import ParameterBucket
from actograph.runlog.merging import RankMerge, common_ends, merge_parameters, merge_series
from actograph.runlog.parameters import ParameterView
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.schema import Cost, RunInfo
from actograph.runlog.view import RunView
from actograph.testing.synthetic import RELU, SyntheticRun, layer

MOMENTS = [Field.NEG_MEAN, Field.NEG_M2, Field.POS_MEAN, Field.POS_M2]
WIDE = 1000  # units: their flags have a timeline of their own
LAYERS = [layer("fc", "Linear", 5), layer("act", "ReLU", 5, RELU), layer("wide", "ReLU", WIDE, RELU)]


def values_at(step: int) -> dict[str, np.ndarray]:
    """Return what the layers give for a joined batch of six samples."""
    rng = np.random.default_rng(step)
    fc = rng.normal(0.3, 2.0, size=(6, 5))
    if step == 37:
        fc[4, 2] = np.nan  # on rank 1 alone
    wide = np.maximum(rng.normal(-2.0, 1.0, size=(6, WIDE)), 0)
    wide[:, :400] = 0
    return {"fc": fc, "act": np.maximum(fc, 0), "wide": wide}


def record(
    part: slice, num_steps: int, layers: list[LayerInfo] = LAYERS, rank: int = 0, skip: int = 1
) -> RunView:
    run = SyntheticRun(layers)
    for step in range(num_steps):
        values = {name: array[part] for name, array in values_at(step).items()}
        run.step(values if step % skip == 0 else {}, loss=float(np.nanmean(values["fc"])))
    view = run.view()
    return replace(view, info=replace(view.info, rank=rank, world_size=2))


def merged(*views: RunView) -> RunView:
    merge = RankMerge(views[0])
    for view in views[1:]:
        merge.add(view)
    return merge.view()


def test_two_ranks_are_one_process_on_the_joined_batch() -> None:
    num_steps = 300  # the long view is full, and has halved
    whole = record(slice(None), num_steps)
    both = merged(record(slice(0, 6, 2), num_steps), record(slice(1, 6, 2), num_steps, rank=1))
    assert [one.name for one in both.layers] == [one.name for one in whole.layers]
    for axis in ("first_steps", "last_steps", "num_recorded"):
        np.testing.assert_array_equal(getattr(both, axis), getattr(whole, axis))
    others = [field for field in Field if field not in MOMENTS]
    np.testing.assert_array_equal(both.rows[..., others], whole.rows[..., others])
    np.testing.assert_allclose(both.rows[..., MOMENTS], whole.rows[..., MOMENTS], rtol=1e-9)
    for name in ("fc", "act", "wide"):
        np.testing.assert_array_equal(both.histogram(name), whole.histogram(name))
        np.testing.assert_array_equal(both.fired(name), whole.fired(name))
        assert both.first_non_finite(name) == whole.first_non_finite(name)
    assert both.first_non_finite("fc") == 37
    np.testing.assert_array_equal(both.column("dead"), whole.column("dead"))
    losses = both.scalar("loss")
    expected = [np.mean([np.nanmean(values_at(s)["fc"][rank::2]) for rank in (0, 1)]) for s in range(50)]
    np.testing.assert_allclose(losses.values[:50], expected)
    assert (losses.low < losses.high).all()


def test_the_order_of_the_layers_and_a_layer_of_one_rank_do_not_matter() -> None:
    turned = [LAYERS[1], LAYERS[2], LAYERS[0]]
    whole = record(slice(None), 20)
    both = merged(record(slice(0, 6, 2), 20), record(slice(1, 6, 2), 20, turned, rank=1))
    np.testing.assert_array_equal(both.rows[..., Field.POS_COUNT], whole.rows[..., Field.POS_COUNT])
    for name in ("act", "wide"):
        np.testing.assert_array_equal(both.fired(name), whole.fired(name))
    fewer = merged(record(slice(0, 6, 2), 20, [LAYERS[0]]), record(slice(1, 6, 2), 20, turned, rank=1))
    assert [one.name for one in fewer.layers] == ["fc", "act", "wide"]
    np.testing.assert_array_equal(fewer.rows[:, 0, Field.POS_COUNT], whole.rows[:, 0, Field.POS_COUNT])
    expected = record(slice(1, 6, 2), 20).fired("act")
    np.testing.assert_array_equal(fewer.fired("act"), expected)


def test_layers_with_other_units_on_each_rank_are_kept_apart() -> None:
    run = SyntheticRun([layer("act", "ReLU", 3, RELU)])
    other = SyntheticRun([layer("act", "ReLU", 2, RELU)])
    for _ in range(3):
        run.step({"act": np.ones((4, 3))})
        other.step({"act": np.zeros((4, 2))})
    theirs = other.view()
    both = merged(run.view(), replace(theirs, info=replace(theirs.info, rank=1)))
    assert [one.name for one in both.layers] == ["act", "act@rank1"]
    assert both.fired(0).all()
    assert not both.fired(1).any()


def test_a_rank_that_ends_early_leaves_the_rest_to_the_others() -> None:
    both = merged(record(slice(0, 6, 2), 250), record(slice(1, 6, 2), 40, rank=1))
    assert both.last_steps[-1] == 249
    num = both.moments.num[:, 0] / both.num_recorded
    assert set(num[both.last_steps < 36]) == {30.0}
    assert set(num[both.first_steps >= 40]) == {15.0}
    assert both.info.cost == Cost()


def test_a_rank_that_begins_late_does_not_hold_up_the_others() -> None:
    early = np.array([(step, step) for step in range(10)])
    assert common_ends(early, early[6:]).tolist() == list(range(10))
    assert common_ends(early[6:], early).tolist() == list(range(10))


Axis = list[tuple[int, int]]


@st.composite
def axes(draw: Callable) -> Axis:
    """Draw buckets with gaps, in time order."""
    axis, step = [], 0
    for gap, width in draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=30)):
        axis.append((step + gap, step + gap + width - 1))
        step += gap + width
    return axis


def as_array(axis: Axis) -> np.ndarray:
    return np.array(axis, np.int64).reshape(-1, 2)


@given(axes(), axes())
def test_every_bucket_ends_in_a_part_and_parts_are_few(one: Axis, other: Axis) -> None:
    ends = common_ends(as_array(one), as_array(other))
    lasts = [last for _, last in (*one, *other)]
    assert (np.diff(ends) > 0).all()
    assert set(ends) <= set(lasts)
    assert not lasts or ends[-1] == max(lasts)
    assert len(ends) <= len(one) + len(other)
    both = [end for end in ends if one and other and end <= min(one[-1][1], other[-1][1])]
    begun = max(one[0][1], other[0][1]) if both else 0
    shared = [end for end in both if end > begun]  # from there on a part has a bucket of each
    assert len(shared) <= min(len(one), len(other))


@given(axes(), axes())
def test_parts_are_the_same_whoever_comes_first(one: Axis, other: Axis) -> None:
    there, back = common_ends(as_array(one), as_array(other)), common_ends(as_array(other), as_array(one))
    assert there.tolist() == back.tolist()


def test_of_thinned_ranks_nothing_is_lost() -> None:
    parts = [record(slice(rank, 6, 2), 60, rank=rank, skip=skip) for rank, skip in ((0, 2), (1, 5))]
    both = merged(*parts)
    assert (np.diff(both.last_steps) > 0).all()
    assert (both.first_steps[1:] > both.last_steps[:-1]).all()
    assert len(both.buckets) == 12 + 2  # those of the coarser one, and what came after its last
    rows = np.concatenate([part.rows for part in parts])
    total = merge_rows(both.rows)
    np.testing.assert_allclose(total, merge_rows(rows), rtol=1e-9)


def test_scalars_are_averaged_and_a_nan_of_one_rank_is_seen() -> None:
    a = ScalarSeries.join([], [(0, 1.0), (1, 2.0), (2, np.nan)])
    b = ScalarSeries.join([], [(0, 3.0), (1, 2.0)])
    c = ScalarSeries.join([], [(0, 8.0), (1, np.inf)])
    first, num = merge_series(a, np.ones(3), b, np.ones(2))
    series, num = merge_series(first, num, c, np.ones(2))
    np.testing.assert_array_equal(series.values, [4.0, np.inf, np.nan])
    np.testing.assert_array_equal(series.low, [1.0, 2.0, np.nan])
    np.testing.assert_array_equal(series.high, [8.0, np.inf, np.nan])
    np.testing.assert_array_equal(num, [3, 3, 1])
    assert series.first_non_finite == 1


def parameter_view(norms: list[float], *, is_shard: bool, name: str = "w") -> ParameterView:
    buckets = []
    for step, norm in enumerate(norms):
        rows = empty_parameter_rows(1)
        for field in (ParameterField.STEPS, ParameterField.FINITE, ParameterField.MOVED):
            rows[0, field] = 1
        rows[0, [ParameterField.GRAD_NORM, ParameterField.WEIGHT_NORM]] = norm, 2 * norm
        buckets.append(ParameterBucket(step, step, 1, rows))
    return ParameterView((ParameterInfo(name, (3,), "float32", is_shard),), tuple(buckets))


@pytest.mark.parametrize(("is_shard", "expected"), [(True, 13.0), (False, 19 / 3)])
def test_copies_are_averaged_and_shards_put_together(is_shard: bool, expected: float) -> None:
    whole = parameter_view([3.0], is_shard=is_shard)
    for norm in (4.0, 12.0):
        whole = merge_parameters(whole, parameter_view([norm], is_shard=is_shard))
    np.testing.assert_allclose(whole.column("grad_norm"), [[expected]])
    np.testing.assert_allclose(whole.column("weight_norm"), [[2 * expected]])


def test_a_parameter_of_one_rank_alone_is_kept() -> None:
    both = merge_parameters(
        parameter_view([3.0], is_shard=True), parameter_view([4.0], is_shard=True, name="b")
    )
    assert both.names == ["w", "b"]
    np.testing.assert_allclose(both.column("grad_norm"), [[3.0, 4.0]])


def test_runs_of_before_there_were_ranks_are_of_one_process() -> None:
    info = RunInfo.from_json({"name": "old", "cost": {}})
    assert (info.rank, info.world_size, info.launch) == (0, 1, "")
