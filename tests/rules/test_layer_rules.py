"""Details of `dead-units` and `saturated-activations`: onset, which layer is named, which end, what is not judged."""

from __future__ import annotations

import numpy as np
import pytest

from actograph.layout.layer import LayerInfo
from actograph.rules.dead_units import DeadUnits
from actograph.rules.rule import Abstention, Finding, Rule, Severity
from actograph.rules.saturated_activations import SaturatedActivations
from actograph.runlog.view import RunView
from actograph.testing.synthetic import RELU, SIGMOID, TANH, SyntheticRun, layer
from tests.rules.runs import STEPS, Array, dies_at, falling, flat, run_of, spread_of


def answer(rule: Rule, view: RunView) -> Finding:
    answers = list(rule.check(view))
    assert len(answers) == 1, answers
    assert isinstance(answers[0], Finding), answers
    return answers[0]


@pytest.mark.parametrize("at", [0, 1, 40, STEPS - 20])
def test_onset_of_death_is_exact_in_a_short_run(at: int) -> None:
    finding = answer(DeadUnits(), run_of(losses=flat(), values=dies_at(at)))
    assert (finding.layer, finding.first_step, finding.last_step) == ("act2", at, STEPS - 1)


def test_onset_is_that_of_the_half_where_units_die_one_after_the_other() -> None:
    def values(random: np.random.Generator, step: int) -> Array:
        x = random.normal(0, 1, (64, 20))
        x[:, : step // 4] -= 30
        return x

    finding = answer(DeadUnits(), run_of(losses=flat(), values=values))
    assert finding.first_step == 40  # the tenth of 20 units
    assert finding.severity is Severity.ERROR


def test_half_the_layer_is_a_warning_and_all_an_error() -> None:
    half = answer(DeadUnits(), run_of(losses=flat(), values=dies_at(30, 10)))
    assert (half.severity, half.evidence["dead_units"]) == (Severity.WARNING, 10)
    assert answer(DeadUnits(), run_of(losses=flat(), values=dies_at(30, 19))).severity is Severity.ERROR


def test_without_a_loss_dead_units_are_not_excused() -> None:
    view = run_of(losses=np.full(STEPS, np.nan), values=dies_at(30, 12))
    assert answer(DeadUnits(), view).severity is Severity.WARNING


def test_what_came_in_is_told() -> None:
    finding = answer(DeadUnits(), run_of(losses=flat(), values=dies_at(30)))
    assert finding.evidence["layer_in_front"] == "fc"
    assert float(finding.evidence["q95_in_front"]) < -20


def test_remedy_for_units_dead_from_the_start_is_initialisation() -> None:
    started = answer(DeadUnits(), run_of(losses=flat(), values=dies_at(0)))
    died = answer(DeadUnits(), run_of(losses=flat(), values=dies_at(50)))
    assert (started.remedies[0].target, died.remedies[0].target) == ("fc", "lr")


def test_small_batches_need_a_longer_window() -> None:
    """At batch 4 a unit that fires on 1 of 200 samples is silent for 20 steps more often than not."""

    def values(random: np.random.Generator, step: int) -> Array:
        return np.where(random.random((4, 20)) < 0.005, 1.0, -1.0) * np.ones((4, 20))

    view = run_of(losses=flat(0, 600), values=values, batch=4)
    assert (view.steps_silent("act2")[-1] >= 20).mean() >= 0.5  # dead to a rule that counts steps
    assert not list(DeadUnits().check(view))


def test_short_run_abstains_only_where_something_is_silent() -> None:
    silent = list(DeadUnits().check(run_of(losses=flat(0, 10), values=dies_at(0))))
    assert silent == [Abstention("dead-units", "too few recorded steps for act2")]
    assert not list(DeadUnits().check(run_of(losses=flat(0, 10))))


def three_layers(
    flat_of: LayerInfo, deaths: tuple[int, int, int], units: tuple[int, int, int] = (8, 8, 8)
) -> RunView:
    """Return a run of three ReLU layers that die at the given steps, each as far as its number of units says."""
    layers = [layer(f"act{n}", flat_of.kind, 8, flat_of.flat) for n in range(3)]
    run = SyntheticRun(layers)
    random = np.random.default_rng(0)
    for step in range(STEPS):
        values = {}
        for info, death, num in zip(layers, deaths, units, strict=True):
            x = np.abs(random.normal(0, 1, (64, 8)))
            x[:, :num] *= step < death
            values[info.name] = x
        run.step(values, loss=2.3)
    return run.view()


RELU_LAYER = layer("", "ReLU", 8, RELU)


def test_layer_that_died_first_is_named() -> None:
    finding = answer(DeadUnits(), three_layers(RELU_LAYER, (90, 30, 60)))
    assert (finding.layer, finding.first_step) == ("act1", 30)
    assert finding.evidence["num_layers"] == 3
    assert finding.evidence["other_layers"] == "act0 (100% since step 90), act2 (100% since step 60)"


def test_of_layers_that_died_together_the_first_in_forward_order_is_named() -> None:
    assert answer(DeadUnits(), three_layers(RELU_LAYER, (999, 33, 30))).layer == "act1"


def test_layer_that_died_wholly_is_named_before_one_that_died_half() -> None:
    assert answer(DeadUnits(), three_layers(RELU_LAYER, (10, 999, 60), (4, 0, 8))).layer == "act2"


def test_layer_that_is_not_called_any_more_is_not_dead() -> None:
    layers = [layer("act", "ReLU", 8, RELU), layer("late", "ReLU", 8, RELU)]
    run = SyntheticRun(layers)
    random = np.random.default_rng(0)
    nothing = np.zeros((0, 8))
    for step in range(STEPS):
        late = np.abs(random.normal(0, 1, (64, 8))) if step < 60 else nothing
        run.step({"act": np.abs(random.normal(0, 1, (64, 8))), "late": late}, loss=2.3)
    assert not list(DeadUnits().check(run.view()))


def test_onset_of_saturation_is_exact_in_a_short_run() -> None:
    losses = falling(2)
    losses[60:] = 2.3
    view = run_of("Tanh", losses=losses, values=spread_of(lambda step: 40.0 if step >= 60 else 1.0))
    finding = answer(SaturatedActivations(), view)
    assert (finding.layer, finding.severity) == ("act2", Severity.WARNING)
    assert abs(finding.first_step - 60) <= 2
    assert finding.remedies[0].target == "lr"


def test_saturated_from_the_start_names_what_is_too_large() -> None:
    view = run_of("Tanh", losses=flat(), values=spread_of(lambda step: 20.0))
    finding = answer(SaturatedActivations(), view)
    assert finding.first_step == 0
    assert (finding.remedies[0].target, finding.remedies[0].new) == ("fc", 1.0)
    assert float(finding.remedies[0].old or 0.0) == pytest.approx(20, rel=0.1)


def test_saturation_without_harm_is_a_note() -> None:
    finding = answer(SaturatedActivations(), run_of("Tanh", values=spread_of(lambda step: 30.0)))
    assert finding.severity is Severity.NOTE


def test_saturation_in_a_run_without_a_loss_is_a_note() -> None:
    view = run_of("Tanh", losses=np.full(STEPS, np.nan), values=spread_of(lambda step: 30.0))
    finding = answer(SaturatedActivations(), view)
    assert finding.severity is Severity.NOTE
    assert "not known" in finding.message


@pytest.mark.parametrize(
    ("act", "shift", "words"),
    [
        ("Tanh", 50, "high end"),
        ("Tanh", -50, "low end"),
        ("Sigmoid", 50, "high end"),
        ("Sigmoid", 0, "both ends"),
    ],
)
def test_end_of_the_curve_is_told(act: str, shift: float, words: str) -> None:
    view = run_of(act, losses=flat(), values=lambda random, step: random.normal(shift, 20, (64, 20)))
    assert words in answer(SaturatedActivations(), view).message


@pytest.mark.parametrize("region", [TANH, SIGMOID])
def test_output_layer_is_not_judged_whatever_follows_it(region: object) -> None:
    flat_region = TANH if region is TANH else SIGMOID
    head = LayerInfo("fc", "Linear", (64, 8), "float32", 1, 8, None, num_parameters=72)
    layers = [head, layer("out", "Tanh", 8, flat_region), layer("flatten", "Flatten", 8)]
    run = SyntheticRun(layers)
    ones = np.ones((64, 8))
    for _ in range(60):
        run.step({"fc": ones, "out": ones, "flatten": ones}, loss=2.3)
    assert not list(SaturatedActivations().check(run.view()))


def test_short_run_of_saturated_layers_abstains() -> None:
    view = run_of("Tanh", losses=flat(0, 10), values=spread_of(lambda step: 20.0))
    reason = "too few recorded steps for act2"
    assert list(SaturatedActivations().check(view)) == [Abstention("saturated-activations", reason)]
