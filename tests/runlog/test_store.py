from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actograph.errors import RunInUseError, RunNotFoundError
from actograph.layout.row import Field
from actograph.runlog import schema, store
from actograph.runlog.buckets import merge_buckets
from actograph.runlog.packing import pack, unpack
from actograph.runlog.reader import find_runs, read_run
from actograph.runlog.schema import Cost, RunInfo
from actograph.runlog.store import RunWriter
from actograph.runlog.timeline import RECENT_STEPS, Timeline
from actograph.runlog.view import DEAD_WINDOW, RunView
from actograph.testing.synthetic import RELU, SyntheticRun, layer


def filled(directory: Path | None, num_steps: int = 700, info: RunInfo | None = None) -> RunWriter:
    """Write steps of two layers; the synthetic run makes the blocks."""
    source = SyntheticRun([layer("fc", "Linear", 5), layer("act", "ReLU", 5, RELU)])
    writer = RunWriter(directory, info or RunInfo("test", cost=Cost(1.0, 50.0, 10, 10, 0.03)))
    for one in source.writer.layers:
        writer.add_layer(one)
    rng = np.random.default_rng(0)
    for step in range(num_steps):
        values = rng.normal(size=(4, 5))
        writer.add_block(source._bucket(step, {"fc": values, "act": np.maximum(values, 0)}))
        writer.add_scalar("loss", step, float("nan") if step == 5 else 1 / (step + 1))
        if step % 200 == 0:
            writer.add_event(step, "phase", name="train", epoch=step // 200)
            writer.flush()
    return writer


def assert_same(a: RunView, b: RunView) -> None:
    assert (a.info, a.layers, a.events) == (b.info, b.layers, b.events)
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_array_equal(a.last_steps, b.last_steps)
    for name in ("fc", "act"):
        np.testing.assert_array_equal(a.histogram(name), b.histogram(name))
        np.testing.assert_array_equal(a.fired(name), b.fired(name))
    assert a.scalars.keys() == b.scalars.keys()
    for key, series in a.scalars.items():
        for member in ("steps", "values", "low", "high"):
            np.testing.assert_array_equal(getattr(series, member), getattr(b.scalars[key], member))
        assert series.first_non_finite == b.scalars[key].first_non_finite


def test_what_is_read_equals_what_was_written(tmp_path: Path) -> None:
    writer = filled(tmp_path / "run")
    writer.close("finished")
    assert_same(writer.view(), read_run(tmp_path / "run"))
    assert_same(writer.view(), read_run(tmp_path / "run" / "run.db"))


def test_a_closed_run_is_one_plain_file(tmp_path: Path) -> None:
    filled(tmp_path, 3).close("finished")
    assert [path.name for path in tmp_path.iterdir()] == ["run.db"]


def test_a_run_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    writer = filled(tmp_path, 30)
    writer.flush()
    view = read_run(tmp_path)
    assert (view.num_steps, view.info.status) == (30, "running")
    writer.close("failed")


def test_a_run_that_somebody_reads_is_closed_all_the_same(tmp_path: Path) -> None:
    writer = filled(tmp_path, 30)
    writer.flush()
    assert writer._database is not None
    writer._database.execute("PRAGMA busy_timeout = 1")
    with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM bucket").fetchone()
        writer.close("finished")
    assert (read_run(tmp_path).info.status, read_run(tmp_path).num_steps) == ("finished", 30)


def test_a_closed_run_can_be_taken_up_again(tmp_path: Path) -> None:
    writer = filled(tmp_path, 3)
    writer.close("finished")
    writer.reopen()
    writer.reopen()  # while it is open this does nothing
    writer.add_scalar("loss", 3, 0.5)
    writer.close("finished")
    assert read_run(tmp_path).scalar("loss").values[-1] == 0.5


def test_a_run_in_memory_has_the_same_view(tmp_path: Path) -> None:
    on_disk, in_memory = filled(tmp_path), filled(None)
    assert_same(on_disk.view(), in_memory.view())
    on_disk.close("finished")
    in_memory.close("finished")


def test_writing_happens_at_most_once_an_interval(tmp_path: Path) -> None:
    now = [0.0]
    writer = RunWriter(tmp_path, RunInfo("test"), clock=lambda: now[0])
    writer.add_scalar("loss", 0, 1.0)
    writer.flush_if_due()
    assert len(read_run(tmp_path).scalar("loss")) == 0
    now[0] = store.FLUSH_INTERVAL_S
    writer.flush_if_due()
    assert len(read_run(tmp_path).scalar("loss")) == 1
    writer.close("finished")


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    filled(tmp_path, 3).close("finished")
    before = (tmp_path / "run.db").read_bytes()
    with pytest.raises(RunInUseError, match="already holds a run"):
        RunWriter(tmp_path, RunInfo("other"))
    assert (tmp_path / "run.db").read_bytes() == before


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunInUseError, match="not a folder"):
        RunWriter(tmp_path / "file", RunInfo("other"))


def test_a_folder_where_no_database_can_be_made_is_refused_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "TABLES", "PRAGMA max_page_count = 1;" + schema.TABLES)  # as on a full disk
    with pytest.raises(RunInUseError, match=r"full.*choose another output folder"):
        RunWriter(tmp_path, RunInfo("other"))
    assert not (tmp_path / "run.db").exists()


def test_a_run_whose_folder_is_gone_goes_on_in_memory(tmp_path: Path) -> None:
    writer = filled(tmp_path / "run", 3)
    writer.close("finished")
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(RuntimeWarning, match="has stopped"):
        writer.reopen()
    writer.add_scalar("loss", 3, 0.5)
    writer.close("finished")
    assert writer.view().scalar("loss").steps[-1] == 3


def test_discarding_a_run_leaves_nothing_but_what_was_there(tmp_path: Path) -> None:
    RunWriter(tmp_path / "new", RunInfo("test")).discard()
    assert not (tmp_path / "new").exists()
    (tmp_path / "notes.txt").write_text("mine")
    RunWriter(tmp_path, RunInfo("test")).discard()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_no_run_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="no run at"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "run.db").write_text("not a database" * 100)
    with pytest.raises(RunNotFoundError, match="not a readable run"):
        read_run(tmp_path)
    (tmp_path / "run.db").unlink()
    filled(tmp_path, 3).close("finished")
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute("UPDATE bucket SET num_layers = 77")
    with pytest.raises(RunNotFoundError, match="not a readable run"):
        read_run(tmp_path)


def test_a_database_of_another_schema_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, 3).close("finished")
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute("UPDATE info SET value = '99' WHERE key = 'schema'")
    with pytest.raises(RunNotFoundError, match="schema version 99"):
        read_run(tmp_path)


def test_a_forked_child_does_not_write(tmp_path: Path) -> None:
    writer = filled(tmp_path, 3)
    writer._pid = os.getpid() + 1  # what a child sees
    writer.add_scalar("loss", 3, 9.0)
    writer.close("finished")
    assert len(read_run(tmp_path).scalar("loss")) < 4


def test_a_killed_process_leaves_what_was_flushed(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, signal
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
writer = RunWriter(pathlib.Path({str(tmp_path)!r}), RunInfo("test"))
writer.add_scalar("loss", 0, 1.0)
writer.flush()
writer.add_scalar("loss", 1, 1.0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    view = read_run(tmp_path)
    assert (len(view.scalar("loss")), view.info.status) == (1, "running")


def test_a_full_disk_stops_the_recording_with_one_warning_and_nothing_else(tmp_path: Path) -> None:
    writer = filled(tmp_path, 100)
    writer.flush()
    assert writer._database is not None
    writer._database.execute("PRAGMA max_page_count = 1")  # SQLite takes the size it has: no page more
    for step in range(100, 5000):
        writer.add_scalar("loss", step, 0.1)
    with pytest.warns(RuntimeWarning, match="has stopped .*full"):
        writer.flush()
    writer.add_scalar("loss", 5000, 0.1)
    writer.close("finished")
    writer.reopen()
    writer.close("finished")
    assert writer.view().num_steps == 5001
    assert read_run(tmp_path).num_steps == 100


def test_a_layer_takes_at_most_half_a_megabyte_however_long_the_run() -> None:
    source = SyntheticRun([layer("act", "ReLU", 256, RELU)])
    one = source._bucket(0, {"act": np.random.default_rng(0).normal(size=(16, 256))})
    sizes = []
    timeline = Timeline(merge_buckets)
    for step in range(30_000):
        timeline.append(dataclasses.replace(one, first_step=step, last_step=step, hist=one.hist * 10_000_000))
        if step in (999, 29_999):
            buckets = [*timeline.long, *timeline.recent]
            sizes.append(sum(b.rows.nbytes + b.hist.nbytes + b.fired.nbytes for b in buckets))
    assert max(sizes) <= 512 * 1024
    total = np.sum([b.hist.sum(dtype=np.float64) for b in timeline.joined()])
    assert total == pytest.approx(30_000 * 10_000_000 * 16 * 256, rel=1e-6)  # nothing overflowed


@pytest.mark.parametrize("num_steps", [14_440, 14_470])
def test_units_dead_now_are_seen_in_a_long_run_at_whatever_step_one_looks(
    num_steps: int, tmp_path: Path
) -> None:
    source = SyntheticRun([layer("act", "ReLU", 2, RELU)])
    both, one = (source._bucket(0, {"act": np.array([[1.0, second]])}) for second in (1.0, -1.0))
    writer = RunWriter(tmp_path, RunInfo("long"))
    writer.add_layer(source.writer.layers[0])
    for step in range(num_steps):
        fired = both if step < num_steps - DEAD_WINDOW else one
        writer.add_block(dataclasses.replace(fired, first_step=step, last_step=step))
    writer.flush()
    assert writer._timelines["train"].width > RECENT_STEPS
    for view in (writer.view(), read_run(tmp_path)):
        assert view.dead("act")[-1].tolist() == [False, True]
        assert view.num_recorded.sum() == num_steps
    assert writer.view().num_recorded[-RECENT_STEPS:].tolist() == [1] * RECENT_STEPS


def test_size_on_disk_is_bounded(tmp_path: Path) -> None:
    sizes = []
    for num_steps in (1_000, 4_000):
        writer = filled(tmp_path / str(num_steps), num_steps)
        writer.close("finished")
        sizes.append((tmp_path / str(num_steps) / "run.db").stat().st_size)
    scalar_bytes = 3_000 * 40  # the exact view of the loss grows up to 4,096 steps
    assert sizes[1] <= 1.3 * sizes[0] + scalar_bytes


def test_runs_are_found_below_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        filled(tmp_path / name, 1).close("finished")
    (tmp_path / "c").mkdir()
    assert [path.name for path in find_runs(tmp_path)] == ["a", "b"]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]
    assert find_runs(tmp_path / "nowhere") == []


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("count_type", [np.uint32, np.float32])
def test_buckets_survive_packing(count_type: type, *, compressed: bool) -> None:
    source = SyntheticRun([layer("fc", "Linear", 5), layer("act", "ReLU", 19, RELU)])
    bucket = source._bucket(3, {"fc": np.array([[np.nan, np.inf, -1.0, 0, 9]]), "act": np.ones((2, 19))})
    bucket = dataclasses.replace(bucket, hist=bucket.hist.astype(count_type))
    again = unpack((3, 3, 1), *pack(bucket, compressed=compressed), compressed=compressed)
    assert (again.first_step, again.last_step, again.num_steps) == (3, 3, 1)
    for one, other in ((bucket.rows, again.rows), (bucket.hist, again.hist), (bucket.fired, again.fired)):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_the_first_non_finite_step_of_a_layer_is_exact() -> None:
    run = SyntheticRun([layer("fc", "Linear", 2)])
    for step in range(600):
        run.step({"fc": np.full((1, 2), np.nan if step >= 123 else 1.0)})
    view = run.view()
    assert view.first_non_finite("fc") == 123
    assert view.rows[:, 0, Field.NAN].sum() == 2 * (600 - 123)


def test_runs_of_the_first_version_can_be_read(tmp_path: Path) -> None:
    writer = filled(tmp_path, 30)
    writer.close("finished")
    with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as database, database:
        for table in ("flag_bucket", "parameter", "parameter_bucket"):
            database.execute(f"DROP TABLE {table}")
        database.execute("UPDATE info SET value = '1' WHERE key = 'schema'")
        database.execute("UPDATE layer SET data = json_remove(data, '$.quantity')")
    assert_same(writer.view(), read_run(tmp_path))
    assert read_run(tmp_path).gradients.layers == ()
    assert read_run(tmp_path).parameters.names == []
