from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from actograph.cli.diagnose import diagnose
from actograph.errors import RunNotFoundError
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.testing.synthetic import SyntheticRun, layer

app = typer.Typer()
app.command()(diagnose)


def write_run(directory: Path, losses: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Path:
    writer = RunWriter(directory, RunInfo(directory.name))
    for step, loss in enumerate(losses):
        writer.add_scalar("loss", step, float(loss))
        writer.add_scalar("lr", step, 0.1)
    writer.close("finished")
    return directory


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    return write_run(tmp_path / "healthy", np.geomspace(2.3, 0.1, 100))


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return write_run(tmp_path / "flat", np.full(100, 2.3))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return write_run(tmp_path / "broken", np.r_[np.geomspace(2.3, 1.0, 50), np.full(50, np.nan)])


def test_healthy_run_ends_with_0(healthy: Path) -> None:
    result = CliRunner().invoke(app, [str(healthy), "--json"])
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert (data["schema"], data["run"], data["findings"]) == (1, "healthy", [])


def test_findings_end_with_1_and_are_printed_as_json(broken: Path) -> None:
    result = CliRunner().invoke(app, [str(broken), "--json"])
    assert result.exit_code == 1
    finding = json.loads(result.stdout)["findings"][0]
    assert (finding["rule"], finding["severity"], finding["layer"], finding["first_step"]) == (
        "non-finite-loss",
        "error",
        None,
        50,
    )


def test_warning_ends_with_0_where_only_errors_count(flat: Path) -> None:
    assert CliRunner().invoke(app, [str(flat), "--json"]).exit_code == 1
    assert CliRunner().invoke(app, [str(flat), "--json", "--fail-on", "warning"]).exit_code == 1
    assert CliRunner().invoke(app, [str(flat), "--json", "--fail-on", "error"]).exit_code == 0


def test_unknown_level_is_a_usage_error(flat: Path) -> None:
    assert CliRunner().invoke(app, [str(flat), "--fail-on", "note"]).exit_code == 2


def test_missing_run_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "none")])
    assert isinstance(result.exception, RunNotFoundError)  # main turns it into one line and exit code 2


def test_words_tell_rule_step_and_remedy(broken: Path) -> None:
    result = CliRunner().invoke(app, [str(broken)])
    assert result.exit_code == 1
    assert "non-finite-loss" in result.stdout
    assert "50" in result.stdout


def test_words_on_a_healthy_run_say_so(healthy: Path) -> None:
    result = CliRunner().invoke(app, [str(healthy)])
    assert result.exit_code == 0
    assert "Nothing wrong" in result.stdout


def test_brackets_in_layer_names_are_printed_as_they_are(tmp_path: Path) -> None:
    run = SyntheticRun([layer("block[1]", "Linear", 4)])
    for step in range(40):
        run.step({"block[1]": np.full((8, 4), np.nan if step > 20 else 1.0)}, loss=1.0)
    view = run.view()
    writer = RunWriter(tmp_path / "brackets", view.info)
    writer.add_layer(view.layers[0])
    for bucket in view.buckets:
        writer.add_block(bucket)
        writer.add_scalar("loss", bucket.first_step, 1.0)
    writer.close("finished")
    result = CliRunner().invoke(app, [str(tmp_path / "brackets")])
    assert "block[1]" in result.stdout
