"""``actograph study`` as a stranger uses it, with a study that only counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from actograph.cli.main import app
from actograph.errors import UsageError
from actograph.study import catalog
from tests.study.helpers import Counting, Failing


@pytest.fixture(autouse=True)
def _few_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"counting": "tests.study.helpers:Counting", "failing": "tests.study.helpers:Failing"}
    monkeypatch.setattr(catalog, "STUDIES", named)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = random.integers(0, 99, (60, 8, 8)).astype(np.uint8)
    x[np.arange(60), 2 * y] = 255
    np.savez(tmp_path / "data.npz", x=x, y=y)
    return "data.npz"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ("study", *arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_list_tells_names_and_questions() -> None:
    assert run("list").stdout.splitlines() == [
        "counting  How often does it run?",
        "failing   How often does it run?",
    ]
    assert json.loads(run("list", "--json").stdout)[1] == {"name": "failing", "question": Failing.question}


def test_a_study_prints_its_verdict_and_writes_its_chapter(data: str, tmp_path: Path) -> None:
    done = run("counting", data, "--seeds", "2", "--lr", "0.1", "--jobs", "1", "--batch-size", "10")
    assert done.exit_code == 0
    for part in (
        "counting: 4 of 4 trials",
        "How often does it run?",
        "- 4 trials.",
        "studies/counting/book.html",
    ):
        assert part in done.stdout
    page = (tmp_path / "studies/counting/book.html").read_text()
    assert "How often does it run?" in page
    assert "data.npz" in page


def test_all_studies_make_one_book_with_one_rate(data: str, tmp_path: Path) -> None:
    done = run("all", data, "--seeds", "2", "--jobs", "1", "--batch-size", "10", "--out", "answers")
    assert done.exit_code == 0
    assert "2 trials failed" in done.stdout
    rates = {
        json.loads((tmp_path / "answers" / name / "study.json").read_text())["lr"] for name in catalog.STUDIES
    }
    assert len(rates) == 1
    page = (tmp_path / "answers/book.html").read_text()
    assert page.count('class="chapter"') == 2
    assert "it was meant to fail" in page


def test_json_is_one_object_and_nothing_else(data: str) -> None:
    done = run("counting", data, "--seeds", "2", "--lr", "0.1", "--jobs", "1", "--batch-size", "10", "--json")
    told = json.loads(done.stdout)
    assert told["name"] == "counting"
    assert told["verdict"] == ["4 trials."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("countin",),
            "no study is called 'countin' \\(did you mean 'counting'\\?\\); the names are counting, failing",
        ),
        (("counting", "data.npz", "--seeds", "1"), "seeds is 1; an interval needs at least 2"),
        (("counting", "nowhere"), "nowhere does not exist; give 'mnist'"),
        (("counting", "data.npz", "--jobs", "0"), "jobs is 0; give at least 1"),
        (("counting", "data.npz", "--model", "simple_cn"), "no model is called 'simple_cn'"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    data: str, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == [data]


def test_an_interruption_says_how_to_go_on(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Counting, "measure", interrupt)
    result = CliRunner().invoke(
        app, ("study", "counting", data, "--lr", "0.1", "--jobs", "1", "--batch-size", "10")
    )
    assert result.exit_code != 0
    assert "lie in studies/counting; the same command goes on from there" in result.stderr
