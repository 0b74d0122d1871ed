from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from actograph.errors import RunNotFoundError
from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Abstention, Diagnosis, Finding, Remedy, Severity
from actograph.runlog.view import RunView
from actograph.show import terminal
from actograph.testing.synthetic import SyntheticRun, layer

from .runs import healthy_run, sick_run

GOLDEN = Path(__file__).parent / "golden"
FINDING = Finding(
    rule="dead-units",
    severity=Severity.ERROR,
    layer="stem.relu[4+]",
    first_step=210,
    last_step=1314,
    evidence={"dead_share": 0.6875, "num_units": 16.0},
    message="11 of the 16 units of stem.relu have been 0 for every sample since step 210.",
    remedies=(Remedy("lower the learning rate", "lr", 0.9, 0.09), Remedy("use LeakyReLU", "stem.relu")),
    consequences=(
        Finding("loss-not-decreasing", Severity.WARNING, None, 220, 1314, {}, "The loss stays.", ()),
    ),
)


def printed(what: RenderableType, width: int = 80, *, colour: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=colour)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def test_the_summary_of_a_run_looks_as_it_should() -> None:
    view = healthy_run()
    text = printed(terminal.run_summary(view, Diagnosis()))
    golden = GOLDEN / "healthy_run.txt"
    assert text == golden.read_text(encoding="utf-8"), f"if the new look is meant, write it to {golden}"
    assert sum(line.startswith("layers.") for line in text.splitlines()) == len(
        view.layers
    )  # one line a layer


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    view = sick_run()
    text = printed(terminal.run_summary(view, diagnose(view)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "NaN/Inf" in text
    assert "std over time" in text


def test_findings_are_told_in_words() -> None:
    diagnosis = Diagnosis((FINDING,), (Abstention("loss-diverging", "too few steps"),))
    assert printed(terminal.findings(diagnosis)).splitlines() == [
        "error dead-units in stem.relu[4+], steps 210 to 1,314",
        "    11 of the 16 units of stem.relu have been 0 for every sample since step 210.",
        "    dead share 69 %, num units 16",
        "  • lower the learning rate (lr: 0.9 → 0.09)",
        "  • use LeakyReLU (stem.relu)",
        "  ↳ explains loss-not-decreasing, steps 220 to 1,314: The loss stays.",
        "",
        "Not judged: loss-diverging (too few steps)",
    ]


def test_colours_are_for_terminals_only() -> None:
    diagnosis = Diagnosis((FINDING,))
    assert "\x1b[" not in printed(terminal.findings(diagnosis))
    assert "\x1b[1;31merror" in printed(terminal.findings(diagnosis), colour=True)


def test_a_healthy_run_is_said_to_be_so() -> None:
    assert printed(terminal.findings(Diagnosis())) == "Nothing wrong was found.\n"


def test_columns_that_would_be_empty_are_left_out() -> None:
    text = printed(terminal.layer_table(healthy_run(steps=30)))
    assert "flat" in text
    assert "dead" not in text
    assert "NaN/Inf" not in text


def test_the_list_shows_every_run_even_an_unreadable_one() -> None:
    runs: dict[str, RunView | Exception] = {
        "good": healthy_run(steps=70),
        "bad": sick_run(),
        "broken[0]": RunNotFoundError("no"),
    }
    lines = printed(terminal.run_list(runs)).splitlines()
    assert lines[0].split() == ["run", "created", "status", "steps", "loss", "best"]
    assert "accuracy" in lines[1]
    assert lines[2].split() == ["bad", "2026-01-01", "00:00", "failed", "315", "NaN", "-"]
    assert lines[3].split() == ["broken[0]", "unreadable"]
    assert "No runs" in printed(terminal.run_list({}))


def test_layer_names_are_printed_as_they_are() -> None:
    run = SyntheticRun([layer("head[4+]", "[red]Linear", 2)])
    assert "No activations were recorded." in printed(terminal.layer_table(run.view()))
    run = SyntheticRun([layer("head[4+]", "[red]Linear", 2)])
    run.step({"head[4+]": np.array([[1.0, 2.0], [3.0, 4.0]])})
    text = printed(terminal.layer_table(run.view()))
    assert "head[4+]" in text
    assert "[red]Linear" in text


def test_rules_that_abstain_for_one_reason_share_a_line() -> None:
    diagnosis = Diagnosis((), tuple(Abstention(rule, reason) for rule, reason in ("ax", "bx", "cy")))
    said = io.StringIO()
    Console(file=said, width=80).print(terminal.findings(diagnosis))
    assert "Not judged: a, b (x)\nNot judged: c (y)" in said.getvalue()
