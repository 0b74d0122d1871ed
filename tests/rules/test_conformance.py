"""Every default rule: sick runs it catches, healthy runs and near misses it leaves alone, and the manners of a rule."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from actograph.rules.catalog import DEFAULT_RULES
from actograph.rules.dead_units import DeadUnits
from actograph.rules.diagnose import diagnose
from actograph.rules.loss_diverging import LossDiverging
from actograph.rules.loss_not_decreasing import LossNotDecreasing
from actograph.rules.non_finite_loss import NonFiniteLoss
from actograph.rules.rule import Rule, Severity
from actograph.rules.saturated_activations import SaturatedActivations
from actograph.runlog.view import RunView
from actograph.testing.rules import check_rule
from actograph.testing.synthetic import SyntheticRun
from tests.rules import runs
from tests.rules.runs import dies_at, falling, flat, losses_only, run_of, sparse, spread_of


@functools.cache  # by every rule's test
def healthy() -> list[RunView]:
    return [
        run_of(name="relu"),
        run_of(values=sparse(0.1), name="90 % zeros"),
        run_of("Tanh", name="tanh"),
        run_of("Sigmoid", head_act="Sigmoid", name="sure sigmoid output"),
        run_of("LeakyReLU", values=dies_at(30), name="leaky"),
        *(losses_only(losses(1), name=name) for name, losses in runs.HEALTHY_LOSSES.items()),
    ]


def from_nan(losses: runs.Array, step: int) -> runs.Array:
    losses = losses.copy()
    losses[step:] = np.nan
    return losses


def nan_values(step0: int) -> runs.Values:
    def values(random: np.random.Generator, step: int) -> runs.Array:
        x = random.normal(0, 1, (runs.BATCH, runs.UNITS))
        return np.where(step >= step0, np.nan, x)

    return values


def explosion(step0: int = 60, speed: float = 3.0) -> RunView:
    """Everything grows by a factor a step for ten steps, then is NaN."""
    steps = np.arange(runs.STEPS)
    grown = speed ** np.clip(steps - step0 + 10, 0, 10).astype(np.float64)
    return run_of(
        losses=from_nan(falling() * grown, step0),
        values=lambda random, step: (
            random.normal(0, grown[step], (runs.BATCH, runs.UNITS)) * (np.nan if step >= step0 else 1.0)
        ),
        name="explosion",
    )


def jump(step0: int = 80, level: float = 2.3) -> runs.Array:
    losses = falling(3)
    losses[step0:] = flat(3)[step0:] * level / 2.3
    return losses


def with_accuracies(losses: runs.Array, accuracies: list[float]) -> RunView:
    """Return a run whose loss says little, as that of a triplet or adversarial loss, but whose accuracy rises."""
    run = SyntheticRun([], name="accuracy rises")
    for loss in losses:
        run.step({}, loss=float(loss))
    for epoch, accuracy in enumerate(accuracies, 1):
        run.writer.add_scalar("accuracy", epoch * len(losses) // len(accuracies) - 1, accuracy, phase="valid")
    return run.view()


def test_non_finite_loss_conforms() -> None:
    check_rule(
        NonFiniteLoss(),
        sick=[
            explosion(),
            run_of(losses=from_nan(falling(), 50), values=nan_values(50), name="NaN in the middle"),
            run_of(losses=from_nan(falling(), 50), name="NaN made by the loss"),
            run_of(values=nan_values(50), name="NaN that the loss does not see"),
            losses_only(from_nan(falling(), 50), name="loss only"),
        ],
        healthy=healthy(),
        near_miss=[
            run_of(losses=falling() * 1e30, name="huge but finite"),
            run_of(losses=runs.bump(height=20.0), name="large bump"),
        ],
    )


def test_dead_units_conforms() -> None:
    check_rule(
        DeadUnits(),
        sick=[
            run_of(losses=jump(40), values=dies_at(40), name="all die"),
            run_of(losses=jump(40), values=dies_at(40, 12), name="60 % die"),
            run_of(losses=flat(), values=dies_at(0), name="dead from the start"),
        ],
        healthy=healthy(),
        near_miss=[
            run_of(losses=jump(40), values=dies_at(40, 9), name="45 % die"),
            run_of(losses=jump(40), values=dies_at(105), name="silent for 15 steps"),
            run_of(values=dies_at(40, 12), name="60 % die, the network learns well"),
            run_of("GELU", losses=jump(40), values=dies_at(40), name="gelu"),
            run_of("LeakyReLU", losses=jump(40), values=dies_at(40), name="leaky"),
            run_of(
                losses=flat(),
                values=lambda random, step: (
                    random.normal(0, 1, (runs.BATCH, runs.UNITS)) - 9 * (20 < step < 80)
                ),
                name="silent for long, then back",
            ),
        ],
    )


def test_saturated_activations_conforms() -> None:
    check_rule(
        SaturatedActivations(),
        sick=[
            run_of("Tanh", losses=flat(), values=spread_of(lambda step: 20.0), name="tanh, weights x20"),
            run_of(
                "Sigmoid", losses=flat(), values=spread_of(lambda step: 20.0), name="sigmoid, weights x20"
            ),
            run_of(
                "Tanh",
                losses=jump(60),
                values=spread_of(lambda step: 40.0 if step >= 60 else 1.0),
                name="at 60",
            ),
        ],
        healthy=healthy(),
        near_miss=[
            run_of("Tanh", values=spread_of(lambda step: 20.0), name="saturated, learns well"),
            run_of(
                "Tanh", losses=flat(), values=spread_of(lambda step: 3.0), name="gates flat half the time"
            ),
            run_of("ReLU", losses=flat(), values=spread_of(lambda step: 20.0), name="relu, wide"),
            run_of(
                "Tanh", losses=flat(), values=spread_of(lambda step: 40.0 if step < 40 else 1.0), name="over"
            ),
            run_of("ReLU", losses=flat(), head_act="Sigmoid", name="only the output is flat"),
        ],
    )


def test_loss_diverging_conforms() -> None:
    check_rule(
        LossDiverging(),
        sick=[
            losses_only(jump(80), name="jumps back to the start"),
            losses_only(1.5 * np.exp(np.arange(100) / 20), name="sign flipped"),
            losses_only(-3 + np.abs(np.arange(200) - 100) * 0.05, name="negative, comes back up"),
        ],
        healthy=healthy(),
        near_miss=[
            losses_only(runs.bump(height=3.0), name="a high bump that is over"),
            losses_only(jump(80, 0.6), name="gives back a fifth"),
            losses_only(jump(114, 1.6), name="high in the last six steps only"),
            losses_only(np.where(np.arange(200) == 150, 50.0, falling(0, 200)), name="one spike"),
        ],
    )


def test_loss_not_decreasing_conforms() -> None:
    check_rule(
        LossNotDecreasing(),
        sick=[
            losses_only(flat(), name="flat"),
            losses_only(np.full(100, 0.693), name="exactly constant"),
            losses_only(flat(2, 400, spread=0.1), name="flat, noisy"),
            run_of(losses=flat(), name="flat, with layers"),
        ],
        healthy=healthy(),
        near_miss=[
            losses_only(flat() * np.linspace(1, 0.93, runs.STEPS), name="slow but sure"),
            losses_only(jump(60), name="fell and came back"),
            losses_only(flat(), lr=np.linspace(0, 1, runs.STEPS), name="still warming up"),
            losses_only(flat(0, 40), name="too short"),
            with_accuracies(flat(), [0.1, 0.3, 0.6]),
            losses_only(flat(0, 200, spread=1.5), name="too noisy to tell"),
        ],
    )


@pytest.mark.parametrize("rule", DEFAULT_RULES, ids=lambda rule: rule.id)
def test_ids_and_texts_are_complete(rule: Rule) -> None:
    assert rule.measured
    assert rule.silent_on
    assert rule.advice
    known = {other.id for other in DEFAULT_RULES}
    assert set(rule.leads_to) <= known


def test_no_false_alarm_on_healthy_losses_of_many_seeds() -> None:
    alarms = [
        (name, seed, finding.rule, finding.evidence)
        for name, losses in runs.HEALTHY_LOSSES.items()
        for seed in range(20)
        for finding in diagnose(losses_only(losses(seed), name=name)).at_least(Severity.WARNING)
    ]
    assert not alarms


def test_no_false_alarm_on_healthy_layers_of_many_seeds() -> None:
    acts = ("ReLU", "Tanh", "Sigmoid", "LeakyReLU")
    alarms = [
        (seed, finding)
        for seed in range(20)
        for finding in diagnose(
            run_of(acts[seed % 4], values=sparse(0.1) if seed % 3 else None, seed=seed, steps=60, batch=32)
        ).at_least(Severity.WARNING)
    ]
    assert not alarms
