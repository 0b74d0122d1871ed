from __future__ import annotations

import sys
from types import ModuleType

import pytest

from .conftest import Program


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("fastai.optimizer", "cbs=actograph.integrations.fastai.ActographCallback()"),
        ("keras.src.backend.torch", "callbacks=[actograph.integrations.keras.ActographCallback()]"),
    ],
)
def test_where_nothing_is_seen_of_a_library_s_optimizers_its_adapter_is_named(
    module: str,
    remedy: str,
    program: Program,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    assert program.run("") == 0
    said = capsys.readouterr().err
    assert "no optimizer step was seen: nothing to record" in said
    assert "optimizers are not torch's" in said
    assert remedy in said


def test_other_scripts_that_train_nothing_hear_of_no_library(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run("") == 0
    assert "optimizers are not torch's" not in capsys.readouterr().err
