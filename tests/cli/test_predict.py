from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from actograph.cli.main import main
from actograph.data.normalization import Normalization
from actograph.inference.export import Export, write_export
from actograph.models.registry import build_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder with a model, beside two images; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    torch.manual_seed(0)
    model = build_model("mlp", in_features=64, num_classes=3)
    export = Export(model, ("cat", "dog", "[red]"), (1, 8, 8), Normalization((0.5,), (0.2,)))
    write_export(export, tmp_path / "run" / "model")
    for name, value in (("one.png", 0), ("two.jpg", 200)):
        Image.new("RGB", (20, 10), (value, 0, value)).save(name)
    return tmp_path


def actograph(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["actograph", "predict", *args])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_it_prints_a_class_for_each_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert actograph(monkeypatch, "run", "one.png", "two.jpg") == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["image", "class", "probability", "or"]
    assert first.startswith("one.png")
    assert second.startswith("two.jpg")
    assert "%" in first
    assert all(name in first for name in ("cat", "dog", "[red]"))


def test_it_prints_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert actograph(monkeypatch, "run/model.safetensors", "one.png", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["image"] == "one.png"
    assert entry["probabilities"][entry["class"]] == entry["probability"]
    assert sum(entry["probabilities"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run", "none.png"), "no image none.png"),
        (("nowhere", "one.png"), "no run 'nowhere'"),
        ((".", "one.png"), "no exported model"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    words: str,
) -> None:
    assert actograph(monkeypatch, *args) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
