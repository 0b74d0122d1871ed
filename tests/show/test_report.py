from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actograph.errors import UsageError
from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Diagnosis, Finding, Severity
from actograph.show import report as module
from actograph.show.document import script_json
from actograph.show.report import render, write_report
from actograph.testing.synthetic import RELU, SyntheticRun, layer
from tests.unmeasured import unmeasured

from .runs import deep_run, healthy_run, sick_run

MAX_BYTES = 10_000_000
EVIL = '<script>alert("&pwned")</script>'


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


@unmeasured()
def test_a_report_of_fifty_layers_is_small_enough_to_send(tmp_path: Path) -> None:
    path = write_report(deep_run(50), Diagnosis(), tmp_path / "report.html")
    assert path.stat().st_size <= MAX_BYTES


@pytest.mark.parametrize("num_layers", [100, 250])
def test_a_deep_network_leaves_figures_out_rather_than_grow_beyond_the_limit(
    num_layers: int, tmp_path: Path
) -> None:
    view = deep_run(num_layers)
    last = view.layers[-1].name
    finding = Finding("dead-units", Severity.ERROR, last, 0, 9, {"dead": 1.0}, "Dead.", ())
    path = write_report(view, Diagnosis(findings=(finding,)), tmp_path / "report.html")
    page = path.read_text()
    assert path.stat().st_size <= MAX_BYTES
    assert 0 < page.count("Not drawn, to keep this page within 10 MB") < num_layers
    assert 'id="layer-0-strip"' in page
    assert f'id="layer-{num_layers - 1}-strip"' in page  # it has a finding


def test_the_page_says_what_the_numbers_say() -> None:
    view = healthy_run()
    text = without_scripts(render(view, diagnose(view)))
    assert "Validation accuracy reached 0.9835 (step 314)" in text
    assert "315 of 315 steps recorded" in text
    assert "Nothing wrong was found." in text
    for info in view.layers:
        assert text.count(f">{info.name}<") >= 2  # in the table and in its section


def test_findings_come_with_remedies_evidence_and_figure() -> None:
    view = sick_run()
    diagnosis = diagnose(view)
    page = render(view, diagnosis)
    text = without_scripts(page)
    assert diagnosis.findings
    for number, finding in enumerate(diagnosis.findings):
        assert f'id="finding-{number}"' in page
        assert f">{finding.severity.value}</span>" in text
    assert "0.9 → 0.09" in text


def test_a_finding_about_a_layer_that_was_not_recorded_has_no_figure() -> None:
    finding = Finding("odd", Severity.NOTE, "nowhere", 0, 1, {}, "Odd.", ())
    page = render(healthy_run(steps=5), Diagnosis((finding,)))
    assert 'id="finding-0"' not in page
    assert "<code>nowhere</code>" in page


def test_names_and_configuration_cannot_smuggle_markup() -> None:
    run = SyntheticRun([layer(EVIL, EVIL, 4, RELU)], name=EVIL, note=EVIL, nested={"key": [EVIL]})
    for _ in range(30):
        run.step({EVIL: -np.ones((8, 4))}, loss=1.0)
    run.writer.add_scalar(EVIL, 0, 1.0, phase="valid")
    run.writer.add_event(3, "phase", name="train", fit=0, epoch=EVIL)
    view = run.view()
    finding = Finding(EVIL, Severity.ERROR, EVIL, 0, 1, {EVIL: EVIL}, EVIL, ())
    page = render(view, Diagnosis((replace(finding, consequences=(finding,)),)))
    assert "<script>alert" not in page
    assert without_scripts(page).count("&lt;script&gt;alert") > 5


def test_script_json_cannot_end_its_element() -> None:
    assert "<" not in script_json({"text": "</script><!--"})


def test_nothing_of_the_machine_is_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-of-the-environment")
    view = healthy_run(steps=5)
    view = replace(view, info=replace(view.info, host="host-name-of-somebody", pid=424242))
    page = render(view, Diagnosis())
    for private in ("hunter2-of-the-environment", "host-name-of-somebody", "424242", str(Path.home())):
        assert private not in without_scripts(page)


def test_a_run_without_anything_still_has_a_page() -> None:
    page = without_scripts(render(SyntheticRun([], name="empty").view(), Diagnosis()))
    assert "No activations were recorded." in page
    assert "No scalars were recorded." in page


def test_layers_known_but_never_recorded_have_a_page() -> None:
    page = without_scripts(render(SyntheticRun([layer("a", "Linear", 4)]).view(), Diagnosis()))
    assert "No activations were recorded." in page


def test_a_layer_without_finite_values_is_told_not_drawn() -> None:
    run = SyntheticRun([layer("a", "Linear", 4)])
    run.step({"a": np.full((2, 4), np.nan)})
    page = without_scripts(render(run.view(), Diagnosis()))
    assert "no finite values" in page
    assert "NaN or Inf from step 0 on." in page


def test_the_file_is_replaced_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    monkeypatch.setattr(module, "render", lambda view, diagnosis: "new")
    with pytest.raises(UsageError, match="No space left"):
        write_report(healthy_run(steps=1), Diagnosis(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the report"):
        write_report(healthy_run(steps=1), Diagnosis(), tmp_path / "file" / "report.html")
