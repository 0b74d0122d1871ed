"""Rules on rates and what goes with them: the sick are caught with step and remedy, the healthy and alike left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from actograph.rules.batch_too_small import BatchTooSmall, samples_a_step
from actograph.rules.clipping_too_tight import ClippingTooTight
from actograph.rules.diagnose import diagnose
from actograph.rules.exploding_gradients import ExplodingGradients
from actograph.rules.learning_rate_decayed_early import LearningRateDecayedEarly
from actograph.rules.learning_rate_too_high import LearningRateTooHigh
from actograph.rules.learning_rate_too_low import LearningRateTooLow
from actograph.rules.missing_warmup import MissingWarmup
from actograph.rules.momentum_too_high import MomentumTooHigh
from actograph.rules.optimizer_epsilon import OptimizerEpsilon
from actograph.rules.over_regularized import OverRegularized
from actograph.rules.rule import Finding, Remedy, Rule, Severity
from actograph.testing.rules import check_catches, check_rule, check_silent
from tests.rules.rate_runs import BASE, HEALTHY, RateRun, restarts, warm_up

pytestmark = pytest.mark.xdist_group("rates")  # one process trains what they share

JUMP = 60
DEFAULT = (("budget", 0.03),)


def jumps(factor: float) -> Callable[[int], float]:
    return _JUMPS.setdefault(factor, lambda step: factor if step >= JUMP else 1.0)


_JUMPS: dict[float, Callable[[int], float]] = {}


def decays(step: int) -> float:
    return float(0.85**step)


def ends(step: int) -> float:
    return 1.0 if step < 130 else 0.0


HIGH = BASE.but(name="high", options={"lr": 3.0})
DEAD = BASE.but(name="NaN at once", options={"lr": 1e4})
JUMPED = BASE.but(name="jump", schedule=jumps(50.0))
LOW = BASE.but(name="low", options={"lr": 5e-5})
LOW_ADAM = BASE.adam(lr=3e-6).but(name="low, Adam")
DECAYED = BASE.but(name="decayed", schedule=decays)
ENDS_IN_TIME = BASE.but(name="ends in time", schedule=ends)
DONE = BASE.but(name="decayed when done", schedule=decays, spread=0.2, options={"lr": 0.5})
SWINGING = BASE.but(name="momentum", options={"momentum": 0.995, "lr": 0.1})
EPSILON = BASE.adam(eps=10.0).but(name="epsilon")
CLIPPED = BASE.but(name="clipped away", clip=1e-3)
CUT = BASE.but(name="values cut", cut_value=1e-5)
DECAY = BASE.but(name="decay", options={"weight_decay": 1.0})
DROPPED = BASE.but(name="dropped", dropout=0.95)
SINGLE = BASE.but(name="batches of one", batch=1, options={"lr": 0.1}, spread=2.0)
STUCK = BASE.adam(lr=0.2).but(name="Adam, clipped, does not rise", clip=1.0)
ABRUPT = BASE.adam(lr=2e-2).but(name="a transformer at once", blocks=3, steps=80)
EXPLODES = BASE.but(name="explodes", recurrent_gain=3.0)

SICK: dict[str, tuple[Rule, list[RateRun], list[RateRun]]] = {
    "high": (
        LearningRateTooHigh(),
        [HIGH, DEAD, JUMPED, STUCK],
        [
            BASE.but(name="a jump of three that does no harm", schedule=jumps(3.0)),
            BASE.but(name="high but learns", options={"lr": 0.15}),
            BASE.but(name="restarts from high", options={"lr": 0.3}, schedule=restarts),
            LOW,
        ],
    ),
    "warm-up": (
        MissingWarmup(),
        [ABRUPT],
        [
            ABRUPT.but(name="with a warm-up", schedule=warm_up),
            ABRUPT.but(name="a transformer that learns at once", options={"lr": 3e-3}),
            BASE.adam(lr=2e-2).but(name="no attention"),
            ABRUPT.but(name="a rate that is gone soon", schedule=decays),
        ],
    ),
    "low": (
        LearningRateTooLow(),
        [LOW, LOW_ADAM],
        [EPSILON, CLIPPED, DECAYED, BASE.but(name="short", steps=40, options={"lr": 5e-5}), BASE.adam(lr=3e-4)],
    ),
    "decayed": (
        LearningRateDecayedEarly(),
        [DECAYED],
        [ENDS_IN_TIME, DONE, LOW],
    ),
    "momentum": (
        MomentumTooHigh(),
        [SWINGING],
        [BASE.but(name="0.98 at a rate that fits", options={"momentum": 0.98, "lr": 0.005}), HIGH],
    ),
    "epsilon": (
        OptimizerEpsilon(),
        [EPSILON],
        [BASE.adam(eps=1.0, lr=0.3).but(name="a rate that makes up for it"), LOW_ADAM],
    ),
    "clipping": (
        ClippingTooTight(),
        [CLIPPED, CUT],
        [BASE.adam().but(name="Adam does not feel it", clip=1e-3), BASE.but(name="every step", clip=0.3), LOW],
    ),
    "regularized": (
        OverRegularized(),
        [DECAY, DROPPED],
        [BASE.but(name="decay of 0.01", options={"weight_decay": 1e-2}), LOW],
    ),
    "batch": (
        BatchTooSmall(),
        [SINGLE],
        [BASE.but(name="one, slowly", batch=1, options={"lr": 0.003}, steps=600, spread=0.5), HIGH],
    ),
    "exploding": (
        ExplodingGradients(),
        [EXPLODES],
        [BASE.but(name="explodes, clipped", recurrent_gain=3.0, clip=1.0), HIGH],
    ),
}  # fmt: skip


def finding_of(run: RateRun) -> Finding:
    found = diagnose(run.view()).at_least(Severity.WARNING)
    assert len(found) == 1, [finding.message for finding in found]
    return found[0]


def remedy_of(run: RateRun) -> Remedy:
    return finding_of(run).remedies[0]


@pytest.mark.parametrize("name", SICK)
def test_rule_conforms(name: str) -> None:
    rule, sick, near = SICK[name]
    check_rule(rule, sick=sick[0].view(), healthy=HEALTHY[0].view(), near_miss=near[0].view())
    for run in sick[1:]:  # cutting them off in many ways as well takes its time
        check_catches(rule, run.view())
    for run in (*HEALTHY, *near[1:]):
        check_silent(rule, run.view())


@pytest.mark.parametrize("run", HEALTHY, ids=lambda run: run.name)
def test_nothing_is_said_of_healthy_trainings(run: RateRun) -> None:
    assert not diagnose(run.view()).at_least(Severity.WARNING)


@pytest.mark.parametrize(
    ("run", "rule", "step", "target"),
    [
        (HIGH, "learning-rate-too-high", 0, "lr"),
        (DEAD, "learning-rate-too-high", 0, "lr"),
        (JUMPED, "learning-rate-too-high", JUMP, "lr"),
        (STUCK, "learning-rate-too-high", 0, "lr"),
        (ABRUPT, "missing-warmup", 0, "warmup_steps"),
        (LOW, "learning-rate-too-low", 0, "lr"),
        (LOW_ADAM, "learning-rate-too-low", 0, "lr"),
        (DECAYED, "learning-rate-decayed-early", 29, "lr"),
        (SWINGING, "momentum-too-high", 0, "momentum"),
        (EPSILON, "optimizer-epsilon", 0, "eps"),
        (CLIPPED, "clipping-too-tight", 0, "gradients"),
        (CUT, "clipping-too-tight", 0, "gradients"),
        (DECAY, "over-regularized", 0, "weight_decay"),
        (DROPPED, "over-regularized", 0, "dropout"),
        (SINGLE, "batch-too-small", 0, "batch_size"),
        (EXPLODES, "exploding-gradients", 3, "gradients"),
    ],
    ids=lambda value: value.name if isinstance(value, RateRun) else None,
)
def test_each_fault_is_one_finding_with_step_and_remedy(
    run: RateRun, rule: str, step: int, target: str
) -> None:
    finding = finding_of(run)
    assert finding.rule == rule
    assert abs(finding.first_step - step) <= 3
    assert finding.remedies[0].target == target


def test_the_remedy_of_a_jump_is_the_rate_before() -> None:
    assert remedy_of(JUMPED).new == pytest.approx(0.05)
    assert remedy_of(JUMPED).old == pytest.approx(2.5)


@pytest.mark.parametrize("run", [HIGH, LOW, LOW_ADAM], ids=lambda run: run.name)
def test_the_rate_that_is_advised_trains_well(run: RateRun) -> None:
    new = remedy_of(run).new
    assert isinstance(new, float)
    mended = run.but(options={"lr": new}).view().scalar("loss").values[-20:].mean()
    healthy = BASE.view().scalar("loss").values[-20:].mean()
    assert mended < healthy + 0.3


def test_the_limit_that_is_advised_is_a_usual_gradient_norm() -> None:
    norms = CLIPPED.view().scalar("grad_norm", "update").values
    assert remedy_of(CLIPPED).new == pytest.approx(float(torch.tensor(norms).quantile(0.9)), rel=0.1)


@pytest.mark.parametrize("run", [HIGH, JUMPED, LOW, DECAYED, EPSILON, CLIPPED], ids=lambda run: run.name)
def test_what_is_recorded_by_default_is_enough(run: RateRun) -> None:
    default = run.but(watched=DEFAULT)
    assert finding_of(default).rule == finding_of(run).rule


def test_samples_a_step_are_counted_over_micro_batches() -> None:
    assert samples_a_step(SINGLE.view()) == 1.0
    assert samples_a_step(BASE.view()) == 32.0
    assert samples_a_step(EXPLODES.view()) == 32.0
