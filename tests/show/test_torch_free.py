from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .runs import healthy_run

OPEN = """
import sys, time
start = time.perf_counter()
from actograph.runlog.reader import read_run
from actograph.rules.diagnose import diagnose
from actograph.show import terminal
from rich.console import Console
view = read_run(sys.argv[1])
Console().print(terminal.run_summary(view, diagnose(view)))
assert "torch" not in sys.modules
assert "plotly" not in sys.modules
print("seconds", time.perf_counter() - start)
"""
ALL = "import sys, actograph.show.run, actograph.cli.runs, actograph.cli.report; assert 'torch' not in sys.modules"
MAX_SECONDS = 5.0  # about 0.4 here on an idle core; shared machines are slow at times


def test_a_run_is_summed_up_quickly_and_without_torch(tmp_path: Path) -> None:
    healthy_run(directory=tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < MAX_SECONDS


def test_reports_and_their_commands_are_imported_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
