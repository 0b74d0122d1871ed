from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from actograph.cli.shapes import parse_input_size, shapes
from actograph.errors import UsageError

app = typer.Typer()
app.command()(shapes)

NETWORKS = """
from torch import nn

def small(num_classes, in_channels=1):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

def fixed():
    return nn.Linear(4, 2)

def deep(depth):
    return nn.Linear(4, 2)

def nothing():
    return 3

class Cropped(nn.Conv2d):
    def forward(self, x):
        return super().forward(x)[..., 1:, 1:]

instance = nn.Linear(4, 2)
cropped = Cropped(1, 2, 3)
number = 3
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"networks_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    return name


def run(*arguments: str, columns: int = 120) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns)})
    if result.exception:
        raise result.exception
    return result.stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal_and_shows_every_layer_uncut(columns: int) -> None:
    text = run(columns=columns)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    assert "…" not in text
    for part in ("block1.conv", "28 → 14 ✓", "25:8", "248,864", "30,282", "24.5 KiB", "stay level from"):
        assert part in text
    assert ("AdaptiveAvgPool2d" in text) is (columns == 120)
    assert text.split("\n\n")[1].splitlines()[1].startswith("block1.conv")
    assert len(text.split("\n\n")[1].splitlines()) == 1 + 11 + 1  # header, one line a layer, total


@pytest.mark.parametrize("columns", range(30, 140, 10))
def test_a_narrow_terminal_loses_columns_but_no_characters(columns: int) -> None:
    lines = run(columns=columns).split("\n\n")[1].splitlines()
    assert len(lines) == 1 + 11 + 1  # header, one line a layer, total
    assert max(map(len, lines)) <= columns
    assert lines[1].startswith("block1.conv")
    assert "39,200" in lines[1]


def test_json_holds_the_same_numbers() -> None:
    data = json.loads(run("simple_cnn", "--classes", "3", "--json"))
    assert data["rows"][-1]["output_shape"] == [1, 3]
    assert data["macs"] == sum(row["macs"] for row in data["rows"])
    assert data["sentences"]


def test_columns_that_have_nothing_to_say_are_left_out() -> None:
    assert "Grid" not in run("mlp")
    assert "Grid" in run("simple_cnn")


def test_a_foreign_callable_gets_the_classes_and_channels_it_asks_for(networks: str) -> None:
    data = json.loads(run(f"{networks}:small", "--input-size", "3x8x8", "--classes", "7", "--json"))
    assert data["input_shapes"] == [[1, 3, 8, 8]]
    assert data["rows"][-1]["output_shape"] == [1, 7]


@pytest.mark.parametrize("attribute", ["fixed", "instance"])
def test_a_foreign_module_needs_no_parameters(networks: str, attribute: str) -> None:
    assert "total" in run(f"{networks}:{attribute}", "--input-size", "4")


def test_a_grid_that_is_not_the_promised_one_is_marked(networks: str) -> None:
    assert "8 → 5 ✗ 6" in run(f"{networks}:cropped", "--input-size", "1,8,8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simple_cn"], "did you mean 'simple_cnn'"),
        (["--input-size", "1,28,zero"], "--input-size is '1,28,zero'; give whole numbers"),
        (["--input-size", "784"], "--input-size has 1 axes; simple_cnn takes images"),
        (["--classes", "0"], "num_classes is 0"),
        (["no_such_module:net"], "'no_such_module' of 'no_such_module:net' cannot be imported"),
        ([":net"], "is no package.module:callable"),
        (["NETWORKS:absent"], "has no 'absent'"),
        (["NETWORKS:number"], "is a int; give a callable"),
        (["NETWORKS:nothing"], "returned a int; it has to return"),
        (["NETWORKS:deep"], "needs the argument 'depth'"),
        (["NETWORKS:fixed", "--classes", "3"], "has no parameter num_classes; leave --classes out"),
        (["NETWORKS:instance", "--classes", "3"], "has no parameter num_classes; leave --classes out"),
        (["NETWORKS:fixed", "--input-size", "5"], "cannot be run on an input of shape"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_remedy(
    networks: str, arguments: list[str], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run(*(argument.replace("NETWORKS", networks) for argument in arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_input_size_may_be_written_with_commas_or_x() -> None:
    assert parse_input_size("3, 32,32") == parse_input_size("3x32X32") == (3, 32, 32)


def test_the_folder_of_the_command_does_not_stay_on_the_path(networks: str) -> None:
    before = list(sys.path)
    run(f"{networks}:fixed", "--input-size", "4")
    assert sys.path == before


def test_importing_the_command_does_not_import_torch() -> None:
    code = "import sys, actograph.cli.shapes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_width_activation_and_norm_shape_the_built_in_networks() -> None:
    rows = json.loads(run("simple_cnn", "--width", "2", "--act", "gelu", "--norm", "batch", "--json"))["rows"]
    assert [row["kind"] for row in rows[:3]] == ["Conv2d", "BatchNorm2d", "GELU"]
    assert rows[0]["output_shape"] == [1, 16, 14, 14]
    assert "block3.shortcut.norm" in run("resnet", "--input-size", "3,32,32", columns=140)


def test_width_activation_and_norm_are_refused_for_other_networks(networks: str) -> None:
    for option in (("--width", "2"), ("--act", "relu"), ("--norm", "none")):
        with pytest.raises(UsageError, match="--width, --act and --norm are for actograph's own networks"):
            run(f"{networks}:small", *option)
