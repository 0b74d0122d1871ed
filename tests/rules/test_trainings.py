"""The rules on real small trainings: sick ones are told with layer and onset, healthy ones are left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Finding, Severity
from tests.rules import trainings
from tests.rules.trainings import Training, bias_drop, one_cycle, scale_weights

BASE = Training()


def sgd(parameters: Callable[[], Tensor], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)  # type: ignore[arg-type]


def only_finding(training: Training) -> Finding:
    findings = diagnose(training.run()).at_least(Severity.WARNING)
    assert len(findings) == 1, [finding.message for finding in findings]
    return findings[0]


HEALTHY = {
    "adam": BASE,
    "sgd with momentum": BASE.but(optimizer=sgd, lr=0.05),
    "1cycle": BASE.but(lr=1e-2, schedule=one_cycle),
    "cosine restarts": BASE.but(lr=1e-2, schedule=trainings.restarts),
    "warm-up": BASE.but(lr=1e-2, schedule=trainings.warm_up),
    "converged plateau": BASE.but(lr=1e-2, steps=400, spread=0.5),
    "batch of 4": BASE.but(batch=4, spread=2.0, steps=400),
    "hard task": BASE.but(spread=4.0, steps=300),
    "negative loss": BASE.but(task="gaussian", lr=1e-3, steps=250),
    "sure sigmoid output": BASE.but(task="binary", lr=1e-2, steps=250, spread=0.3),
    "leaky relu": BASE.but(act=nn.LeakyReLU),
    "tanh": BASE.but(act=nn.Tanh, lr=3e-3),
    "sigmoid": BASE.but(act=nn.Sigmoid, lr=1e-2),
    "few steps": BASE.but(steps=25),
    "slow": BASE.but(lr=2e-4, steps=250),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_trainings_raise_no_alarm(name: str) -> None:
    diagnosis = diagnose(HEALTHY[name].run())
    assert not diagnosis.at_least(Severity.WARNING), diagnosis.findings


def test_relu_layers_with_mostly_zeros_are_healthy() -> None:
    view = BASE.but(widths=(256, 256, 256), lr=1e-2, steps=120).run()
    assert view.column("zeros")[-1].max() > 0.7  # the run is what its name says
    assert not diagnose(view).at_least(Severity.WARNING)


@pytest.mark.parametrize("at", [0, 100, 150])
@pytest.mark.parametrize("layer", ["fc1", "fc2"])
def test_units_that_die_by_their_bias_are_named_with_layer_and_step(layer: str, at: int) -> None:
    finding = only_finding(BASE.but(before_step=bias_drop(layer, at, value=-20.0)))
    assert (finding.rule, finding.severity, finding.layer) == (
        "dead-units",
        Severity.ERROR,
        layer.replace("fc", "act"),
    )
    assert finding.first_step == at
    assert {below.rule for below in finding.consequences} <= {"loss-diverging", "loss-not-decreasing"}


def test_onset_in_a_long_run_is_right_within_a_bucket() -> None:
    finding = only_finding(BASE.but(steps=700, batch=16, before_step=bias_drop("fc2", 333, value=-20.0)))
    assert finding.layer == "act2"
    assert abs(finding.first_step - 333) <= 5


def test_learning_rate_100_times_too_high_is_an_explosion() -> None:
    finding = only_finding(BASE.but(act=nn.LeakyReLU, optimizer=sgd, lr=5.0))
    assert (finding.rule, finding.severity) == ("non-finite-loss", Severity.ERROR)
    assert finding.evidence["kind"] == "explosion"
    assert finding.first_step < 20
    assert (finding.remedies[0].target, finding.remedies[0].old, finding.remedies[0].new) == ("lr", 5.0, 0.5)


def test_learning_rate_that_jumps_goes_back_to_what_it_was() -> None:
    schedule = lambda progress: 1000.0 if progress >= 0.5 else 1.0  # noqa: E731
    finding = only_finding(BASE.but(act=nn.LeakyReLU, optimizer=sgd, lr=0.05, schedule=schedule))
    assert finding.evidence["kind"] == "explosion"
    assert 100 < finding.first_step < 115
    assert finding.remedies[0].new == pytest.approx(0.05)


def test_explosion_that_kills_units_is_one_finding() -> None:
    finding = only_finding(BASE.but(optimizer=sgd, lr=5.0))
    assert (finding.rule, finding.severity) == ("dead-units", Severity.ERROR)


def test_nan_in_one_sample_is_bad_input() -> None:
    def spoil(x: Tensor, step: int) -> Tensor:
        return x.index_fill(0, torch.tensor([3]), torch.nan) if step == 120 else x

    finding = only_finding(BASE.but(change_input=spoil))
    assert (finding.rule, finding.layer, finding.first_step) == ("non-finite-loss", "fc1", 120)
    assert finding.evidence["kind"] == "input"
    assert finding.evidence["non_finite_share"] == pytest.approx(1 / 64)
    assert finding.remedies[0].target == "training data"


@pytest.mark.parametrize(
    ("name", "at"), [("converged plateau", 60), ("converged plateau", 240), ("1cycle", 150)]
)
def test_trembling_of_a_converged_loss_is_not_taken_for_an_explosion(name: str, at: int) -> None:
    def spoil(x: Tensor, step: int) -> Tensor:
        return x.index_fill(0, torch.tensor([1]), torch.nan) if step == at else x

    finding = only_finding(HEALTHY[name].but(change_input=spoil, seed=40))
    assert (finding.layer, finding.first_step, finding.evidence["kind"]) == ("fc1", at, "input")


def test_nan_in_one_sample_is_bad_input_also_where_buckets_are_wide() -> None:
    def spoil(x: Tensor, step: int) -> Tensor:
        return x.index_fill(0, torch.tensor([3]), torch.nan) if step == 201 else x

    finding = only_finding(BASE.but(change_input=spoil, steps=700, batch=16))
    assert (finding.layer, finding.first_step, finding.evidence["kind"]) == ("fc1", 201, "input")


def test_tanh_with_weights_20_times_too_large_is_saturated_at_its_first_layer() -> None:
    finding = only_finding(BASE.but(act=nn.Tanh, widths=(64,) * 4, prepare=scale_weights(20.0)))
    assert (finding.rule, finding.layer, finding.first_step) == ("saturated-activations", "act1", 0)
    assert "act4" in str(finding.evidence["other_layers"])


def test_learning_rate_of_next_to_nothing_does_not_decrease_the_loss() -> None:
    finding = only_finding(BASE.but(lr=1e-8))
    assert (finding.rule, finding.layer, finding.first_step) == ("loss-not-decreasing", None, 0)
    assert finding.remedies[0].action == "raise the learning rate"


def test_shuffled_labels_do_not_decrease_the_loss() -> None:
    finding = only_finding(BASE.but(task="shuffled"))
    assert finding.rule == "loss-not-decreasing"
    assert finding.remedies[0].target == "training data"
