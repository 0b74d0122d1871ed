from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from actograph.cli.main import app
from actograph.errors import UsageError
from actograph.integrations.trainer_run import TrainerRun
from actograph.observe.observer import present_observer
from actograph.observe.patches import listeners
from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView


def toy() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        loss = functional.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def fit(run: TrainerRun, *, dies: bool = False) -> None:
    """Train as a trainer does: two epochs, each with a validation."""
    model, optimizer = toy()
    run.begin(model, optimizer)
    for epoch in range(2):
        for _ in range(2):
            run.phase("train", epoch)
            train(model, optimizer, 1)
        if dies:
            return
        run.phase("valid", epoch)
        run.note({"loss": torch.tensor(0.5), "accuracy": 0.25, "name": "best", "is_best": True})
    run.end()


def check(view: RunView) -> None:
    assert view.num_steps == 4
    assert [(e.data["name"], e.data["epoch"]) for e in view.events] == [
        ("train", 0), ("valid", 0), ("train", 1), ("valid", 1),
    ]  # fmt: skip
    assert view.scalar("accuracy", phase="valid").steps.tolist() == [1, 3]
    assert {name for phase, name in view.scalars if phase == "valid"} == {"loss", "accuracy"}


def test_phases_and_metrics_of_a_fit_are_in_its_run(tmp_path: Path) -> None:
    run = TrainerRun({"out": tmp_path / "run", "budget": None})
    fit(run)
    check(run.view)
    check(read_run(tmp_path / "run"))
    assert not listeners()


def test_each_fit_has_a_run_and_one_that_died_is_closed(tmp_path: Path) -> None:
    run = TrainerRun({"out": tmp_path / "run"})
    fit(run, dies=True)
    fit(run)
    assert read_run(tmp_path / "run").info.status == "failed"
    assert read_run(tmp_path / "run-2").info.status == "finished"
    assert not listeners()


def test_a_copy_has_the_options_and_no_run() -> None:
    run = TrainerRun({"out": ":memory:", "grad": True})
    fit(run)
    for other in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        assert other.options == run.options
        with pytest.raises(UsageError, match="nothing is recorded yet"):
            _ = other.view
    assert run.view.gradient_layers


SCRIPT = """
from actograph.integrations.trainer_run import TrainerRun
from actograph.observe.observer import present_observer
from tests.integrations.test_trainer_run import fit, toy, train
{}
model, optimizer = toy()
train(model, optimizer, 5)
"""


def observed(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> RunView | None:
    """Return the run of a script under ``actograph run``, if it has left one; it trains another model at its end."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    script = folder / "train.py"
    script.write_text(SCRIPT.format(source))
    app(["run", "--every", "1", "--out", str(folder / "run"), str(script)], standalone_mode=False)
    return read_run(folder / "run") if (folder / "run").exists() else None


def test_in_an_observed_script_it_speaks_to_the_run_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = observed(tmp_path, "fit(TrainerRun({}))", monkeypatch)
    assert view is not None
    assert view.num_steps == 9
    assert [layer.name for layer in view.layers][3:] == ["sequential1.0", "sequential1.1", "sequential1.2"]
    assert (view.moments.num[4:, 3] > 0).all()  # the phase that was said last does not stand
    assert [event.data["name"] for event in view.events] == ["train", "valid"] * 2
    assert view.scalar("accuracy", phase="valid").steps.tolist() == [1, 3]
    assert present_observer() is None


def test_options_that_do_not_count_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match=r"grad of ActographCallback does not count"):
        observed(tmp_path, "fit(TrainerRun({'budget': 0.03, 'grad': True}))", monkeypatch)


def test_what_it_says_cannot_break_an_observed_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
def fails(*_, **__): raise RuntimeError("no disk")
present_observer().recording.phase = fails
fit(TrainerRun({}))
print("trained")"""
    observed(tmp_path, source, monkeypatch)
    out = capsys.readouterr()
    assert out.out == "trained\n"
    assert "recording has failed at step 0 (RuntimeError: no disk)" in out.err


def test_parts_that_torch_does_not_know_of_are_not_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
import torch
class Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = [torch.nn.Linear(4, 3)]
        self.scale = torch.nn.Parameter(torch.ones(1))
    def forward(self, x):
        return self.scale * self.parts[0](x)
whole = Whole()
present_observer().adopt(torch.nn.ModuleDict({"only": whole.parts[0]}), [whole])
train(whole, torch.optim.SGD(whole.parts[0].parameters(), lr=0.1))"""
    view = observed(tmp_path, source, monkeypatch)
    assert view is not None
    assert [layer.name for layer in view.layers] == [
        "only",
        "sequential1.0",
        "sequential1.1",
        "sequential1.2",
    ]
