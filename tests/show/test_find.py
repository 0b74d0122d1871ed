from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from actograph.errors import RunNotFoundError
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.show.find import find_run, live_status


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("20260101-1200-mnist", "20260102-1200-mnist", "20260103-1200-folder"):
        RunWriter(tmp_path / "runs" / name, RunInfo(name)).close("finished")
    return tmp_path / "runs"


def test_a_run_is_found_by_path_database_name_and_ending(runs: Path) -> None:
    expected = runs / "20260103-1200-folder"
    for given in (expected, expected / "run.db", str(expected), "20260103-1200-folder", "folder"):
        assert find_run(given, runs) == expected


def test_of_several_runs_with_one_ending_the_newest_is_meant(runs: Path) -> None:
    assert find_run("mnist", runs).name == "20260102-1200-mnist"


def test_an_unknown_run_is_named_with_close_matches(runs: Path) -> None:
    with pytest.raises(RunNotFoundError, match="'20260101-1200-mnist'"):
        find_run("20260101-1200-mnits", runs)
    with pytest.raises(RunNotFoundError, match="actograph ls"):
        find_run("@", runs)


def test_without_any_run_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="holds no runs"):
        find_run("x", tmp_path)


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_running_run_without_its_process_has_died() -> None:
    here = platform.node()
    assert live_status(RunInfo("a", pid=ended_process(), host=here)) == "died"
    assert live_status(RunInfo("a", pid=os.getpid(), host=here)) == "running"
    assert live_status(RunInfo("a", pid=ended_process(), host=here, status="finished")) == "finished"


def test_of_another_machine_or_an_unknown_process_nothing_is_said() -> None:
    assert live_status(RunInfo("a", pid=ended_process(), host="elsewhere")) == "running"
    assert live_status(RunInfo("a", pid=0)) == "running"


def test_a_process_of_another_user_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert live_status(RunInfo("a", pid=1, host=platform.node())) == "running"
