"""The fault benchmark itself: its split, its loop, how harm is told, and a small fixed part of it, run and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from faults.cases import CASES
from faults.controls import CONTROLS
from faults.harm import does_harm, is_worse, steps_to
from faults.loop import Loop
from faults.programs import PROGRAMS
from faults.repair import fix_of
from faults.runner import Job, make_setting, run_job
from faults.said import Said
from faults.score import Judged, ours

from actograph.rules.catalog import DEFAULT_RULES
from actograph.runlog.reader import read_run

SYMPTOMS = ("loss-diverging", "loss-not-decreasing")
HALVES = {"tuning", "test"}
# one of each family, chosen for being short; in both halves, so that what is broken shows
BROKEN = ("F36-mlp", "F37-mlp", "F38-mlp-t0", "F39-mlp")
HEALTHY = ("H00-mlp", "H01-mlp", "H16-mlp", "H00-diabetes")


def judged(id_: str, folder: Path) -> Judged:
    job = Job(0, id_)
    result = run_job(job, folder)
    return Judged(job, result, ours(read_run(job.folder(folder) / "run")))


def test_every_fault_and_control_is_in_both_halves() -> None:
    for cases in (CASES.values(), CONTROLS.values()):
        halves: dict[str, set[str]] = {}
        for one in cases:
            halves.setdefault(one.id.split("-")[0], set()).add(PROGRAMS[one.program].half)
        assert all(found == HALVES for found in halves.values()), halves


def test_every_cause_has_a_case_and_every_case_a_rule() -> None:
    known = {rule.id for rule in DEFAULT_RULES}
    said = {rule for case in CASES.values() for rule in case.rules}
    assert said <= known
    assert known - said <= {*SYMPTOMS, "non-finite-loss"}


def test_all_eighteen_controls_are_there() -> None:
    assert {control.control for control in CONTROLS.values()} == {f"H{number:02d}" for number in range(19)}


def test_the_loop_is_the_same_twice_and_recording_changes_nothing(tmp_path: Path) -> None:
    job = Job(1, "H00-mlp")
    torch.manual_seed(job.seed)
    loop = Loop(make_setting(job.what, job.seed), job.seed)
    assert loop.run().losses == run_job(job, tmp_path)["losses"]


def test_a_job_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    job = Job(0, "H12-mlp")
    kept = job.folder(tmp_path) / "result.json"
    run_job(job, tmp_path)
    first = json.loads(kept.read_text())
    kept.write_text(kept.read_text().replace('"error": ""', '"error": "kept"'))
    assert run_job(job, tmp_path) == {**first, "error": "kept"}


def test_what_is_worse_needs_significance_and_size() -> None:
    twins = [0.9, 0.91, 0.92, 0.9, 0.91]
    assert is_worse([0.5, 0.6, 0.4, 0.5, 0.55], twins)
    assert not is_worse([0.91, 0.9, 0.92, 0.91, 0.9], twins)
    assert not is_worse([0.99, 0.98, 0.99, 0.98, 0.99], twins)  # it is better


def test_a_fault_that_is_only_slower_does_harm() -> None:
    def result(step: int) -> dict[str, object]:
        curve = [(at, 0.1, 0.9 if at >= step else 0.1) for at in (10, 20, 30)]
        return {"metric": 0.9, "test_metric": 0.9, "num_steps": 30, "curve": curve}

    assert steps_to(result(20), 0.855) == 20
    assert does_harm([result(30)] * 3, [result(10)] * 3)
    assert does_harm([result(10)] * 3, [result(10)] * 3) is False
    assert does_harm([result(30)], [result(10)]) is None


@pytest.mark.parametrize("id_", BROKEN)
def test_what_is_broken_is_found_with_its_cause_and_step(id_: str, tmp_path: Path) -> None:
    found = judged(id_, tmp_path)
    assert found.names_cause(1)
    assert found.is_onset_right
    assert found.is_remedy_right
    assert not found.case.layers or found.names_layer(1)


@pytest.mark.parametrize("id_", HEALTHY)
def test_what_is_healthy_is_left_alone(id_: str, tmp_path: Path) -> None:
    assert not judged(id_, tmp_path).said


def test_a_fix_of_first_weights_is_applied_to_every_parameter_that_is_named() -> None:
    scheme = "initialise the weights with this standard deviation (He)"
    remedies = (
        (scheme, "fc1.weight", 0.5),
        (scheme, "fc2.weight", 0.25),
        ("put a normalisation layer behind it", "fc1", "LayerNorm"),
    )
    fix = fix_of([Said("initialization-too-large", "fc1", 0, (), remedies)])
    assert fix is not None
    setting = make_setting(CONTROLS["H00-mlp"], 0)
    head = setting.model.get_parameter("head.weight").clone()
    fix.apply(setting)
    for name, std in (("fc1.weight", 0.5), ("fc2.weight", 0.25)):
        assert setting.model.get_parameter(name).std().item() == pytest.approx(std, rel=0.1)
    assert torch.equal(setting.model.get_parameter("head.weight"), head)


def test_what_is_no_setting_and_no_first_weight_is_no_fix() -> None:
    assert (
        fix_of([Said("dead-units", "act1", 0, (), (("initialise again", "fc1", "He weights, bias 0"),))])
        is None
    )
    assert fix_of([]) is None
    fix = fix_of([Said("overfitting", None, 9, (), (("stop early", "num_steps", 40.0),))])
    assert fix is not None
    setting = make_setting(CONTROLS["H00-mlp"], 0)
    fix.apply(setting)
    assert setting.num_steps == 40
