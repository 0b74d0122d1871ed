"""Where a NaN comes from: the kinds that `non-finite-loss` tells apart."""

from __future__ import annotations

import numpy as np
import pytest

from actograph.layout.layer import LayerInfo
from actograph.rules.non_finite_loss import NonFiniteLoss
from actograph.rules.rule import Finding, Severity
from actograph.runlog.view import RunView
from actograph.testing.synthetic import SyntheticRun, layer
from tests.rules.runs import Array, falling, losses_only

LAYERS = [layer(name, "Linear", 4) for name in ("a", "b", "c")]
EVENT, STEPS = 50, 80


def finding_in(view: RunView) -> Finding:
    answers = list(NonFiniteLoss().check(view))
    assert len(answers) == 1
    assert isinstance(answers[0], Finding)
    return answers[0]


def run_with(
    bad: dict[str, Array],
    losses: Array | None = None,
    layers: list[LayerInfo] = LAYERS,
    every: int = 1,
    scales: Array | None = None,
) -> RunView:
    """Return a run whose layers take the values ``bad`` from step `EVENT` on, recorded every few steps."""
    random = np.random.default_rng(0)
    run = SyntheticRun(layers)
    if losses is None:
        losses = falling(0, STEPS)
        losses[EVENT:] = np.nan
    scales = np.ones(STEPS) if scales is None else scales
    for step in range(STEPS):
        values = {info.name: scales[step] * random.normal(0, 1, (64, 4)) for info in layers}
        if step >= EVENT:
            values |= bad
        run.step(values if step % every == 0 else {}, loss=float(losses[step]), lr=0.1)
    return run.view()


NAN = np.full((64, 4), np.nan)
PARTLY = np.where(np.arange(64)[:, None] == 7, np.nan, 1.0) * np.ones((64, 4))


def test_middle_layer_that_is_first_is_named() -> None:
    finding = finding_in(run_with({"b": NAN, "c": NAN}))
    assert (finding.layer, finding.first_step, finding.last_step) == ("b", EVENT, STEPS - 1)
    assert finding.evidence["kind"] == "layer"
    assert "a in front of it was finite" in finding.message
    assert finding.severity is Severity.ERROR


def test_first_layer_in_part_is_the_input() -> None:
    finding = finding_in(run_with({"a": PARTLY, "b": NAN, "c": NAN}))
    assert (finding.layer, finding.evidence["kind"]) == ("a", "input")
    assert finding.evidence["non_finite_share"] == pytest.approx(1 / 64)


def test_first_layer_in_whole_is_weights_or_input() -> None:
    finding = finding_in(run_with({"a": NAN, "b": NAN, "c": NAN}))
    assert (finding.layer, finding.evidence["kind"]) == ("a", "weights or input")


def test_all_layers_finite_is_the_loss_function() -> None:
    finding = finding_in(run_with({}))
    assert (finding.layer, finding.first_step, finding.evidence["kind"]) == (None, EVENT, "loss function")
    assert finding.remedies[0].target == "loss function"


def test_loss_that_is_nan_one_step_before_the_layers_is_the_loss_function() -> None:
    losses = falling(0, STEPS)
    losses[EVENT - 1 :] = np.nan
    finding = finding_in(run_with({"a": NAN, "b": NAN, "c": NAN}, losses))
    assert (finding.layer, finding.first_step, finding.evidence["kind"]) == (None, EVENT - 1, "loss function")


def test_growth_right_before_is_an_explosion() -> None:
    scales = 3.0 ** np.clip(np.arange(STEPS) - EVENT + 6.0, 0, 6)
    losses = falling(0, STEPS) * scales
    losses[EVENT:] = np.nan
    finding = finding_in(run_with({"b": NAN, "c": NAN}, losses, scales=scales))
    assert (finding.layer, finding.evidence["kind"]) == ("b", "explosion")
    assert float(finding.evidence["growth"]) > 10
    assert finding.remedies[0].old == 0.1
    assert finding.remedies[0].new == pytest.approx(0.01)


def test_growth_while_the_loss_falls_is_learning_not_explosion() -> None:
    scales = np.geomspace(0.01, 10, STEPS) ** 3
    finding = finding_in(run_with({"a": PARTLY, "b": NAN, "c": NAN}, scales=scales))
    assert finding.evidence["kind"] == "input"


def test_step_that_was_not_recorded_is_not_called_finite() -> None:
    losses = falling(0, STEPS)
    losses[EVENT + 1 :] = np.nan
    finding = finding_in(run_with({"a": NAN, "b": NAN, "c": NAN}, losses, every=4))
    assert (finding.layer, finding.first_step, finding.evidence["kind"]) == (None, EVENT + 1, "unknown")


def test_infinities_of_a_mask_are_a_note() -> None:
    finding = finding_in(run_with({"b": np.where(PARTLY > 0, 1.0, -np.inf)}, falling(0, STEPS)))
    assert (finding.severity, finding.layer, finding.first_step) == (Severity.NOTE, "b", EVENT)


def test_nan_that_the_loss_does_not_see_is_a_warning() -> None:
    finding = finding_in(run_with({"b": PARTLY}, falling(0, STEPS)))
    assert (finding.severity, finding.layer) == (Severity.WARNING, "b")


def test_mask_is_not_taken_for_the_cause_of_a_later_nan() -> None:
    mask = np.where(PARTLY > 0, 1.0, -np.inf)
    losses = falling(0, STEPS)
    losses[EVENT + 25 :] = np.nan
    finding = finding_in(run_with({"b": mask}, losses))
    assert (finding.layer, finding.first_step) == (None, EVENT + 25)


def test_run_that_recovers_is_a_warning() -> None:
    losses = falling(0, STEPS)
    losses[EVENT] = np.inf
    finding = finding_in(losses_only(losses))
    assert (finding.severity, finding.first_step, finding.last_step) == (Severity.WARNING, EVENT, EVENT)


def test_nan_at_the_first_step_is_told() -> None:
    finding = finding_in(losses_only(np.full(30, np.nan)))
    assert (finding.severity, finding.first_step, finding.last_step) == (Severity.ERROR, 0, 29)


def test_validation_loss_alone_is_told() -> None:
    run = SyntheticRun([])
    for loss in falling():
        run.step({}, loss=float(loss))
    run.writer.add_scalar("loss", 59, 0.5, phase="valid")
    run.writer.add_scalar("loss", 119, float("nan"), phase="valid")
    finding = finding_in(run.view())
    assert (finding.first_step, finding.evidence["phase"]) == (119, "valid")
