"""What ending low gains, at several high rates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from actograph.data.loaders import Loaders, TensorLoader
from actograph.learner import Learner
from actograph.study.low_end import WARM, WARM_DIV, LowEnd, WeightTrail, averaged_accuracy, schedule_of
from actograph.study.low_end_verdict import COSINE, DROP, LOW, STAY, Runs, sentences_of
from actograph.study.setup import Setup
from actograph.study.study import Results, run_trial
from actograph.study.trial import Outcome
from actograph.train.events import Callback
from actograph.train.loop import Loop

SETUP = Setup(seeds=3, lr=0.01, epochs=2)


def few_images(batch_size: int, seed: int) -> Loaders:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 1, 8, 8, generator=generator), torch.arange(60) % 3
    train = TensorLoader(x, y, batch_size, shuffle=True, seed=seed)
    return Loaders(train, TensorLoader(x, y, 60), num_classes=3, input_size=(1, 8, 8))


def made(
    gains: Mapping[float, float], *, averaging: float = 0.0, spread: float = 1.0, noise: float = 0.0
) -> Results:
    """Return outcomes in which the cosine gains so much, by factor of the rate; ``noise`` differs from seed to seed."""
    outcomes = []
    for trial in LowEnd(SETUP).trials():
        schedule, factor = trial.options["schedule"], trial.options["factor"]
        shake = noise * (-1, 0.4, 0.6)[trial.seed] if schedule == COSINE else 0.0
        stays = schedule == STAY
        jitter = 1e-4 * (-1, 0.4, 0.6)[trial.seed]
        gain = {COSINE: gains[factor], LOW: -0.1}.get(schedule, 0.0)
        seen = (0.9, 1.0, 1.1)[trial.seed]
        values = {
            "accuracy": 0.8 + 0.001 * trial.seed + gain + shake + (not stays) * jitter, "averaged_accuracy": 0.9,
            "averaging_gain": averaging * seen if stays else 0.0, "loss_std": 0.1 * seen if stays else 0.1,
            "fixed_loss_std": 0.1 * spread * seen if stays else 0.1, "distance": 0.1 * seen if stays else 0.01, "path": 1.0,
        }  # fmt: skip
        outcomes.append(Outcome(trial, values))
    return Results(outcomes)


def verdict(gains: Mapping[float, float], **options: float) -> str:
    return " ".join(sentences_of(Runs(made(gains, **options))))


def test_a_gain_at_the_high_and_a_cost_at_the_low_rate_are_told_by_rate() -> None:
    told = verdict({0.25: -0.02, 1.0: 0.0, 4.0: 0.05}, averaging=0.04, spread=5.0)
    assert "It gains at 0.04 and costs at 0.0025" in told
    assert "depends on how high the rate was" in told
    assert "80 % of what the cosine gains there: averaging alone gets the larger part of it" in told
    assert "spreads 5 times as far" in told
    assert "hides that of the weights" in told
    assert "the way made is 10 times the distance" in told
    assert "no substitute" in told


def test_a_gain_of_averaging_that_is_small_is_told_as_the_smaller_part() -> None:
    assert "the smaller part" in verdict({0.25: 0.05, 1.0: 0.05, 4.0: 0.05}, averaging=0.01)


def test_a_low_end_that_costs_everywhere_gains_for_certain_nowhere() -> None:
    told = verdict({0.25: -0.02, 1.0: -0.03, 4.0: -0.05}, averaging=-0.01, spread=0.2)
    assert "gains at none of these rates for certain" in told
    assert "less accuracy than the last of these weights" in told
    assert "spreads less than under the cosine" in told


def test_gains_within_the_noise_of_the_seeds_are_not_told() -> None:
    told = verdict({0.25: 0.01, 1.0: 0.01, 4.0: 0.01}, noise=0.1)
    assert "At none of these rates do the seeds tell whether it gains" in told
    assert "does not spread measurably more" in told
    assert "cannot be told from it" in told


def test_without_a_training_that_stays_high_nothing_is_said() -> None:
    outcomes = [
        Outcome(one.trial, one.values, "it broke" if one.trial.options["schedule"] == STAY else None)
        for one in made({0.25: 0.0, 1.0: 0.0, 4.0: 0.0}).outcomes
    ]
    assert "Nothing can be said" in sentences_of(Runs(Results(outcomes)))[0]


def test_a_chapter_has_a_row_for_every_training_and_one_for_every_rate() -> None:
    chapter = LowEnd(SETUP).conclude(made({0.25: -0.02, 1.0: 0.0, 4.0: 0.05}))
    assert [len(table.rows) for table in chapter.tables] == [12, 3]
    assert len(chapter.pictures) == 2
    assert set(chapter.facts) == {"0.0025", "0.01", "0.04"}


def test_schedules_end_where_they_say() -> None:
    ends = {name: schedule_of(name, 0.1)(1.0) for name in (STAY, COSINE, DROP, LOW)}
    assert ends == {
        STAY: 0.1,
        COSINE: pytest.approx(1e-6),
        DROP: pytest.approx(0.01),
        LOW: pytest.approx(0.01),
    }
    assert schedule_of(DROP, 0.1)(0.74) == pytest.approx(0.1)


def test_all_schedules_rise_to_their_rate_in_the_same_way() -> None:
    begins = [schedule_of(name, 0.1) for name in (STAY, DROP)]
    assert all(schedule(0.0) == pytest.approx(0.1 / WARM_DIV) for schedule in begins)
    assert all(schedule(WARM) == pytest.approx(0.1) for schedule in begins)
    assert schedule_of(COSINE, 0.1)(0.0) == pytest.approx(0.1 / WARM_DIV)
    assert schedule_of(LOW, 0.1)(0.0) == pytest.approx(0.01 / WARM_DIV)


class Weights(Callback):
    """Keep all weights, after every step."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def after_step(self, loop: Loop) -> None:
        self.seen.append(parameters_to_vector(loop.model.parameters()).detach().clone())


def test_the_trail_has_the_mean_the_distance_and_the_way_of_the_last_weights() -> None:
    loaders = few_images(3, 0)  # 20 steps an epoch
    x, y = next(iter(loaders.train))
    trail, weights = WeightTrail(nn.CrossEntropyLoss(), x, y), Weights()
    learner = Learner(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
        loaders,
        nn.functional.cross_entropy,
        callbacks=[trail, weights],
        defaults=[],
    )
    learner.fit(2, 0.1)
    steps = torch.stack(
        weights.seen
    ).double()  # (40, parameters): at 30 begins the last quarter, at 36 the last tenth
    assert trail.mean is not None
    assert torch.allclose(trail.mean.double(), steps[30:].mean(0), atol=1e-6)
    assert trail.distance == pytest.approx(float((steps[-1] - steps[36]).norm() / steps[-1].norm()), rel=1e-5)
    way = sum(float((b - a).norm()) for a, b in itertools.pairwise(steps[36:]))
    assert trail.path == pytest.approx(way / float(steps[-1].norm()), rel=1e-5)
    assert 1 <= len(trail.losses) <= 4


def test_a_trial_trains_and_measures_its_averaged_weights(tmp_path: Path) -> None:
    setup = Setup(few_images, "mlp", seeds=2, lr=0.01, epochs=2, batch_size=6, network={"hidden": [8]})
    outcome = run_trial(LowEnd, setup, tmp_path, LowEnd(setup).trials()[0])
    assert outcome.error is None
    values = outcome.values
    assert values["averaging_gain"] == pytest.approx(values["averaged_accuracy"] - values["accuracy"])
    assert values["fixed_loss"] > 0


def test_averaged_weights_are_measured_in_a_copy() -> None:
    loaders = few_images(10, 0)
    learner = Learner(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), loaders, nn.functional.cross_entropy, defaults=[]
    )
    before = parameters_to_vector(learner.model.parameters()).detach().clone()
    assert averaged_accuracy(learner.loop, torch.zeros_like(before)) == pytest.approx(1 / 3)
    assert torch.equal(parameters_to_vector(learner.model.parameters()), before)
