from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from actograph.errors import UsageError
from actograph.study.executor import InProcess, Processes, executor_for


def double(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def test_a_process_that_dies_takes_no_other_call_with_it() -> None:
    with Processes(2) as executor:
        results = dict(executor.run(double, list(range(6))))
        assert isinstance(results.pop(3), BrokenProcessPool)
        assert results == {0: 0, 1: 2, 2: 4, 4: 8, 5: 10}
        assert dict(executor.run(double, [7])) == {7: 14}  # it can be used again


def test_calls_in_this_process_come_in_order() -> None:
    assert list(InProcess().run(double, [2, 1])) == [(2, 4), (1, 2)]


def test_one_job_needs_no_process_of_its_own() -> None:
    assert isinstance(executor_for(1), InProcess)
    with pytest.raises(UsageError, match="jobs is 0; give at least 1"):
        executor_for(0)


SCRIPT = """
import signal, sys, time
from pathlib import Path
from actograph.study.executor import Processes

def slow(item):
    Path(sys.argv[1], str(item)).touch()
    time.sleep(60)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes its background jobs ignore it
    with Processes(2) as executor:
        list(executor.run(slow, [1, 2, 3]))
"""


def test_ctrl_c_ends_the_calls_that_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    child = subprocess.Popen([sys.executable, script, tmp_path], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "1").exists() and (tmp_path / "2").exists()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)  # far less than the calls would take
    assert "KeyboardInterrupt" in errors
    assert not (tmp_path / "3").exists()
