"""Figures of findings: what is drawn, and what stands in where the run lacks it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from actograph.rules.rule import Finding, Severity
from actograph.runlog.view import RunView
from actograph.show import theme
from actograph.show.evidence import FIGURE_OF_RULE, finding_figure
from actograph.testing.synthetic import SyntheticRun, layer

STEPS = 20


def finding(rule: str, name: str | None = None) -> Finding:
    return Finding(rule, Severity.WARNING, name, 3, STEPS - 1, {"x": 1.0}, "So.", ())


@pytest.fixture(scope="module")
def run() -> RunView:
    made, random = SyntheticRun([layer("a", "Linear", 8), layer("b", "Linear", 8)]), np.random.default_rng(0)
    for step in range(STEPS):
        values = {"a": random.normal(size=(16, 8)), "b": 100.0 * random.normal(size=(16, 8))}
        made.step(values, loss=3.0 - 0.1 * step, lr=0.1 * (step + 1))
        made.writer.add_scalar("mean", step, 5.0, "input")
        made.writer.add_scalar("min", step, 0.0, "input")
        made.writer.add_scalar("max", step, 9.0, "input")
    return made.view()


def test_a_rate_is_drawn_below_the_loss(run: RunView) -> None:
    figure = finding_figure(run, finding("learning-rate-too-high"))
    np.testing.assert_allclose(figure.data[-1].y, 0.1 * np.arange(1, STEPS + 1))
    assert figure.layout.yaxis.title.text == "loss"
    assert figure.layout.yaxis2.title.text == "learning rate"
    [region] = figure.layout.shapes
    assert (region.x0, region.x1) == (2.5, STEPS - 0.5)


def test_depth_is_drawn_layer_by_layer_at_the_first_step(run: RunView) -> None:
    figure = finding_figure(run, finding("initialization-too-large", "b"))
    [bars] = figure.data
    np.testing.assert_allclose(bars.y, run.column("std")[3])
    assert bars.marker.color == (theme.BLUE, theme.RED)
    assert figure.layout.yaxis.type == "log"
    assert not figure.layout.shapes  # the axis has layers, not steps


def test_inputs_are_drawn_with_their_extremes(run: RunView) -> None:
    figure = finding_figure(run, finding("inputs-not-normalized"))
    assert {curve.name: curve.y[0] for curve in figure.data} == {"mean": 5.0, "min": 0.0, "max": 9.0}


@pytest.mark.parametrize("start", list(FIGURE_OF_RULE))
def test_a_run_that_lacks_what_is_drawn_shows_its_loss(start: str) -> None:
    made = SyntheticRun([])
    for step in range(STEPS):
        made.step({}, loss=1.0 / (step + 1))
    figure = finding_figure(made.view(), finding(start))
    np.testing.assert_allclose(figure.data[0].y, 1.0 / np.arange(1, STEPS + 1))


def test_a_layer_that_has_no_special_figure_keeps_its_own(run: RunView) -> None:
    figure = finding_figure(replace(run), finding("something-else", "a"))
    np.testing.assert_allclose(figure.data[0].y, run.column("std")[:, 0])
