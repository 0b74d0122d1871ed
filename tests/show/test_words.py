from __future__ import annotations

import numpy as np
import pytest

from actograph.rules.rule import Finding, Remedy, Severity
from actograph.runlog.schema import Cost
from actograph.show import words
from actograph.testing.synthetic import SyntheticRun

from .runs import NAN_STEPS, STEPS, healthy_run, sick_run


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12346"), (1e9, "1e+09"), (1e-9, "1e-09"), (-0.5, "-0.5"), (np.inf, "inf")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert words.number(value) == text


def test_what_is_not_defined_is_a_dash() -> None:
    assert words.number(None) == words.percent(None) == words.percent(np.nan) == "-"
    assert words.loss(np.nan) == "NaN"


def test_the_summary_says_what_how_far_how_well_and_at_what_cost() -> None:
    text = words.summary(healthy_run())
    assert text.startswith("simple_cnn on mnist (4,000 + 1,000): 315 training steps over 5 epochs, finished.")
    assert "Validation accuracy reached 0.9835 (step 314)" in text
    assert text.endswith("Recording every one of 315 steps took 2.8 % of the time (allowed: 3 %).")


def test_the_summary_says_since_when_the_loss_was_not_finite() -> None:
    assert f"The training loss was not finite from step {STEPS - NAN_STEPS}." in words.summary(sick_run())


def test_the_summary_of_nothing_is_short() -> None:
    assert words.summary(SyntheticRun([], name="empty").view()) == "empty: 0 training steps, finished."


def test_thinned_recording_is_told() -> None:
    text = words.recording_cost(Cost(1.0, 100.0, 1000, 250, None))
    assert text == "Recording 250 of 1,000 steps took 1.0 % of the time (no limit set)."


@pytest.mark.parametrize(
    ("remedy", "text"),
    [
        (Remedy("clip the gradient norm", "gradients", "not clipped", 1.0), "(gradients: not clipped → 1)"),
        (Remedy("warm up", "lr schedule"), "(lr schedule)"),
        (Remedy("change lr", "lr"), "change lr"),
        (Remedy("guard", "head", None, 1e-8), "(head: 1e-08)"),
    ],
)
def test_a_remedy_names_what_from_and_to(remedy: Remedy, text: str) -> None:
    assert words.remedy(remedy).endswith(text)


def test_a_consequence_is_one_line() -> None:
    finding = Finding("dead-units", Severity.ERROR, "a", 3, 3, {}, "Dead.", ())
    assert words.consequence(finding) == "dead-units in a, at step 3: Dead."


def test_evidence_has_readable_names_and_shares_in_percent() -> None:
    known: dict[str, float | str] = {
        "dead_share": 0.25,
        "num_units": 1024.0,
        "kind": "explosion",
        "loss": 0.123456,
    }
    expected = [("dead share", "25 %"), ("num units", "1,024"), ("kind", "explosion"), ("loss", "0.1235")]
    assert words.evidence(known) == expected
