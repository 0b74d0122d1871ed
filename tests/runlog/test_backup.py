from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from actograph.layout.parameter import ParameterInfo, empty_parameter_rows
from actograph.runlog import store
from actograph.runlog.backup import open_bytes
from actograph.runlog.flags import is_wide
from actograph.runlog.reader import read_run
from actograph.runlog.scalars import ScalarTrack
from actograph.runlog.schema import Cost, RunInfo
from actograph.runlog.store import RunWriter
from actograph.runlog.view import RunView
from actograph.testing.synthetic import RELU, SyntheticRun, layer

NUM_UNITS = 1000  # so many that flags are kept apart
NUM_STEPS = 700  # the long view has been halved once


def writer(directory: Path | None, name: str = "test") -> RunWriter:
    return RunWriter(directory, RunInfo(name, cost=Cost(1.0, 50.0, 10, 10)))


def fill(run: RunWriter, begin: int, end: int) -> None:
    """Write the steps of two layers and one parameter; a step's numbers depend on the step alone."""
    source = SyntheticRun([layer("fc", "Linear", NUM_UNITS), layer("act", "ReLU", NUM_UNITS, RELU)])
    if not begin:
        for one in source.writer.layers:
            run.add_layer(one)
        run.add_parameter(ParameterInfo("weight", (2, 2), "float32"))
    for step in range(begin, end):
        values = np.random.default_rng(step).normal(size=(2, NUM_UNITS))
        run.add_block(source._bucket(step, {"fc": values, "act": np.maximum(values, 0)}))
        run.add_parameter_rows(step, empty_parameter_rows(1) + step)
        run.add_scalar("loss", step, float("nan") if step % 50 == 5 else 1 / (step + 1))
        if step % 30 == 29:
            run.add_scalar("accuracy", step, step / 7, phase="valid")
            run.add_event(step, "phase", name="valid")


def assert_same(view: RunView, wanted: RunView) -> None:
    assert (view.layers, view.events) == (wanted.layers, wanted.events)
    assert view.num_recorded.tolist() == wanted.num_recorded.tolist()
    np.testing.assert_array_equal(view.rows, wanted.rows)
    np.testing.assert_array_equal(view.parameters.rows, wanted.parameters.rows)
    assert view.parameters.parameters == wanted.parameters.parameters
    for name in ("fc", "act"):
        np.testing.assert_array_equal(view.histogram(name), wanted.histogram(name))
        np.testing.assert_array_equal(view.fired(name), wanted.fired(name))
    assert view.scalars.keys() == wanted.scalars.keys()
    for key, series in wanted.scalars.items():
        for member in ("steps", "values", "low", "high"):
            np.testing.assert_array_equal(getattr(view.scalars[key], member), getattr(series, member))


@pytest.fixture(scope="module")
def whole() -> RunWriter:
    run = writer(None)
    fill(run, 0, NUM_STEPS)
    return run


@pytest.mark.parametrize("at", [1, 45, 333, 600])
def test_a_run_goes_on_from_its_backup_as_if_nothing_had_happened(
    tmp_path: Path, whole: RunWriter, at: int
) -> None:
    assert is_wide(NUM_UNITS)
    first = writer(tmp_path / "first" if at % 2 else None)
    fill(first, 0, at)
    data = first.backup()
    assert data is not None
    for name, run in (("memory", writer(None)), ("disk", writer(tmp_path / "second", "another"))):
        run.add_event(0, "phase", name="train")  # of the process that goes on: it is replaced
        run.info = dataclasses.replace(run.info, cost=Cost())
        run.restore(data)
        assert run.info.name == ("test" if name == "memory" else "another")
        assert run.info.cost == first.info.cost
        fill(run, at, NUM_STEPS)
        assert_same(run.view(), whole.view())
        if run.directory is not None:
            run.flush()
            run.close("finished")
            assert_same(read_run(run.directory), whole.view())


@pytest.mark.parametrize("at", [0, 3, 9, 30, 77])
def test_a_scalar_whose_exact_steps_are_gone_goes_on(at: int) -> None:
    bounds = {"exact_steps": 16, "max_buckets": 4, "handful": 8}
    whole, first, second = (ScalarTrack(**bounds) for _ in range(3))
    for step in range(100):
        whole.append(step, step / 3)
        (first if step < at else second).append(step, step / 3)
        if step == at - 1:
            second.take_up(first.buckets, list(first.exact))
    assert (second.buckets, list(second.exact)) == (whole.buckets, list(whole.exact))


def test_a_backup_does_not_disturb_the_run(tmp_path: Path, whole: RunWriter) -> None:
    for directory in (tmp_path / "run", None):
        run = writer(directory)
        for begin in range(0, NUM_STEPS, 100):
            fill(run, begin, begin + 100)
            run.backup()
        assert_same(run.view(), whole.view())
        run.close("finished")
        data = run.backup()  # of a closed run as well
        assert data is not None
        again = writer(None)
        again.restore(data)
        assert_same(again.view(), whole.view())
    assert_same(read_run(tmp_path / "run"), whole.view())


def test_a_backup_is_an_ordinary_database(whole: RunWriter) -> None:
    data = whole.backup()
    assert data is not None
    assert data.startswith(b"SQLite format 3")
    connection = open_bytes(data)
    assert connection.execute("SELECT count(*) FROM layer").fetchone() == (2,)
    connection.close()


def test_there_is_no_backup_of_a_run_whose_storing_has_failed(tmp_path: Path) -> None:
    run = writer(tmp_path / "run")
    assert run._database is not None
    run._database.execute("DROP TABLE layer")
    fill(run, 0, 1)
    with pytest.warns(RuntimeWarning, match="has stopped"):
        assert run.backup() is None


def test_a_backup_that_finds_no_room_on_the_disk_goes_on_in_memory(
    tmp_path: Path, whole: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    data = whole.backup()
    assert data is not None
    run = writer(tmp_path)
    monkeypatch.setattr(store, "_set_pragmas", full)
    with pytest.warns(RuntimeWarning, match="has stopped"):
        run.restore(data)
    assert_same(run.view(), whole.view())
    run.close("finished")
