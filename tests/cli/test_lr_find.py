"""``actograph lr-find`` and ``train --lr auto`` as a stranger uses them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from actograph.cli.main import app
from actograph.cli.train import parse_rate
from actograph.errors import UsageError
from actograph.runlog.reader import read_run

FEW = ("--batch-size", "64", "--iterations", "40")
DEAD = ("--width", "0.01", "--act", "sigmoid", *FEW)  # one filter a layer: nothing can be learned in 40 steps


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_curve_and_the_suggestions_are_printed_and_nothing_is_written(tmp_path: Path) -> None:
    done = run("lr-find", "mnist", "--batch-size", "64")
    assert done.exit_code == 0
    assert re.search(r"^loss 2\.3\d* +[▁▂▃▄▅▆▇█]{50} ", done.stdout, re.MULTILINE)
    assert re.search(r"^ +▲ valley 0\.00\d+$", done.stdout, re.MULTILINE)
    assert re.search(r"^valley 0\.00\d+, steep \S+, minimum \S+, slide \S+$", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_json_holds_the_numbers_and_the_page_is_written_when_asked_for(tmp_path: Path) -> None:
    done = run("lr-find", "mnist", "--batch-size", "64", "--repeats", "2", "--json", "--out", "curve.html")
    data = json.loads(done.stdout)
    low, high = data["ranges"]["valley"]
    assert low < data["suggestions"]["valley"] < high
    assert len(data["repeats"]) == 2
    page = (tmp_path / "curve.html").read_text()
    assert f"valley {data['suggestions']['valley']:.2g}" in page
    assert not re.search(r"<(script|link)[^>]* (src|href)=", page)  # opens without a network
    assert [path.name for path in tmp_path.iterdir()] == ["curve.html"]


def test_where_nothing_is_suggested_the_exit_code_is_1() -> None:
    done = run("lr-find", "mnist", *DEAD)
    assert done.exit_code == 1
    assert "no learning rate is suggested: the loss never fell" in done.stdout
    assert json.loads(run("lr-find", "mnist", *DEAD, "--json").stdout)["suggestions"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnits",), "give 'mnist' or a folder"),
        (("mnist", "--out", "curve.png"), r"--out is curve\.png; give a file"),
        (("mnist", "--out", "nowhere/curve.html"), "in a folder that is there"),
        (("mnist", "--start-lr", "20"), "start_lr is 20"),
        (("mnist", "--iterations", "5"), "num_it is 5"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run("lr-find", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_training_with_the_rate_that_is_found_is_training_with_that_rate(tmp_path: Path) -> None:
    found = json.loads(run("lr-find", "mnist", "--batch-size", "128", "--json").stdout)["suggestions"][
        "valley"
    ]
    options = ("mnist", "--epochs", "1", "--batch-size", "128")
    done = run("train", *options, "--lr", "auto", "--out", "auto")
    assert f"1cycle up to rate {found:g}" in done.stdout
    run("train", *options, "--lr", repr(found), "--out", "given")
    auto, given = (read_run(tmp_path / name) for name in ("auto", "given"))
    assert auto.info.config["lr_max"] == given.info.config["lr_max"] == found
    np.testing.assert_array_equal(auto.scalar("loss").values, given.scalar("loss").values)
    np.testing.assert_array_equal(auto.rows, given.rows)


def test_training_does_not_begin_where_no_rate_is_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--lr auto found none.*give --lr"):
        run("train", "mnist", *DEAD[:4], "--batch-size", "64", "--lr", "auto")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["high", "0", "-1", "inf", "nan"])
def test_a_rate_is_a_positive_number_or_auto(text: str) -> None:
    assert parse_rate("1e-3") == 1e-3
    with pytest.raises(UsageError, match=f"--lr is {text}; give a positive rate such as 0.007, or auto"):
        parse_rate(text)
