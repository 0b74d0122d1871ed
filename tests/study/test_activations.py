from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actograph.layout.row import Field
from actograph.show.run import open_run
from actograph.study.activations import Activations, one_sided_near_zero
from actograph.study.activations_words import (
    COST,
    HEALTHY,
    HELD,
    ONE_SIDED,
    SICK,
    STATISTICS_TOLD,
    first_outside,
    most_different_pair,
    onset,
    verdict,
)
from actograph.study.study import TRIALS, Results
from actograph.study.trial import Outcome, Trial
from tests.study.helpers import small_model, small_setup

NUM_STEPS = 40


def run(seed: int, *, dead_from: int | None = None, loss_from: int | None = None) -> dict[str, Any]:
    """What a training of two layers measures: numbers that wander a little, units of the second that die."""
    random = np.random.default_rng(seed)
    series = {name: random.normal(0.5, 0.01, (NUM_STEPS, 2)) for name in STATISTICS_TOLD}
    series["dead"][:] = 0.0
    series["near_zero"][:] = 0.1
    series[ONE_SIDED][:] = [0.1, 0.5]
    if dead_from is not None:
        series["dead"][dead_from:, 1] = 0.8
    losses = random.normal(1.0, 0.01, NUM_STEPS)
    if loss_from is not None:
        losses[loss_from:] += 5.0
    return {
        "layers": ["first", "second"],
        "steps": list(range(NUM_STEPS)),
        "series": {name: values.tolist() for name, values in series.items()},
        "losses": losses.tolist(),
        "accuracy": 0.9 if dead_from is None else 0.1,
        "bytes_on_disk": 100 * 2 * NUM_STEPS,
    }


def results(*, dead_from: int | None, loss_from: int | None = None) -> Results:
    outcomes = [Outcome(Trial(HEALTHY, seed), run(seed)) for seed in range(3)]
    outcomes += [
        Outcome(Trial(SICK, seed), run(seed + 9, dead_from=dead_from, loss_from=loss_from))
        for seed in range(3)
    ]
    return Results(
        [*outcomes, *(Outcome(Trial(COST, seed), {"ratio": 1.1, "plain_s": 0.002}) for seed in range(3))]
    )


def test_the_first_number_that_separates_is_named_with_its_step_and_that_of_the_loss() -> None:
    sentences, facts = verdict(results(dead_from=12, loss_from=30))
    text = " ".join(sentences)
    assert (
        "is share of dead units, at step 12 (median of 3 sick trainings); the loss does at step 30." in text
    )
    assert facts["dead"] == {"step": 12, "seen": 3, "false": 0}
    assert "10 %" in sentences[0]


def test_where_nothing_separates_it_is_said() -> None:
    sentences, _ = verdict(results(dead_from=None))
    text = " ".join(sentences)
    assert "share of dead units" in next(one for one in sentences if "nothing is to be seen" in one)
    assert "No two steps were found that look alike" in text


def test_a_healthy_training_that_leaves_the_range_takes_the_number_its_word() -> None:
    healthy = [np.zeros((20, 1)), np.zeros((20, 1)), np.concatenate([np.zeros((10, 1)), np.ones((10, 1))])]
    sick = [np.full((20, 1), 9.0)]
    found = onset(healthy, sick)
    assert (found.typical, found.num_false) == (0, 1)


def test_a_number_must_stay_outside_for_some_steps() -> None:
    healthy = [np.zeros((20, 1)), np.ones((20, 1))]
    series = np.full((20, 1), 0.5)
    series[3 : 3 + HELD - 1] = 9.0
    assert first_outside(series, healthy) is None
    series[10 : 10 + HELD] = 9.0
    assert first_outside(series, healthy) == 10
    series[5:] = np.inf
    assert first_outside(series, healthy) == 3


def test_a_pair_looks_alike_in_mean_and_spread_and_differs_in_dead_units() -> None:
    well, ill = run(0), run(1, dead_from=20)
    pair = most_different_pair(well, ill)
    assert pair is not None
    assert (pair.layer, pair.sick_dead, pair.healthy_dead) == ("second", 0.8, 0.0)
    assert pair.sick_step >= 20
    ill["series"]["std"] = (10 * np.array(ill["series"]["std"])).tolist()
    assert most_different_pair(well, ill) is None


def test_too_few_trainings_say_nothing() -> None:
    sentences, facts = verdict(
        Results([Outcome(Trial(HEALTHY, 0), run(0)), Outcome(Trial(SICK, 0), {}, "it broke")])
    )
    assert sentences == ["Nothing can be said: too few trainings came through (healthy and sick)."]
    assert facts == {}


def test_one_sided_near_zero_counts_as_fastai_does(tmp_path: Path) -> None:
    study = Activations(replace(small_setup(), model=small_model))
    values = study.measure(Trial(HEALTHY, 0), tmp_path)
    view = open_run(tmp_path).view
    rows = view.rows
    low = rows[..., Field.NEG_COUNT] + rows[..., Field.NEAR_ZERO] - rows[..., Field.NEAR_ZERO_NEG]
    np.testing.assert_allclose(one_sided_near_zero(view), low / view.moments.num)
    relu = values["layers"].index("2")
    np.testing.assert_allclose(
        np.array(values["series"][ONE_SIDED])[:, relu], view.column("near_zero")[:, relu]
    )


@pytest.mark.parametrize("model", ["simple_cnn", small_model])
def test_a_small_study_runs_to_its_chapter(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actograph.study.activations.COST_ROUNDS", 2)
    monkeypatch.setattr("actograph.study.activations.COST_STEPS", 2)
    chapter = Activations(replace(small_setup(epochs=6), model=model)).run(out=tmp_path)
    assert not chapter.failures
    assert chapter.sentences[0].startswith("At six times the rate the accuracy is ")
    assert "bytes a layer and step on the disk, and makes a step of" in chapter.sentences[-1]
    assert len(chapter.pictures) == 3
    assert len(list((tmp_path / TRIALS).iterdir())) == 6
