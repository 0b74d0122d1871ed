from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actograph.layout.bins import NUM_BINS
from actograph.layout.row import Field, empty_rows
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


@given(st.integers(0, 200), st.sampled_from([2, 4, 16]), st.integers(1, 9))
def test_both_views_together_hold_every_step_once_in_order(
    num_steps: int, max_buckets: int, recent: int
) -> None:
    timeline = Timeline(merge_buckets, max_buckets, recent)
    for step in range(num_steps):
        timeline.append(bucket(step))
    assert len(timeline.long) <= max_buckets
    assert [b.first_step for b in timeline.recent] == list(range(max(0, num_steps - recent), num_steps))
    view = joined(timeline.long, list(timeline.recent))
    spans = [(b.first_step, b.last_step) for b in view]
    assert [step for first, last in spans for step in range(first, last + 1)] == list(range(num_steps))
    assert sum(b.num_steps for b in view) == num_steps
    assert sum(b.rows[0, Field.POS_COUNT] for b in view) == num_steps


def test_merged_buckets_hold_what_their_steps_held() -> None:
    timeline = Timeline(merge_buckets, max_buckets=2, recent_steps=1)
    for step in range(8):
        timeline.append(bucket(step))
    first, second = timeline.long
    assert (first.rows[0, Field.POS_MEAN], second.rows[0, Field.POS_MEAN]) == (1.5, 5.5)
    assert first.hist[0, :8].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (first.fired.item(), second.fired.item()) == (0b1111, 0b11110000)


def test_layers_discovered_later_are_empty_before() -> None:
    merged = merge_buckets([bucket(0, num_layers=1), bucket(1, num_layers=2)])
    assert merged.rows[:, Field.POS_COUNT].tolist() == [2, 1]
    first, second = with_all_layers([bucket(0), bucket(1, num_layers=3)])
    assert (len(first.rows), len(first.hist), len(first.fired)) == (3, 3, 3)
    assert first.rows[2, Field.MIN] == np.inf
    assert second.rows[2, Field.MIN] == 3


def test_what_is_handed_out_makes_up_the_whole() -> None:
    timeline = Timeline(merge_buckets, max_buckets=4, recent_steps=6)
    stored: dict[int, Bucket] = {}
    for step in range(50):
        timeline.append(bucket(step))
        if step % 5 == 2:
            changed, waiting = timeline.take_changes()
            stored = {k: b for k, b in stored.items() if k < len(timeline.long)} | dict(changed)
            assert [stored[k].last_step for k in sorted(stored)] == [b.last_step for b in timeline.long]
            steps = joined([stored[k] for k in sorted(stored)], waiting)
            assert sum(b.num_steps for b in steps) == step + 1
    timeline.take_changes()
    assert timeline.take_changes()[0] == []


def test_the_result_does_not_depend_on_when_somebody_looks() -> None:
    quiet, watched = Timeline(merge_buckets, 4, 6), Timeline(merge_buckets, 4, 6)
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
    def merge(buckets: Sequence[FlagBucket]) -> FlagBucket:
        assert all(a.last_step + 1 == b.first_step for a, b in itertools.pairwise(buckets))
        return merge_flags(buckets)

    timeline = Timeline(merge, max_buckets, recent, step_size=10)
    for first in range(0, 10 * num, 10):
        timeline.append(FlagBucket(first, first + 9, 10, np.zeros(1, np.uint8)))
    assert [bucket.num_steps for bucket in timeline.long[:-1]] == [timeline.width] * (len(timeline.long) - 1)
    assert len(timeline.long) <= max_buckets
    assert all(bucket.num_steps <= timeline.width for bucket in timeline.long)
