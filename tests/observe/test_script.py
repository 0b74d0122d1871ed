from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from actograph.errors import RunInUseError, UsageError
from actograph.recording.recording import Recording

from .conftest import Program

ABOUT = """
import json, sys
main = sys.modules["__main__"]
names = ("__name__", "__file__", "__package__", "__cached__", "__doc__")
print(json.dumps({
    "argv": sys.argv, "path": sys.path[0], "is_main": main.__dict__ is globals(),
    **{name: globals()[name] for name in names},
    "loader": type(__loader__).__name__, "spec": __spec__ and __spec__.name, "builtins": __builtins__.__name__,
}))
"""
TRAIN = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(2, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def train(steps):
    for _ in range(steps):
        loss = model(torch.ones(3, 2)).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
train(4)
"""


def by_python(*args: str, cwd: Path) -> dict[str, object]:
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, check=True, cwd=cwd)
    about: dict[str, object] = json.loads(done.stdout)
    return about


@pytest.fixture
def here(program: Program, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(program.folder)
    monkeypatch.setitem(sys.modules, "package", ModuleType("package"))  # taken away at the end
    del sys.modules["package"]
    (program.folder / "package").mkdir()
    for name in ("about.py", "package/__init__.py", "package/__main__.py", "package/train.py"):
        (program.folder / name).write_text(ABOUT if "__init__" not in name else "")
    return program.folder


@pytest.mark.parametrize(
    "call",
    [
        ("about.py",),
        ("about.py", "--out", "there", "-m", "--", "x"),
        ("package/train.py", "a"),
        ("-m", "about", "--lr", "0.1"),
        ("-m", "package", "--out", "there"),
        ("-m", "package.train", "-m"),
    ],
)
def test_a_program_finds_itself_as_under_python(
    program: Program, here: Path, call: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.call(*call) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == by_python(*call, cwd=here)


def test_two_hyphens_end_the_options_of_the_command(
    program: Program, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.call("--", "about.py", "--every") == 0
    assert json.loads(capsys.readouterr().out)["argv"] == ["about.py", "--every"]


def test_a_script_that_trains_nothing_leaves_no_run(
    program: Program, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "idle.py").write_text("import os, sys\nos.chdir('package')\nsys.exit(5)")
    with contextlib.chdir(here):
        assert program.call("idle.py") == 5
    assert capsys.readouterr().err == "actograph: no optimizer step was seen: nothing to record\n"
    assert not (here / "runs").exists()
    (here / "runs").mkdir()
    with contextlib.chdir(here):
        assert program.call("idle.py") == 5
    assert list((here / "runs").iterdir()) == []


def test_an_error_ends_with_the_script_s_own_traceback_and_a_complete_run(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run(TRAIN + "model(torch.ones(3, 2)).backward()\n") == 1
    said = capsys.readouterr().err
    assert said.startswith(
        f'Traceback (most recent call last):\n  File "{program.path}", line 12, in <module>\n'
    )
    assert "RuntimeError: grad can be implicitly created only for scalar outputs" in said
    assert "observe" not in said
    assert said.index("RuntimeError") < said.index("Nothing wrong was found.")
    assert (program.view.num_steps, program.view.info.status) == (4, "failed")


@pytest.mark.parametrize(
    ("end", "code", "status"),
    [
        ("import sys; sys.exit()", 0, "finished"),
        ("raise SystemExit(0)", 0, "finished"),
        ("raise SystemExit(3)", 3, "failed"),
        ("raise SystemExit('no more data')", 1, "failed"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_the_exit_code_is_the_script_s(program: Program, end: str, code: int, status: str) -> None:
    assert program.run(TRAIN + end) == code
    assert (program.view.num_steps, program.view.info.status) == (4, status)


def test_an_error_in_the_first_forward_is_shown_without_us(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
    def forward(self, x):
        return self.linear(x) + torch.ones(3)
Model()(torch.ones(1, 2))
"""
    assert program.run(TRAIN + fails) == 1
    said = capsys.readouterr().err
    assert "return self.linear(x) + torch.ones(3)" in said
    assert "functional.py" not in said.partition("RuntimeError")[0]


def test_a_loss_that_is_nan_is_found(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(TRAIN + "model[0].weight.data.fill_(float('nan'))\ntrain(3)") == 0
    assert "NaN" in capsys.readouterr().err


def test_what_is_pickled_by_name_is_found_by_a_spawned_child(program: Program) -> None:
    source = """
import multiprocessing
def double(x):
    return 2 * x
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]
"""
    assert program.run(source) == 0


def test_every_n_th_step_is_recorded(program: Program) -> None:
    assert program.run(TRAIN, options=("--every", "3")) == 0
    assert program.view.last_steps.tolist() == [0, 3]
    assert len(program.view.scalar("loss")) == 4


def test_mistakes_in_the_call_are_told_before_anything_is_run(program: Program, here: Path) -> None:
    (here / "broken.py").write_text("for for for")
    (here / "data.bin").write_bytes(b"\0\1\2\xff")
    (here / "taken").mkdir()
    (here / "taken" / "run.db").write_text("")
    told = {
        ("missing.py",): "no script missing.py; check the path",
        ("package",): r"no script package \(it is a folder\); give a .py file, or -m",
        ("broken.py",): "broken.py is not a Python script",
        ("data.bin",): "data.bin is not a Python script",
        ("-m", "nowhere"): "no module nowhere that can be run",
        ("-m", "nowhere.at.all"): "module nowhere.at.all cannot be run",
        ("--every", "2", "--budget", "0.1", "about.py"): "give one",
        ("--every", "0", "about.py"): "every=0",
        ("--budget", "2", "about.py"): "budget=2.0",
        ("--budget", "0", "about.py"): "budget=0.0",
    }
    for call, message in told.items():
        with pytest.raises(UsageError, match=message):
            program.call(*call)
    with pytest.raises(RunInUseError, match="taken already holds a run"):
        program.call("--out", "taken", "about.py")
    assert not (here / "runs").exists()


def test_a_script_that_cannot_be_read_is_told_with_the_reason(
    program: Program, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(io, "open_code", refuse)
    with pytest.raises(UsageError, match=r"about.py cannot be read \(Permission denied\)"):
        program.call("about.py")


def test_a_run_that_cannot_be_stored_takes_nothing_from_the_script(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Recording, "close", fail)
    assert program.run(TRAIN + "raise SystemExit(4)") == 4
    said = capsys.readouterr().err
    assert said == "actograph: the run was not stored to its end (OSError: no space left on device)\n"
