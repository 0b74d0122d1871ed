from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import LayerInfo
from actograph.layout.row import Field, empty_rows
from actograph.runlog.buckets import Bucket, packed_size
from actograph.runlog.flags import FLAG_BYTES, GROUP_STEPS, RECENT_GROUPS, FlagTrack, is_wide
from actograph.runlog.reader import read_run
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.runlog.view import DEAD_WINDOW, RunView
from actograph.testing.synthetic import RELU, layer

WIDE = 20_000
LIMIT_BYTES = 512 * 1024


def bucket(step: int, *fired: np.ndarray) -> Bucket:
    """One step of layers that were all called, with the flags of the units that fired."""
    rows = empty_rows(len(fired))
    rows[:, Field.POS_COUNT] = 1
    packed = [np.packbits(flags, bitorder="little") for flags in fired]
    return Bucket(step, step, 1, rows, np.ones((len(fired), NUM_BINS), np.uint32), np.concatenate(packed))


def write(firing: np.ndarray, directory: Path | None = None) -> RunWriter:
    """Write steps of a narrow, a wide and another narrow layer; ``firing`` (steps, WIDE) is that of the wide one."""
    writer = RunWriter(directory, RunInfo("wide"))
    for info in (
        layer("first", "ReLU", 5, RELU),
        layer("wide", "ReLU", WIDE, RELU),
        layer("last", "ReLU", 9, RELU),
    ):
        writer.add_layer(info)
    for step, fired in enumerate(firing):
        narrow = np.array([step % 2, 1, 0, 0, 1], np.bool_)
        writer.add_block(bucket(step, narrow, fired, np.arange(9) > 3))
    return writer


def size_of(writer: RunWriter) -> int:
    """Bytes of all arrays and flags that the writer keeps in memory."""
    timeline = writer._timelines["train"]
    arrays = [
        array for one in (*timeline.long, *timeline.recent) for array in (one.rows, one.hist, one.fired)
    ]
    for track in writer._flags.tracks.values():
        groups = [*track.timeline.long, *track.recent()]
        arrays += [group.fired for group in groups]
    return sum({id(array): array.nbytes for array in arrays}.values())


@pytest.mark.parametrize("num_steps", [1_000, 30_000])
def test_a_layer_of_twenty_thousand_units_takes_at_most_half_a_megabyte(
    num_steps: int, tmp_path: Path
) -> None:
    writer = RunWriter(tmp_path, RunInfo("wide"))
    writer.add_layer(layer("wide", "ReLU", WIDE, RELU))
    one = bucket(0, np.random.default_rng(0).random(WIDE) < 0.5)
    for step in range(num_steps):
        writer.add_block(dataclasses.replace(one, first_step=step, last_step=step))
    assert 190_000 < size_of(writer) <= LIMIT_BYTES
    writer.flush()
    writer.close("finished")
    assert (tmp_path / "run.db").stat().st_size <= LIMIT_BYTES
    assert read_run(tmp_path).fired("wide").shape[1] == WIDE


def test_units_that_die_are_found_within_a_group_and_never_too_early() -> None:
    num_steps, death = 75, 41
    firing = np.ones((num_steps, WIDE), np.bool_)
    firing[death:, 7] = False
    firing[num_steps - 3 :, 9] = False
    firing[np.arange(num_steps) % 15 > 0, 11] = False  # fires now and then
    view = write(firing).view()
    steps, dead = view.last_steps, view.dead("wide")
    assert not dead[steps < death + DEAD_WINDOW - 1, 7].any()
    assert dead[steps >= death + DEAD_WINDOW + GROUP_STEPS - 1, 7].all()
    assert dead.sum() == dead[:, 7].sum()


def test_an_old_death_is_known_to_the_width_of_a_bucket_and_the_present_to_a_group() -> None:
    num_steps = 5_000
    firing = np.ones((num_steps, 1), np.bool_).repeat(WIDE, axis=1)
    firing[1000:, 3] = False
    firing[num_steps - DEAD_WINDOW - GROUP_STEPS :, 5] = False
    writer = write(firing)
    view = writer.view()
    dead = view.dead("wide")
    width = writer._flags.tracks[1].timeline.width
    assert not dead[view.last_steps < 1000, 3].any()
    assert dead[view.last_steps >= 1000 + 2 * width, 3].all()
    assert np.flatnonzero(dead[-1]).tolist() == [3, 5]


def assert_same_flags(a: RunView, b: RunView) -> None:
    for name in ("first", "wide", "last"):
        np.testing.assert_array_equal(a.fired(name), b.fired(name))


@pytest.mark.parametrize("num_steps", [3, 40, 777])
def test_what_is_read_equals_what_was_written(num_steps: int, tmp_path: Path) -> None:
    firing = np.random.default_rng(1).random((num_steps, WIDE)) < 0.1
    writer = write(firing[: num_steps // 2], tmp_path)
    writer.flush()
    for step, fired in enumerate(firing[num_steps // 2 :], num_steps // 2):
        writer.add_block(bucket(step, np.ones(5, np.bool_), fired, np.ones(9, np.bool_)))
    writer.close("finished")
    assert_same_flags(writer.view(), read_run(tmp_path))
    assert writer.view().fired("first").shape == (len(writer.view().buckets), 5)


def test_narrow_layers_beside_a_wide_one_keep_every_step() -> None:
    view = write(np.ones((30, WIDE), np.bool_)).view()
    np.testing.assert_array_equal(view.fired("first")[:, 0], np.arange(30) % 2 == 1)
    np.testing.assert_array_equal(view.fired("last"), np.tile(np.arange(9) > 3, (30, 1)))


def test_a_wide_layer_that_comes_late_has_no_flags_before() -> None:
    writer = RunWriter(None, RunInfo("late"))
    writer.add_layer(layer("first", "ReLU", 5, RELU))
    writer.add_block(bucket(0, np.ones(5, np.bool_)))
    writer.add_layer(layer("wide", "ReLU", WIDE, RELU))
    writer.add_block(bucket(1, np.ones(5, np.bool_), np.ones(WIDE, np.bool_)))
    view = writer.view()
    assert view.fired("wide").any(axis=1).tolist() == [False, True]
    assert view.was_called("wide").tolist() == [False, True]


@settings(max_examples=25)
@given(num_units=st.integers(900, 4000), num_steps=st.integers(1, 150), seed=st.integers(0, 50))
def test_a_unit_counts_as_firing_whenever_it_fired(num_units: int, num_steps: int, seed: int) -> None:
    assert is_wide(num_units)
    firing = np.random.default_rng(seed).random((num_steps, num_units)) < 0.01
    writer = RunWriter(None, RunInfo("wide"))
    writer.add_layer(layer("wide", "ReLU", num_units, RELU))
    for step, fired in enumerate(firing):
        writer.add_block(bucket(step, fired))
    seen = writer.view().fired("wide")
    truth = np.stack(
        [firing[one.first_step : one.last_step + 1].any(axis=0) for one in writer.view().buckets]
    )
    assert (seen >= truth).all()
    assert (seen.any(axis=0) == firing.any(axis=0)).all()


def test_widths_are_bounded_up_to_tens_of_thousands_of_units() -> None:
    for num_units in (900, 4096, 20_000, 37_000):
        track = FlagTrack(num_units)
        most = track.timeline.max_buckets + RECENT_GROUPS + 1
        assert most * packed_size(num_units) <= FLAG_BYTES


def test_layers_without_flags_are_not_wide() -> None:
    assert not is_wide(LayerInfo("fc", "Linear", (64, WIDE), "float32", 1, WIDE).num_flags)
    assert not is_wide(512)
