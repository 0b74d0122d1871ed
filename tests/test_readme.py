"""What README.md and docs/loop.md show works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import torch
from torch import nn

from actograph import open_run

ROOT = Path(__file__).parents[1]


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[go.Figure]:
    """Run in an empty folder, and collect figures instead of opening a browser."""
    figures: list[go.Figure] = []

    def show(figure: go.Figure) -> None:  # list.append itself would not be bound to the figure
        figures.append(figure)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(go.Figure, "show", show)
    return figures


def test_the_ten_lines_of_the_readme_train_and_draw(
    shown: list[go.Figure], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner, _, _ = blocks("README.md")
    names: dict[str, Any] = {}
    exec(learner.replace("fit_one_cycle(5,", "fit_one_cycle(1,"), names)
    assert len(names["mean"]) == len(names["near_zero"]) > 0
    assert len(shown) == 2
    assert capsys.readouterr().out.rstrip().endswith("()")  # no findings
    (run,) = (tmp_path / "runs").iterdir()
    assert open_run(run).view.num_steps == 63


def test_the_readme_goes_on_from_its_checkpoint(shown: list[go.Figure], tmp_path: Path) -> None:
    learner, _, resume = (
        block.replace("fit_one_cycle(5,", "fit_one_cycle(1,") for block in blocks("README.md")
    )
    first: dict[str, Any] = {}
    exec(learner + resume, first)
    again: dict[str, Any] = {}
    exec(learner.partition("learn.fit")[0] + resume, again)  # in a new process: the fit was done already
    for name, weight in first["learn"].model.state_dict().items():
        assert torch.equal(weight, again["learn"].model.state_dict()[name])
    assert (tmp_path / "digits.safetensors").is_file()


def test_the_loop_of_the_readme_records(shown: list[go.Figure], tmp_path: Path) -> None:
    _, loop, _ = blocks("README.md")
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    loader = [(torch.randn(8, 3), torch.randn(8, 1))] * 5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    exec(
        loop, {"model": model, "loader": loader, "optimizer": optimizer, "loss_func": nn.functional.mse_loss}
    )
    (run,) = (tmp_path / "runs").iterdir()
    assert len(open_run(run).view.scalar("loss")) == 5


def test_the_callback_of_the_loop_page_stops_the_fit(
    shown: list[go.Figure], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(blocks("docs/loop.md")[0], {"__name__": "loop"})
    assert "valid_loss is below" in capsys.readouterr().out


def test_the_page_for_fastai_users_runs(shown: list[go.Figure], capsys: pytest.CaptureFixture[str]) -> None:
    code = "".join(blocks("docs/fastai.md"))
    pictures = re.findall(r"!\[[^\]]*\]\((fastai/.*?)\)", (ROOT / "docs/fastai.md").read_text())
    assert all((ROOT / "docs" / picture).is_file() for picture in pictures)
    for long, short in {
        "SEEDS = 20": "SEEDS = 1",
        "fit(3,": "fit(1,",
        "fit(8,": "fit(1,",
        "cycle(8,": "cycle(1,",
    }.items():
        assert long in code
        code = code.replace(long, short)
    exec(code, {})
    assert len(shown) == len(pictures)
    printed = capsys.readouterr().out
    assert "error: learning-rate-too-high since step 0" in printed
    assert "It led to dead-units in block2.act since step" in printed
