"""A real training under ``actograph run``: its loader's workers are spawned, and its run is read while it is written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actograph.cli.main import app
from actograph.errors import RunNotFoundError
from actograph.runlog.reader import read_run

DEADLINE_S = 120.0  # for a machine that is busy with other tests
Training = tuple[Path, subprocess.CompletedProcess[str], str, int]
SCRIPT = """
import os, sys, time
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self): return 32
    def __getitem__(self, index):
        from torch.nn.modules.module import _global_forward_pre_hooks
        own = nn.Linear(4, 4)  # a worker that trains, too
        optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
        own(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        return torch.randn(4), len(_global_forward_pre_hooks), os.getpid()

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    num_steps, num_more, was_in_worker = 0, 0, True
    for x, num_hooks, pid in DataLoader(Rows(), batch_size=4, num_workers=1, multiprocessing_context="spawn"):
        was_in_worker = was_in_worker and not num_hooks.any() and (pid != os.getpid()).all().item()
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        num_steps += 1
        while num_steps == 4 and not (folder / "go").exists():  # it has trained, and is not over
            time.sleep(0.02)
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            num_more += 1
    print(num_steps, num_more, was_in_worker)
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A folder with a run in it, how its process ended, and status and exit code of a diagnosis in its midst."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "train.py").write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "actograph",
        "run",
        "--every",
        "1",
        "--out",
        "run",
        "train.py",
        str(folder),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        status, code = diagnosed_live(folder / "run", process)
    finally:
        (folder / "go").touch()
    out, err = process.communicate(timeout=DEADLINE_S)
    return folder, subprocess.CompletedProcess(command, process.returncode, out, err), status, code


def diagnosed_live(run: Path, process: subprocess.Popen[str]) -> tuple[str, int]:
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            view = read_run(run)
        except RunNotFoundError:
            time.sleep(0.05)
            continue
        if view.num_steps > 4:
            return view.info.status, app(["diagnose", str(run)], standalone_mode=False) or 0
        time.sleep(0.05)
    return "never seen", -1


def test_a_run_is_diagnosed_while_it_is_written(training: Training) -> None:
    _, _, status, code = training
    assert (status, code) == ("running", 0)


def test_workers_that_are_spawned_are_not_recorded_and_the_run_ends_cleanly(training: Training) -> None:
    folder, done, _, _ = training
    assert done.returncode == 0, done.stderr
    num_steps, num_more, was_in_worker = done.stdout.split()
    assert (num_steps, was_in_worker) == ("8", "True")
    view = read_run(folder / "run")
    assert view.info.status == "finished"
    assert [layer.name for layer in view.layers] == ["0", "1", "2"]  # and none of a worker's
    assert view.num_steps == 8 + int(num_more)
    assert [path.name for path in (folder / "run").iterdir()] == ["run.db"]
    assert "recording has failed" not in done.stderr
    assert "Traceback" not in done.stderr
