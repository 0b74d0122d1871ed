from __future__ import annotations

from pathlib import Path

import pytest

from actograph.cli.report import report
from actograph.errors import RunNotFoundError

from ..show.runs import healthy_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    healthy_run(steps=10, directory=tmp_path / "run")
    return tmp_path / "run"


def test_the_report_lies_in_the_runs_folder_and_its_path_is_printed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(str(run))
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"


def test_the_report_goes_where_it_is_told(run: Path, tmp_path: Path) -> None:
    report(str(run), out=tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").is_file()
    assert not (run / "report.html").exists()


def test_an_unknown_run_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError):
        report(str(tmp_path / "nothing"))
