from __future__ import annotations

import json
from pathlib import Path

import pytest

from actograph.cli.runs import ls, show
from actograph.errors import RunNotFoundError, UsageError
from actograph.runlog.view import STATISTICS

from ..show.runs import healthy_run, sick_run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    healthy_run(steps=130, directory=folder / "runs" / "20260101-1200-mnist")
    sick_run(directory=folder / "runs" / "20260102-1200-sick")
    broken = folder / "runs" / "20260103-1200-broken"
    broken.mkdir()
    (broken / "run.db").write_bytes(b"this is no database, not by far" * 50)
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "100")


def test_ls_lists_every_run_oldest_first(capsys: pytest.CaptureFixture[str]) -> None:
    ls()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "20260101-1200-mnist",
        "20260102-1200-sick",
        "20260103-1200-broken",
    ]
    assert lines[3].split()[-1] == "unreadable"


def test_ls_as_json_has_null_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    ls(Path("runs"), as_json=True)
    good, sick, broken = json.loads(capsys.readouterr().out)
    assert good["name"] == "20260101-1200-mnist"
    assert good["steps"] == 130
    assert good["best"]["name"] == "accuracy"
    assert good["status"] == "finished"
    assert sick["loss"] is None
    assert sick["best"] is None
    assert broken["status"] == "unreadable"
    assert "run.db" in broken["error"]


def test_ls_without_runs_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ls()
    assert "actograph train" in capsys.readouterr().out
    with pytest.raises(UsageError, match="elsewhere"):
        ls(Path("elsewhere"))


def test_show_finds_a_run_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    show("mnist")
    text = capsys.readouterr().out
    assert "simple_cnn on mnist" in text
    assert "layers.4.conv" in text
    assert "Nothing wrong was found." in text


def test_show_as_json_holds_layers_and_findings(capsys: pytest.CaptureFixture[str]) -> None:
    show("20260102-1200-sick", as_json=True)
    data = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    head = data["layers"][-1]
    assert head["name"] == "head"
    assert head["mean"] is None
    assert head["non_finite"] == 1.0
    assert head["first_non_finite"] == 285
    assert set(STATISTICS) <= set(head)
    assert data["diagnosis"]["run"] == "20260102-1200-sick"
    assert "non-finite-loss" in json.dumps(data["diagnosis"]["findings"])


def test_show_of_an_unknown_run_names_close_ones() -> None:
    with pytest.raises(RunNotFoundError, match="20260101-1200-mnist"):
        show("20260101-1200-mnits")
