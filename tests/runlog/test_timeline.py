from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actograph.layout.bins import NUM_BINS
from actograph.layout.row import Field, empty_rows, merge_rows
from actograph.runlog.buckets import Bucket, merge_buckets, with_all_layers
from actograph.runlog.flags import FlagBucket, merge_flags
from actograph.runlog.timeline import Timeline, joined


def bucket(step: int, num_layers: int = 1) -> Bucket:
    """One step: layer k saw the value step + k once, and unit step % 8 fired."""
    rows = empty_rows(num_layers)
    rows[:, Field.POS_COUNT] = 1
    rows[:, Field.POS_MEAN] = rows[:, Field.MIN] = rows[:, Field.MAX] = step + np.arange(num_layers)
    hist = np.zeros((num_layers, NUM_BINS), np.uint32)
    hist[:, step % NUM_BINS] = 1
    return Bucket(step, step, 1, rows, hist, np.full(num_layers, 1 << (step % 8), np.uint8))


@given(st.integers(0, 200), st.sampled_from([2, 4, 16]), st.integers(1, 9), st.integers(1, 7))
def test_both_views_together_hold_every_step_once_in_order(
    num_steps: int, max_buckets: int, recent: int, handful: int
) -> None:
    timeline = Timeline(merge_buckets, max_buckets, recent, handful)
    for step in range(num_steps):
        timeline.append(bucket(step))
    assert len(timeline.long) <= max_buckets
    assert len(timeline.recent) < recent + handful
    for view in (timeline.joined(), joined(timeline.long, timeline.abridged())):
        spans = [(b.first_step, b.last_step) for b in view]
        assert [step for first, last in spans for step in range(first, last + 1)] == list(range(num_steps))
        assert sum(b.num_steps for b in view) == num_steps
        assert sum(b.rows[0, Field.POS_COUNT] for b in view) == num_steps
        assert all(b.num_steps <= timeline.width for b in view)
    assert all(b.num_steps == 1 for b in timeline.joined()[-recent:])
    assert all(b.num_steps == 1 for b in view[-min(recent, handful) :])


def test_of_views_that_overlap_the_recent_one_counts_from_where_it_can_begin() -> None:
    (wide,) = merge_buckets([bucket(step) for step in range(8)], 8)
    view = joined([wide, bucket(8), bucket(9)], [bucket(step) for step in (6, 7, 8, 9)])
    assert [(b.first_step, b.last_step) for b in view] == [(0, 7), (8, 8), (9, 9)]


def test_views_of_other_bounds_are_gone_on_with() -> None:
    timeline = Timeline(merge_buckets, max_buckets=4, recent_steps=2, handful=2)
    timeline.take_up([bucket(step) for step in range(9)], [bucket(step) for step in range(7, 11)])
    for step in range(11, 60):
        timeline.append(bucket(step))
    view = timeline.joined()
    assert len(timeline.long) <= 4
    assert [step for b in view for step in range(b.first_step, b.last_step + 1)] == list(range(60))
    assert sum(b.num_steps for b in view) == sum(b.rows[0, Field.POS_COUNT] for b in view) == 60


@pytest.mark.parametrize("size", [1, 2, 5, 40, 100])
def test_groups_merged_at_once_equal_those_merged_one_by_one(size: int) -> None:
    steps = [bucket(step, num_layers=1 + step // 30) for step in range(100)]
    steps[17].hist[0, 3] = 2**32 - 1  # with its neighbours' too many for 32 bits
    steps[18].hist[0, 3] = 7
    for merged, begin in zip(merge_buckets(steps, size), range(0, 100, size), strict=True):
        group = with_all_layers(steps[begin : begin + size])
        assert (merged.first_step, merged.last_step, merged.num_steps) == (
            begin, begin + len(group) - 1, len(group)
        )  # fmt: skip
        num = len(group[0].rows)
        np.testing.assert_array_equal(merged.rows[:num], merge_rows(np.stack([b.rows for b in group])))
        counts = np.sum([b.hist.astype(np.float64) for b in group], axis=0)
        np.testing.assert_array_equal(merged.hist[:num], counts.astype(merged.hist.dtype))
        assert merged.hist.dtype == (np.uint32 if counts.max() < 2**32 else np.float32)
        np.testing.assert_array_equal(merged.fired[:num], np.bitwise_or.reduce([b.fired for b in group]))


def test_merged_buckets_hold_what_their_steps_held() -> None:
    timeline = Timeline(merge_buckets, max_buckets=2, recent_steps=1, handful=1)
    for step in range(9):
        timeline.append(bucket(step))
    first, second = timeline.long
    assert (first.rows[0, Field.POS_MEAN], second.rows[0, Field.POS_MEAN]) == (1.5, 5.5)
    assert first.hist[0, :8].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (first.fired.item(), second.fired.item()) == (0b1111, 0b11110000)


def test_layers_discovered_later_are_empty_before() -> None:
    (merged,) = merge_buckets([bucket(0, num_layers=1), bucket(1, num_layers=2)], 2)
    assert merged.rows[:, Field.POS_COUNT].tolist() == [2, 1]
    first, second = with_all_layers([bucket(0), bucket(1, num_layers=3)])
    assert (len(first.rows), len(first.hist), len(first.fired)) == (3, 3, 3)
    assert first.rows[2, Field.MIN] == np.inf
    assert second.rows[2, Field.MIN] == 3


def test_what_is_handed_out_makes_up_the_whole() -> None:
    timeline = Timeline(merge_buckets, max_buckets=4, recent_steps=6, handful=3)
    stored: dict[int, Bucket] = {}
    for step in range(50):
        timeline.append(bucket(step))
        if step % 5 == 2:
            changed = timeline.take_changes()
            stored = {k: b for k, b in stored.items() if k < len(timeline.long)} | dict(changed)
            assert [stored[k].last_step for k in sorted(stored)] == [b.last_step for b in timeline.long]
            steps = [stored[k] for k in sorted(stored)] + timeline.abridged()
            assert sum(b.num_steps for b in steps) == step + 1
    timeline.take_changes()
    assert timeline.take_changes() == []


def test_the_result_does_not_depend_on_when_somebody_looks() -> None:
    quiet, watched = Timeline(merge_buckets, 4, 6, 3), Timeline(merge_buckets, 4, 6, 3)
    for step in range(41):
        quiet.append(bucket(step))
        watched.append(bucket(step))
        watched.take_changes()
    assert [(b.first_step, b.last_step) for b in quiet.long] == [
        (b.first_step, b.last_step) for b in watched.long
    ]
    for a, b in zip(quiet.long, watched.long, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)


def test_an_odd_number_of_buckets_cannot_merge_in_pairs() -> None:
    with pytest.raises(ValueError, match="max_buckets is 5"):
        Timeline(merge_buckets, max_buckets=5)


@given(num=st.integers(1, 200), max_buckets=st.sampled_from([2, 4, 8]), recent=st.integers(1, 6))
def test_buckets_of_several_steps_fill_the_long_view_evenly(num: int, max_buckets: int, recent: int) -> None:
    def merge(buckets: Sequence[FlagBucket], size: int) -> list[FlagBucket]:
        assert all(a.last_step + 1 == b.first_step for a, b in itertools.pairwise(buckets))
        return merge_flags(buckets, size)

    timeline = Timeline(merge, max_buckets, recent, handful=2, step_size=10)
    for first in range(0, 10 * num, 10):
        timeline.append(FlagBucket(first, first + 9, 10, np.zeros(1, np.uint8)))
    assert [bucket.num_steps for bucket in timeline.long[:-1]] == [timeline.width] * (len(timeline.long) - 1)
    assert len(timeline.long) <= max_buckets
    assert all(bucket.num_steps <= timeline.width for bucket in timeline.long)
